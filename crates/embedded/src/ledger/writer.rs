//! The one thread that writes: it takes what waits, commits it in one transaction, and only then completes
//! the replies.
//!
//! A write or a commit that fails is never tried again: what the disk holds is then unknown (an fsync that
//! failed once may "succeed" the second time without having written), so everybody who waits is told, and
//! nothing more is taken. A new start reads what the disk really holds.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use flashsale_core::{
    audit::OPERATOR,
    ids::Place,
    order::{Ending, Reservation},
    product::Price,
    sale::Sale,
};
use rusqlite::{CachedStatement, Connection, ErrorCode, params};
use serde_json::json;
use tracing::{info, warn};

use super::{
    checkpoint::{Tidy, keep_short},
    commit_queue::CommitQueue,
    failure::{leave_log_alone, stop},
    outbox::Outbox,
    record::{Entry, Outcome, Record, keys_of, kind, order_key, trail_key},
};

// "OR ROLLBACK", because a group that meets an error is rolled back as a whole anyway: SQLite then keeps no
// journal of each statement.
const INSERT_TRAIL: &str = "INSERT OR ROLLBACK INTO trail (key, kind, epoch, at, user_id, unit, order_id, detail) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const INSERT_ORDER: &str = "INSERT OR ROLLBACK INTO live_orders \
     (key, place, epoch, confirmed, reserved_at, confirmed_at, id, user_id) \
     VALUES (?1, ?2, ?3, 0, ?4, ?4, ?5, ?6)";
const CONFIRM_UNITS: &str = "UPDATE OR ROLLBACK live_orders SET confirmed = 1, confirmed_at = ?4 \
     WHERE key BETWEEN ?1 AND ?2 AND epoch = ?3 AND confirmed = 0";
const END_ORDER: &str = "INSERT INTO ended_orders \
     (key, unit, place, epoch, status, reserved_at, confirmed_at, released_at, id, user_id) \
     SELECT ?3, ?4, place, epoch, ?5, reserved_at, CASE confirmed WHEN 1 THEN confirmed_at END, ?6, id, user_id \
     FROM live_orders WHERE key = ?1 AND id = ?2";
const FREE_UNIT: &str = "DELETE FROM live_orders WHERE key = ?1";
const DROP_LIVE_ORDERS: &str = "DELETE FROM live_orders WHERE key > ?1 AND key < ?2";
const DROP_ENDED_ORDERS: &str = "DELETE FROM ended_orders WHERE key > ?1 AND key < ?2";
const INSERT_SALE: &str = "INSERT INTO sales \
     (no, id, name, total_stock, starts_at, ends_at, epoch, paused, created_at, updated_at, \
     description, image_url, price, currency) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11, ?12, ?13)";
const UPDATE_SALE: &str = "UPDATE sales SET name = ?2, total_stock = ?3, starts_at = ?4, ends_at = ?5, \
     epoch = ?6, paused = ?7, updated_at = ?8, description = ?9, image_url = ?10, price = ?11, currency = ?12 \
     WHERE no = ?1";
const UPDATE_PLACE: &str = "UPDATE sales SET last_place = ?2 WHERE no = ?1";

/// The writer's thread.
pub(crate) struct Writer {
    connection: Connection,
    queue: Arc<CommitQueue>,
    outbox: Arc<Outbox>,
    /// Asked by the checkpointer when the log should start anew, which only a writer can see to.
    tidy: Arc<Tidy>,
    /// What was taken and is being written.
    group: Vec<Entry>,
}

impl Writer {
    pub(crate) fn new(
        connection: Connection,
        queue: Arc<CommitQueue>,
        outbox: Arc<Outbox>,
        tidy: Arc<Tidy>,
    ) -> Self {
        Self { connection, queue, outbox, tidy, group: Vec::new() }
    }

