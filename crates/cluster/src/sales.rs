//! Changes of a sale: its gate in Redis is closed, PostgreSQL commits, the gate opens with what has changed.
//!
//! One change at a time in the whole installation, under an advisory lock. Whoever dies in between leaves the gate
//! closed, and the sale is loaded anew from PostgreSQL (`recovery`).

use std::time::Duration;

use flashsale_core::{
    Error, Result,
    audit::OPERATOR,
    clock::Timestamp,
    ids::{Epoch, Place, SaleId},
    order::{Ending, Reservation},
    product::{Price, Product},
    sale::{NewSale, Sale, SaleChange},
};
use serde_json::Value;
use sqlx::{Connection, PgConnection, PgPool, Row};
use std::sync::Arc;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{sleep, timeout},
};
use tracing::warn;
use uuid::Uuid;

use crate::{
    lock::{Lock, What},
    message::Message,
    recovery::Alarm,
    stock::{LEFT_CLOSED, Opening, Rows, State, Stock, Trouble, place},
    store::{LONGEST, database, kind, mute, signed, within},
};

/// How long a change waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);
/// Sales at once.
const SALES_MAX: i64 = 100_000;
/// How often the gate is tried to be opened again after a change that is on record.
const TRIES: u32 = 5;

const UNDER_WAY: &str = "INSERT INTO trail (sale_no, kind, epoch, place, at, user_id, unit, order_id) \
     SELECT $1, 1, epoch, place, 'epoch'::timestamptz + at * interval '1 millisecond', user_id, unit, order_id \
     FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::text[], $6::int[], $7::uuid[]) \
     AS one (epoch, place, at, user_id, unit, order_id) ON CONFLICT DO NOTHING";
/// Changes that wait for the lock at once, of this replica; each takes a connection.
const WAITING_MAX: usize = 4;

/// Who changes sales.
pub(crate) struct Sales {
    pool: PgPool,
    stock: Stock,
    alarm: Arc<Alarm>,
    waiting: Semaphore,
}

/// A row of the trail that is no attempt.
pub(crate) struct Event<'a> {
    pub(crate) no: i32,
    pub(crate) kind: i16,
    pub(crate) epoch: Epoch,
    pub(crate) place: Place,
    pub(crate) user: &'a str,
    pub(crate) held: Option<&'a Reservation>,
    pub(crate) detail: Option<Value>,
}

impl Event<'_> {
    /// Puts it on record.
    pub(crate) async fn record(&self, connection: &mut PgConnection) -> Result<()> {
        let sql = "INSERT INTO trail (sale_no, kind, epoch, place, at, user_id, unit, order_id, detail) \
             VALUES ($1, $2, $3, $4, now(), $5, $6, $7, $8::jsonb)";
        let insert = sqlx::query(sql)
            .bind(self.no)
            .bind(self.kind)
            .bind(signed(self.epoch.0))
            .bind(self.place.0.cast_signed())
            .bind(self.user)
            .bind(self.held.map(|held| signed(held.unit.0)))
            .bind(self.held.map(|held| held.order_id.0))
            .bind(self.detail.as_ref().map(ToString::to_string));
        within(LONGEST, insert.execute(connection)).await.map(drop)
    }
}

/// The set-up of a sale as its trail keeps it.
fn set_up(sale: &Sale) -> Value {
    serde_json::to_value(sale.set_up()).expect("a set-up is plain text and numbers")
}

/// A sale whose gate we have closed.
struct Closed {
    token: String,
    state: State,
}

impl Closed {
    /// The place of what happens now.
    fn place(&self) -> Place {
        self.state.place.next()
    }
}

impl Sales {
    pub(crate) fn new(pool: PgPool, stock: Stock, alarm: Arc<Alarm>) -> Self {
        Self { pool, stock, alarm, waiting: Semaphore::new(WAITING_MAX) }
    }

    /// Waits for its turn.
    async fn turn(&self) -> Result<(SemaphorePermit<'_>, Lock)> {
        let busy = || Error::Busy { retry_after: Duration::from_secs(1) };
        let permit =
            timeout(PATIENCE, self.waiting.acquire()).await.map_err(|_| busy())?.map_err(|_| busy())?;
        Ok((permit, Lock::acquire(&self.pool, What::Changes, PATIENCE).await?))
    }

