//! The order queue of the embedded profile: a cursor over the ledger.
//!
//! Reservation and outbox are one row, so there is no second copy that could differ: what is `RESERVED` and
//! lies beyond the cursor is the queue. Its newest part is still in memory and need not be read. The cursor
//! is not kept: after a start it stands before the oldest reservation that is not confirmed, and delivering
//! something twice is harmless.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use flashsale_core::{
    Result,
    clock::Timestamp,
    ids::{Epoch, Place, SaleId, Unit},
    order::Reservation,
    ports::{Delivery, OrderQueue},
};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::{
    inventory::Engine,
    ledger::{
        outbox::{Next, Numbered, Outbox},
        parsed, unreadable,
    },
};

/// The most reservations in a delivery.
const BATCH: usize = 1_024;
/// How long a delivery that is not full waits for more: confirming many at once costs little more than one.
const LINGER: Duration = Duration::from_millis(20);

const NEXT: &str = "SELECT seq, id, sale_id, epoch, unit, user_id, reserved_at, place FROM orders \
     WHERE seq > ?1 AND status = 'RESERVED' ORDER BY seq LIMIT ?2";

const OLDEST: &str = "SELECT reserved_at FROM orders \
     WHERE seq > ?1 AND sale_id = ?2 AND status = 'RESERVED' ORDER BY seq LIMIT 1";

/// The queue.
pub(crate) struct LedgerQueue {
    engine: Arc<Engine>,
    /// The last order that was worked off.
    cursor: AtomicI64,
    closed: AtomicBool,
}

impl LedgerQueue {
    pub(crate) fn new(engine: Arc<Engine>, cursor: i64) -> Self {
        Self { engine, cursor: AtomicI64::new(cursor), closed: AtomicBool::new(false) }
    }

    /// Ends the queue once it is drained.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.outbox().wake();
    }

    /// Since when the oldest reservation of a sale waits.
    pub(crate) async fn waiting_since(&self, sale: &SaleId) -> Result<Option<Timestamp>> {
        let (cursor, sale) = (self.cursor.load(Ordering::Acquire), sale.clone());
        let read = move |connection: &Connection| {
            let row = connection.prepare_cached(OLDEST).and_then(|mut oldest| {
                oldest.query_row((cursor, sale.as_str()), |row| parsed(row, 0)).optional()
            });
            row.map_err(|error| unreadable(&error))
        };
        self.engine.ledger().readers.run(read).await
    }

    fn outbox(&self) -> &Outbox {
        &self.engine.ledger().outbox
    }

    /// Rows beyond the cursor. When they are not a full batch, memory has them now, and what comes after them.
    async fn read(&self, cursor: i64) -> Result<Vec<Numbered>> {
        self.outbox().catch_up();
        let batch = self.engine.ledger().readers.run(move |connection| read(connection, cursor)).await;
        match &batch {
            Ok(rows) if rows.len() < BATCH => self.outbox().caught_up(rows),
            _ => self.outbox().fall_behind(),
        }
        batch
    }
}

#[async_trait]
impl OrderQueue for LedgerQueue {
    async fn receive(&self) -> Result<Option<Delivery>> {
        let mut lingered = false;
        loop {
            let closed = self.closed.load(Ordering::Acquire);
            let cursor = self.cursor.load(Ordering::Acquire);
            let batch = match self.outbox().next(cursor, BATCH) {
                Next::Batch(batch) if batch.len() < BATCH && !lingered && !closed => {
                    lingered = true;
                    tokio::time::sleep(LINGER).await;
                    continue;
                }
                Next::Batch(batch) => batch,
                Next::InTheLedger => self.read(cursor).await?,
                Next::Nothing => Vec::new(),
            };
            if let Some(&(last, _)) = batch.last() {
                let reservations = batch.into_iter().map(|(_, reservation)| reservation).collect();
                return Ok(Some(Delivery { reservations, tag: last.cast_unsigned() }));
            }
            if closed {
                return Ok(None);
            }
            self.outbox().wait().await;
        }
    }

    async fn acknowledge(&self, delivery: &Delivery) -> Result<()> {
        let last = delivery.tag.cast_signed();
        self.cursor.fetch_max(last, Ordering::AcqRel);
        self.outbox().done(last);
        Ok(())
    }

    async fn reject(&self, reservation: &Reservation, reason: &str) -> Result<()> {
        self.engine.refuse(reservation, reason).await
    }
}

fn read(connection: &Connection, cursor: i64) -> Result<Vec<Numbered>> {
    let read = || {
        let mut statement = connection.prepare_cached(NEXT)?;
        statement.query_map((cursor, BATCH), reservation)?.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().map_err(|error| unreadable(&error))
}

fn reservation(row: &Row<'_>) -> rusqlite::Result<Numbered> {
    let reservation = Reservation {
        order_id: parsed(row, 1)?,
        sale_id: parsed(row, 2)?,
        epoch: Epoch(row.get(3)?),
        place: Place(row.get(7)?),
        unit: Unit(row.get(4)?),
        user_id: parsed(row, 5)?,
        reserved_at: parsed(row, 6)?,
    };
    Ok((row.get(0)?, reservation))
}