    /// Runs; should a panic end it, nobody must go on waiting for a commit that never comes.
    pub(crate) fn run_to_the_end(self) {
        let (queue, outbox) = (self.queue.clone(), self.outbox.clone());
        if catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            stop(&queue, &outbox, Vec::new(), "its writer ended in a panic");
        }
    }

    /// Commits groups until the queue is closed and empty, or a commit fails.
    fn run(mut self) {
        while self.queue.take(&mut self.group) && self.write() {}
        if self.queue.has_failed() {
            leave_log_alone(&self.connection);
        } else {
            self.close();
        }
    }

    /// Takes a group where [`Writer::run`] would not wait; `Some(false)` once the queue is closed and empty.
    #[cfg(feature = "stepped")]
    pub(crate) fn try_take(&mut self, lingered: bool) -> Option<bool> {
        self.queue.try_take(&mut self.group, lingered)
    }

    /// Commits the group that was taken and completes its replies; `false` when it cannot, and nothing must be
    /// written any more.
    pub(crate) fn write(&mut self) -> bool {
        let mut group = std::mem::take(&mut self.group);
        match self.commit(&mut group) {
            Ok(()) => self.settle(&mut group),
            Err(error) => {
                stop(&self.queue, &self.outbox, group, &error.to_string());
                return false;
            }
        }
        self.group = group;
        if self.tidy.is_asked() {
            self.checkpoint();
            self.tidy.done();
        }
        !self.queue.has_failed()
    }

    /// Writes a group in one transaction.
    fn commit(&self, group: &mut [Entry]) -> rusqlite::Result<()> {
        self.begin(group)?;
        let written = Transcript::new(&self.connection)?.write(group);
        let end = if written.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.connection.prepare_cached(end).and_then(|mut statement| statement.execute([]));
        // The first error is the one that says what happened.
        written?;
        ended.map(drop)
    }

    /// Begins a transaction. While somebody else holds the file (an operator with `sqlite3`, say), nothing is
    /// written and nothing is lost, so it waits; attempts that wait for `group` or behind it are told to come again.
    fn begin(&self, group: &mut [Entry]) -> rusqlite::Result<()> {
        let mut is_held = false;
        loop {
            let begun = self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([]);
            match begun {
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                    if self.queue.is_closed() {
                        return Err(error);
                    }
                    warn!("another process holds the ledger; nothing can be recorded until it lets go");
                    self.queue.hold_up(group);
                    is_held = true;
                }
                other => {
                    if is_held {
                        self.queue.go_on();
                    }
                    return other.map(drop);
                }
            }
        }
    }

    /// The group is durable: memory may say so, and whoever waits is told.
    fn settle(&self, group: &mut Vec<Entry>) {
        for entry in group.iter() {
            entry.cell.set_durable(entry.place);
        }
        self.queue.count_commit(group.len());
        self.outbox.add(group.iter().filter_map(Entry::reservation));
        for reply in group.drain(..).filter_map(|entry| entry.reply) {
            // Whoever hung up in the meantime has no need of it.
            let _ = reply.send(Ok(()));
        }
    }

    /// Between two groups, with nearly all of the log checkpointed already, this is short; the next write
    /// then starts the log anew.
    pub(crate) fn checkpoint(&self) {
        // SQLite itself syncs the file once nothing is left to copy.
        let sync = || Ok(());
        keep_short(&self.connection, &self.queue, &self.outbox, &self.tidy, |_| true, sync);
    }

    pub(crate) fn close(self) {
        let outcome = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = outcome {
            warn!(%error, "the last checkpoint of the ledger failed; the next start will do it");
            leave_log_alone(&self.connection);
        }
        info!("the ledger is closed");
    }
}

/// One transaction being written.
struct Transcript<'c> {
    connection: &'c Connection,
    trail: CachedStatement<'c>,
    orders: CachedStatement<'c>,
    /// The last place of each sale in this group, to be written once.
    places: Vec<(u32, Place)>,
}

/// The fields of a trail row beside its place.
#[derive(Default)]
struct Row<'a> {
    unit: Option<u32>,
    order_id: Option<&'a str>,
    detail: Option<String>,
}