    async fn close(&self, sale: &SaleId) -> Result<Closed> {
        let token = Uuid::now_v7().to_string();
        match self.stock.close(sale, &token).await {
            Ok(state) => Ok(Closed { token, state }),
            Err(Trouble::Missing) if !self.known(sale).await? => Err(Error::UnknownSale(sale.clone())),
            // We hold the lock: whoever closed it is dead, or has given up.
            Err(Trouble::Closed) => Err(self.alarm.raise(Trouble::Forgotten(LEFT_CLOSED))),
            Err(trouble) => Err(self.alarm.raise(trouble)),
        }
    }

    async fn known(&self, sale: &SaleId) -> Result<bool> {
        self.stock.known(sale).await.map_err(|trouble| self.alarm.raise(trouble))
    }

    /// Opens the gate as it was: nothing was changed. Where that fails, the sale is loaded anew.
    async fn abandon(&self, sale: &SaleId, closed: &Closed) {
        if let Err(trouble) = self.stock.reopen(sale, &closed.token, Opening::Same).await {
            warn!(%sale, ?trouble, "the gate cannot be opened again");
            self.alarm.raise(Trouble::Forgotten(LEFT_CLOSED));
        }
    }

    /// Opens the gate after a change that is on record.
    async fn open(&self, sale: &SaleId, closed: &Closed, opening: Opening<'_>) -> Result<Option<State>> {
        let mut tries = 0;
        loop {
            // Off the list first: a sale that is listed and not there would count as forgotten.
            if matches!(opening, Opening::Delete) {
                let _ = self.stock.unlist_sale(sale).await;
            }
            match self.stock.reopen(sale, &closed.token, opening.clone()).await {
                Ok(state) => return Ok(state),
                Err(Trouble::Away(why)) if tries < TRIES => {
                    tries += 1;
                    warn!(%sale, why, "the gate is not open yet");
                    sleep(Duration::from_millis(100) * tries).await;
                }
                Err(trouble) => {
                    if tries > 0
                        && let Some(done) = self.was_opened(sale, closed, &opening).await
                    {
                        return Ok(done);
                    }
                    self.alarm.raise(Trouble::Forgotten(LEFT_CLOSED));
                    warn!(%sale, ?trouble, "a change is on record; it holds when the stock is rebuilt");
                    return Err(trouble.into());
                }
            }
        }
    }

    /// Whether a gate was opened by a try whose reply was lost, and how the sale is since.
    async fn was_opened(
        &self,
        sale: &SaleId,
        closed: &Closed,
        opening: &Opening<'_>,
    ) -> Option<Option<State>> {
        match (opening, self.stock.status(sale).await) {
            (Opening::Delete, Err(Trouble::Missing)) => Some(None),
            (Opening::Delete, _) => None,
            (_, Ok(state)) if !state.closed && state.place >= closed.place() => Some(Some(state)),
            _ => None,
        }
    }