impl<'c> Transcript<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        let (trail, orders) =
            (connection.prepare_cached(INSERT_TRAIL)?, connection.prepare_cached(INSERT_ORDER)?);
        Ok(Self { connection, trail, orders, places: Vec::new() })
    }

    fn write(mut self, group: &[Entry]) -> rusqlite::Result<()> {
        for entry in group {
            match &entry.record {
                Record::Attempt(user, outcome) => self.attempt(entry, user.as_str(), *outcome)?,
                Record::Confirmed(reservations) => self.confirmed(entry, reservations)?,
                Record::Released(reservation, ending) => self.released(entry, reservation, *ending)?,
                Record::Refused(reservation, reason) => self.refused(entry, reservation, reason)?,
                Record::Created(sale) => self.created(entry, sale)?,
                Record::Changed(sale) => self.changed(entry, sale)?,
                Record::Reset => self.reset(entry)?,
                Record::Deleted => self.deleted(entry)?,
            }
            self.remember(entry);
        }
        let mut statement = self.connection.prepare_cached(UPDATE_PLACE)?;
        for (no, place) in &self.places {
            statement.execute(params![no, place.0.cast_signed()])?;
        }
        Ok(())
    }

    fn remember(&mut self, entry: &Entry) {
        match self.places.iter_mut().find(|(no, _)| *no == entry.cell.no) {
            Some((_, place)) => *place = entry.place,
            None => self.places.push((entry.cell.no, entry.place)),
        }
    }

    fn attempt(&mut self, entry: &Entry, user: &str, outcome: Outcome) -> rusqlite::Result<()> {
        let mut buffer = uuid::Uuid::encode_buffer();
        let (kind, held) = match outcome {
            Outcome::SoldOut => (kind::REJECTED_SOLD_OUT, None),
            Outcome::NotActive => (kind::REJECTED_NOT_ACTIVE, None),
            Outcome::Duplicate { order_id, unit } => (kind::REJECTED_DUPLICATE, Some((order_id, unit))),
            Outcome::Reserved { order_id, unit } => (kind::RESERVED, Some((order_id, unit))),
        };
        if let (kind::RESERVED, Some((id, unit))) = (kind, held) {
            self.orders.execute(params![
                order_key(entry.cell.no, unit),
                entry.place.0.cast_signed(),
                entry.epoch.0,
                entry.at.as_millis(),
                id.0.as_bytes(),
                user,
            ])?;
        }
        let held = held.map(|(id, unit)| (&*id.0.as_hyphenated().encode_lower(&mut buffer), unit));
        let row = Row { order_id: held.map(|(id, _)| id), unit: held.map(|(_, unit)| unit.0), detail: None };
        self.trail(entry, entry.place, kind, user, &row)
    }

    fn trail(
        &mut self,
        entry: &Entry,
        place: Place,
        kind: u8,
        user: &str,
        row: &Row<'_>,
    ) -> rusqlite::Result<()> {
        self.trail.execute(params![
            trail_key(entry.cell.no, place),
            kind,
            entry.epoch.0,
            entry.at.as_millis(),
            user,
            row.unit,
            row.order_id,
            row.detail,
        ])?;
        Ok(())
    }

    fn reservation(
        &mut self,
        entry: &Entry,
        place: Place,
        kind: u8,
        reservation: &Reservation,
        detail: Option<String>,
    ) -> rusqlite::Result<()> {
        let mut buffer = uuid::Uuid::encode_buffer();
        let id = &*reservation.order_id.0.as_hyphenated().encode_lower(&mut buffer);
        let row = Row { unit: Some(reservation.unit.0), order_id: Some(id), detail };
        self.trail(entry, place, kind, reservation.user_id.as_str(), &row)
    }

    fn confirmed(&mut self, entry: &Entry, reservations: &[Reservation]) -> rusqlite::Result<()> {
        let mut statement = self.connection.prepare_cached(CONFIRM_UNITS)?;
        // Units are reserved in rows, so a batch is a few runs of them, each one statement.
        for run in reservations.chunk_by(|left, right| left.unit.next() == right.unit) {
            let key = |reservation: &Reservation| order_key(entry.cell.no, reservation.unit);
            let (first, last) = (key(&run[0]), key(&run[run.len() - 1]));
            let changed = statement.execute(params![first, last, entry.epoch.0, entry.at.as_millis()])?;
            // Memory decided what to confirm; should the file see it differently, nothing more is to be sold.
            if changed != run.len() {
                return Err(rusqlite::Error::StatementChangedRows(changed));
            }
        }
        let first = entry.place.0 + 1 - reservations.len() as u64;
        for (place, reservation) in (first..).map(Place).zip(reservations) {
            self.reservation(entry, place, kind::CONFIRMED, reservation, None)?;
        }
        Ok(())
    }

    fn released(&mut self, entry: &Entry, reservation: &Reservation, ending: Ending) -> rusqlite::Result<()> {
        let key = order_key(entry.cell.no, reservation.unit);
        let ended = self.connection.prepare_cached(END_ORDER)?.execute(params![
            key,
            reservation.order_id.0.as_bytes(),
            trail_key(entry.cell.no, entry.place),
            reservation.unit.0,
            ending.status().as_str(),
            entry.at.as_millis(),
        ])?;
        if ended != 1 {
            return Err(rusqlite::Error::StatementChangedRows(ended));
        }
        self.connection.prepare_cached(FREE_UNIT)?.execute([key])?;
        let kind = match ending {
            Ending::Expired => kind::EXPIRED,
            Ending::Cancelled => kind::CANCELLED,
        };
        self.reservation(entry, entry.place, kind, reservation, None)
    }

    fn refused(&mut self, entry: &Entry, reservation: &Reservation, reason: &str) -> rusqlite::Result<()> {
        let detail = json!({ "reason": reason }).to_string();
        self.reservation(entry, entry.place, kind::FAILED_DB, reservation, Some(detail))
    }

    fn created(&mut self, entry: &Entry, sale: &Sale) -> rusqlite::Result<()> {
        let time = entry.at.to_string();
        let (starts_at, ends_at) = (sale.window.starts_at().to_string(), sale.window.ends_at().to_string());
        self.connection
            .prepare_cached("DELETE FROM retired_sales WHERE no = ?1")?
            .execute([entry.cell.no])?;
        self.connection.prepare_cached(INSERT_SALE)?.execute(params![
            entry.cell.no,
            sale.id.as_str(),
            sale.name,
            sale.total_stock,
            starts_at,
            ends_at,
            sale.epoch.0,
            sale.paused,
            time,
            sale.product.description,
            sale.product.image_url,
            sale.product.price.map(|price| price.amount()),
            sale.product.price.as_ref().map(Price::currency),
        ])?;
        self.admin(entry, kind::ADMIN_CREATED, Some(sale))
    }

    fn changed(&mut self, entry: &Entry, sale: &Sale) -> rusqlite::Result<()> {
        let time = entry.at.to_string();
        let (starts_at, ends_at) = (sale.window.starts_at().to_string(), sale.window.ends_at().to_string());
        self.connection.prepare_cached(UPDATE_SALE)?.execute(params![
            entry.cell.no,
            sale.name,
            sale.total_stock,
            starts_at,
            ends_at,
            sale.epoch.0,
            sale.paused,
            time,
            sale.product.description,
            sale.product.image_url,
            sale.product.price.map(|price| price.amount()),
            sale.product.price.as_ref().map(Price::currency),
        ])?;
        self.admin(entry, kind::ADMIN_CHANGED, Some(sale))
    }

    fn reset(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        let time = entry.at.to_string();
        self.drop_orders(entry.cell.no)?;
        self.connection
            .prepare_cached("UPDATE sales SET epoch = ?2, updated_at = ?3 WHERE no = ?1")?
            .execute(params![entry.cell.no, entry.epoch.0, time])?;
        self.admin(entry, kind::ADMIN_RESET, None)
    }

    fn deleted(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        let time = entry.at.to_string();
        self.admin(entry, kind::ADMIN_DELETED, None)?;
        // Orders that ended are no part of what the next sale of this id sells; their trail stays.
        self.drop_orders(entry.cell.no)?;
        let (no, place) = (entry.cell.no, entry.place.0.cast_signed());
        self.connection
            .prepare_cached(
                "INSERT INTO retired_sales (no, id, epoch, last_place, deleted_at) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![no, entry.cell.id.as_str(), entry.epoch.0, place, time])?;
        self.connection.prepare_cached("DELETE FROM sales WHERE no = ?1")?.execute([no])?;
        Ok(())
    }

    fn drop_orders(&self, no: u32) -> rusqlite::Result<()> {
        for sql in [DROP_LIVE_ORDERS, DROP_ENDED_ORDERS] {
            self.connection.prepare_cached(sql)?.execute(keys_of(no))?;
        }
        Ok(())
    }

    fn admin(&mut self, entry: &Entry, kind: u8, sale: Option<&Sale>) -> rusqlite::Result<()> {
        let row = Row { detail: sale.map(set_up), ..Row::default() };
        self.trail(entry, entry.place, kind, OPERATOR, &row)
    }
}

/// The set-up of a sale as its trail keeps it.
fn set_up(sale: &Sale) -> String {
    serde_json::to_string(&sale.set_up()).expect("a set-up is plain text and numbers")
}