    /// A change behind the closed gate: `commit` is one transaction, and refuses or is on record.
    async fn gated<'a>(
        &self,
        sale: &SaleId,
        commit: impl AsyncFnOnce(&mut PgConnection, &Closed) -> Result<Option<Opening<'a>>>,
    ) -> Result<Option<State>> {
        let (_turn, mut lock) = self.turn().await?;
        let closed = self.close(sale).await?;
        let mut transaction = match within(LONGEST, lock.session.begin()).await {
            Ok(transaction) => transaction,
            Err(error) => {
                self.abandon(sale, &closed).await;
                return Err(error);
            }
        };
        let changed = timeout(LONGEST, commit(&mut transaction, &closed)).await;
        let opening = match changed.unwrap_or_else(|_| Err(mute())) {
            Ok(Some(opening)) => opening,
            refused => {
                let _ = timeout(LONGEST, transaction.rollback()).await;
                self.abandon(sale, &closed).await;
                lock.release().await;
                return refused.map(|_| None);
            }
        };
        if let Err(error) = within(LONGEST, transaction.commit()).await {
            // Whether it is on record, PostgreSQL knows: the sale is loaded from there.
            self.alarm.raise(Trouble::Forgotten("a change was cut off"));
            return Err(error);
        }
        let state = self.open(sale, &closed, opening).await?;
        lock.release().await;
        // A sale that is gone has no state; whoever asked knows.
        Ok(Some(state.unwrap_or(closed.state)))
    }

    pub(crate) async fn create(&self, new: NewSale) -> Result<State> {
        let (_turn, mut lock) = self.turn().await?;
        let id = new.id().clone();
        if self.known(&id).await? {
            return Err(Error::SaleExists(id));
        }
        let (generation, _) = self.stock.list().await.map_err(|trouble| self.alarm.raise(trouble))?;
        let mut transaction = within(LONGEST, lock.session.begin()).await?;
        let inserted = timeout(LONGEST, insert(&mut transaction, new, generation)).await;
        let (no, sale, first) = inserted.unwrap_or_else(|_| Err(mute())).inspect_err(|error| {
            // PostgreSQL knows it, and Redis does not: whoever made it died in between.
            if matches!(error, Error::SaleExists(_)) {
                self.alarm.raise(Trouble::Forgotten("a sale that is on record is not loaded"));
            }
        })?;
        within(LONGEST, transaction.commit()).await.inspect_err(|_| {
            self.alarm.raise(Trouble::Forgotten("the making of a sale was cut off"));
        })?;
        let loaded = self.stock.load(no, &sale, first, &Rows::default()).await;
        let listed = match loaded {
            Ok(state) => self.stock.list_sale(&id, no).await.map(|()| state),
            Err(trouble) => Err(trouble),
        };
        let state = listed.map_err(|trouble| {
            warn!(sale = %id, ?trouble, "a sale is on record; it opens when the stock is rebuilt");
            self.alarm.raise(Trouble::Forgotten("a new sale is not loaded"))
        })?;
        lock.release().await;
        Ok(state)
    }

    pub(crate) async fn change(&self, sale: &SaleId, change: &SaleChange) -> Result<State> {
        let mut changed = None;
        let state = self.gated(sale, async |transaction, closed| {
            closed.state.sale.check_expected(change)?;
            let after = closed.state.sale.changed(change)?;
            let highest = closed.state.next.0 - 1;
            if after.total_stock < highest {
                return Err(Error::Conflict(format!(
                    "Unit {highest} is held; the stock cannot go below it (asked for {})",
                    after.total_stock
                )));
            }
            update(transaction, &after).await?;
            let (detail, epoch, no) = (Some(set_up(&after)), after.epoch, closed.state.no);
            let kind = kind::ADMIN_CHANGED;
            let event = Event { no, kind, epoch, place: closed.place(), user: OPERATOR, held: None, detail };
            event.record(transaction).await?;
            Ok(Some(Opening::Change(changed.insert(after))))
        });
        state.await?.ok_or_else(|| Error::UnknownSale(sale.clone()))
    }

    pub(crate) async fn reset(&self, sale: &SaleId, expected: Option<Epoch>) -> Result<State> {
        let state = self.gated(sale, async |transaction, closed| {
            closed.state.sale.check_epoch(expected)?;
            // The sale's row first, which workers share while they store: nobody waits for whom he keeps waiting.
            let epoch = closed.state.sale.epoch.next();
            let raise = sqlx::query("UPDATE sales SET epoch = $2, updated_at = now() WHERE no = $1");
            raise
                .bind(closed.state.no)
                .bind(signed(epoch.0))
                .execute(&mut *transaction)
                .await
                .map_err(database)?;
            self.record_under_way(transaction, sale, closed.state.no).await?;
            let delete = sqlx::query("DELETE FROM orders WHERE sale_id = $1").bind(sale.as_str());
            delete.execute(&mut *transaction).await.map_err(database)?;
            let (no, kind, place) = (closed.state.no, kind::ADMIN_RESET, closed.place());
            let event = Event { no, kind, epoch, place, user: OPERATOR, held: None, detail: None };
            event.record(transaction).await?;
            Ok(Some(Opening::Reset(epoch)))
        });
        state.await?.ok_or_else(|| Error::UnknownSale(sale.clone()))
    }

    /// Puts reservations on record whose orders are not stored yet, and never will be.
    async fn record_under_way(&self, transaction: &mut PgConnection, sale: &SaleId, no: i32) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let entries = self.stock.outbox(sale, after.as_deref(), None, 100).await?;
            let Some(last) = entries.last else { return Ok(()) };
            after = Some(last);
            let messages: Vec<_> =
                entries.rows.into_iter().filter_map(|entry| Message::of(sale, entry)).collect();
            let held: Vec<Reservation> = messages.iter().flat_map(Message::reservations).collect();
            let insert = sqlx::query(UNDER_WAY)
                .bind(no)
                .bind(held.iter().map(|one| signed(one.epoch.0)).collect::<Vec<_>>())
                .bind(held.iter().map(|one| one.place.0.cast_signed()).collect::<Vec<_>>())
                .bind(held.iter().map(|one| one.reserved_at.as_millis()).collect::<Vec<_>>())
                .bind(held.iter().map(|one| one.user_id.as_str()).collect::<Vec<_>>())
                .bind(held.iter().map(|one| signed(one.unit.0)).collect::<Vec<_>>())
                .bind(held.iter().map(|one| one.order_id.0).collect::<Vec<_>>());
            insert.execute(&mut *transaction).await.map_err(database)?;
        }
    }

    /// Ends a live order; `false` where there is none (any more).
    pub(crate) async fn release(&self, held: &Reservation, ending: Ending) -> Result<bool> {
        let user = held.user_id.as_str();
        let released = self.gated(&held.sale_id, async |transaction, closed| {
            let found = self.stock.purchase(&held.sale_id, user).await?.1;
            let lives = closed.state.sale.epoch == held.epoch
                && found.is_some_and(|found| found.order_id == held.order_id);
            if !lives {
                return Ok(None);
            }
            end(transaction, closed.state.no, held, ending).await?;
            let kind = match ending {
                Ending::Expired => kind::EXPIRED,
                Ending::Cancelled => kind::CANCELLED,
            };
            let (no, epoch, place) = (closed.state.no, held.epoch, closed.place());
            let event = Event { no, kind, epoch, place, user, held: Some(held), detail: None };
            event.record(transaction).await?;
            Ok(Some(Opening::Release(user)))
        });
        match released.await {
            Ok(state) => Ok(state.is_some()),
            Err(Error::UnknownSale(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn delete(&self, sale: &SaleId) -> Result<()> {
        self.gated(sale, async |transaction, closed| {
            let State { sale: gone, available, no, .. } = &closed.state;
            let sold = gone.total_stock - available;
            if sold > 0 {
                let orders = if sold == 1 { "1 order".to_owned() } else { format!("{sold} orders") };
                return Err(Error::Conflict(format!(
                    "The sale {sale} has {orders}; reset it first if they are to be lost"
                )));
            }
            for sql in [
                "INSERT INTO retired_sales (no, id, epoch) SELECT no, id, epoch FROM sales WHERE no = $1",
                "DELETE FROM orders WHERE sale_id = (SELECT id FROM sales WHERE no = $1)",
                "DELETE FROM sales WHERE no = $1",
            ] {
                sqlx::query(sql).bind(no).execute(&mut *transaction).await.map_err(database)?;
            }
            let (kind, epoch, place) = (kind::ADMIN_DELETED, gone.epoch, closed.place());
            let event = Event { no: *no, kind, epoch, place, user: OPERATOR, held: None, detail: None };
            event.record(transaction).await?;
            Ok(Some(Opening::Delete))
        })
        .await
        .map(drop)
    }
}

/// Inserts a sale; its number, the sale, and the place of its making.
async fn insert(transaction: &mut PgConnection, new: NewSale, generation: u32) -> Result<(i32, Sale, Place)> {
    let id = new.id().clone();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM sales")
        .fetch_one(&mut *transaction)
        .await
        .map_err(database)?;
    if count >= SALES_MAX {
        return Err(Error::Conflict(format!("There are {SALES_MAX} sales already; delete some first")));
    }
    let retired =
        sqlx::query("DELETE FROM retired_sales WHERE id = $1 RETURNING no, epoch").bind(id.as_str());
    let retired = retired.fetch_optional(&mut *transaction).await.map_err(database)?;
    let (no, epoch): (Option<i32>, i32) =
        retired.map_or((None, 1), |row| (Some(row.get("no")), row.get::<i32, _>("epoch") + 1));
    let sale = new.open(Epoch(epoch.unsigned_abs()));
    let no: i32 = match no {
        Some(no) => no,
        None => sqlx::query_scalar("SELECT nextval(pg_get_serial_sequence('sales', 'no'))::integer")
            .fetch_one(&mut *transaction)
            .await
            .map_err(database)?,
    };
    let sql = "INSERT INTO sales (no, id, name, total_stock, epoch, paused, starts_at, ends_at, \
         description, image_url, price, currency) VALUES \
         ($1, $2, $3, $4, $5, $6, 'epoch'::timestamptz + $7 * interval '1 millisecond', \
         'epoch'::timestamptz + $8 * interval '1 millisecond', $9, $10, $11::numeric, $12)";
    let insert = sqlx::query(sql)
        .bind(no)
        .bind(id.as_str())
        .bind(&sale.name)
        .bind(signed(sale.total_stock))
        .bind(epoch)
        .bind(sale.paused)
        .bind(sale.window.starts_at().as_millis())
        .bind(sale.window.ends_at().as_millis())
        .bind(sale.product.description.as_deref())
        .bind(sale.product.image_url.as_deref())
        .bind(sale.product.price.map(|price| price.amount()))
        .bind(sale.product.price.as_ref().map(Price::currency));
    match insert.execute(&mut *transaction).await.map_err(database) {
        Err(Error::Refused(_)) => return Err(Error::SaleExists(id)),
        done => done?,
    };
    let first = next_place(transaction, no, generation).await?;
    let (kind, epoch, detail) = (kind::ADMIN_CREATED, sale.epoch, Some(set_up(&sale)));
    Event { no, kind, epoch, place: first, user: OPERATOR, held: None, detail }.record(transaction).await?;
    Ok((no, sale, first))
}

/// The first place of a sale that is loaded in a generation: beyond all that it has had.
async fn next_place(connection: &mut PgConnection, no: i32, generation: u32) -> Result<Place> {
    let last = sqlx::query_scalar::<_, Option<i64>>(
        "SELECT max(place) FROM trail WHERE sale_no = $1 AND kind IN (1, 6, 7, 9, 10, 11, 12, 13)",
    );
    let last = last.bind(no).fetch_one(connection).await.map_err(database)?;
    let fresh = place(generation, 0);
    Ok(last.map_or(fresh, |last| Place(last.cast_unsigned()).next().max(fresh)))
}

async fn update(transaction: &mut PgConnection, sale: &Sale) -> Result<()> {
    let sql = "UPDATE sales SET name = $2, total_stock = $3, paused = $4, updated_at = now(), \
         starts_at = 'epoch'::timestamptz + $5 * interval '1 millisecond', \
         ends_at = 'epoch'::timestamptz + $6 * interval '1 millisecond', \
         description = $7, image_url = $8, price = $9::numeric, currency = $10 WHERE id = $1";
    let update = sqlx::query(sql)
        .bind(sale.id.as_str())
        .bind(&sale.name)
        .bind(signed(sale.total_stock))
        .bind(sale.paused)
        .bind(sale.window.starts_at().as_millis())
        .bind(sale.window.ends_at().as_millis())
        .bind(sale.product.description.as_deref())
        .bind(sale.product.image_url.as_deref())
        .bind(sale.product.price.map(|price| price.amount()))
        .bind(sale.product.price.as_ref().map(Price::currency));
    match update.execute(transaction).await.map_err(database) {
        Err(Error::Refused(why)) => Err(Error::Conflict(why)),
        done => done.map(drop),
    }
}

/// Ends an order's row. Where its message is still on its way, the row is made, so that the message finds it ended.
async fn end(transaction: &mut PgConnection, no: i32, held: &Reservation, ending: Ending) -> Result<()> {
    let sql = "INSERT INTO orders (id, sale_id, epoch, unit, user_id, status, place, reserved_at, released_at) VALUES \
         ($1, $2, $3, $4, $5, $6, $7, 'epoch'::timestamptz + $8 * interval '1 millisecond', now()) \
         ON CONFLICT (id) DO UPDATE SET status = excluded.status, released_at = excluded.released_at \
         RETURNING xmax = 0 AS made";
    let made: bool = sqlx::query_scalar(sql)
        .bind(held.order_id.0)
        .bind(held.sale_id.as_str())
        .bind(signed(held.epoch.0))
        .bind(signed(held.unit.0))
        .bind(held.user_id.as_str())
        .bind(ending.status().as_str())
        .bind(held.place.0.cast_signed())
        .bind(held.reserved_at.as_millis())
        .fetch_one(&mut *transaction)
        .await
        .map_err(database)?;
    if made {
        let (kind, epoch, user) = (kind::RESERVED, held.epoch, held.user_id.as_str());
        let event = Event { no, kind, epoch, place: held.place, user, held: Some(held), detail: None };
        event.record(transaction).await?;
    }
    Ok(())
}

/// A sale as PostgreSQL has it, with its number.
pub(crate) fn sale_of(row: &sqlx::postgres::PgRow) -> Result<(i32, Sale)> {
    let moment = |column| Timestamp::from_millis(row.get::<i64, _>(column));
    let sale = Sale {
        id: row.get::<&str, _>("id").parse()?,
        name: row.get("name"),
        total_stock: crate::store::unsigned(row, "total_stock"),
        window: flashsale_core::sale::Window::new(moment("starts_at"), moment("ends_at"))?,
        epoch: Epoch(crate::store::unsigned(row, "epoch")),
        paused: row.get("paused"),
        product: Arc::new(product_of(row)?),
    };
    Ok((row.get("no"), sale))
}

fn product_of(row: &sqlx::postgres::PgRow) -> Result<Product> {
    let (amount, currency): (Option<String>, Option<String>) = (row.get("price"), row.get("currency"));
    let price = amount.zip(currency).map(|(amount, currency)| Price::new(&amount, &currency)).transpose()?;
    Ok(Product { description: row.get("description"), image_url: row.get("image_url"), price })
}
