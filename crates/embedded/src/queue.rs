//! The order queue of the embedded profile: a cursor over the ledger.
//!
//! Reservation and outbox are one row, so there is no second copy that could differ: what is `RESERVED` and
//! lies beyond the cursor is the queue. The cursor is not kept: after a start it stands before the oldest
//! reservation that is not confirmed, and delivering something twice is harmless.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use async_trait::async_trait;
use flashsale_core::{
    Result,
    ids::{Epoch, Unit},
    order::Reservation,
    ports::{Delivery, OrderQueue},
};
use rusqlite::{Connection, Row};

use crate::{
    inventory::Engine,
    ledger::{parsed, unreadable},
};

/// The most reservations in a delivery.
const BATCH: u32 = 1_024;

const NEXT: &str = "SELECT seq, id, sale_id, epoch, unit, user_id, reserved_at FROM orders \
     WHERE seq > ?1 AND status = 'RESERVED' ORDER BY seq LIMIT ?2";

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
        self.engine.ledger().reserved.notify_one();
    }
}

#[async_trait]
impl OrderQueue for LedgerQueue {
    async fn receive(&self) -> Result<Option<Delivery>> {
        loop {
            let closed = self.closed.load(Ordering::Acquire);
            let cursor = self.cursor.load(Ordering::Acquire);
            let read = move |connection: &Connection| read(connection, cursor);
            let batch = self.engine.ledger().readers.run(read).await?;
            if let Some(&(last, _)) = batch.last() {
                let reservations = batch.into_iter().map(|(_, reservation)| reservation).collect();
                return Ok(Some(Delivery { reservations, tag: last.cast_unsigned() }));
            }
            if closed {
                return Ok(None);
            }
            // A permit is kept when nobody waits, so that no commit since the read is missed.
            self.engine.ledger().reserved.notified().await;
        }
    }

    async fn acknowledge(&self, delivery: &Delivery) -> Result<()> {
        self.cursor.fetch_max(delivery.tag.cast_signed(), Ordering::AcqRel);
        Ok(())
    }

    async fn reject(&self, reservation: &Reservation, reason: &str) -> Result<()> {
        self.engine.refuse(reservation, reason).await
    }
}

fn read(connection: &Connection, cursor: i64) -> Result<Vec<(i64, Reservation)>> {
    let read = || {
        let mut statement = connection.prepare_cached(NEXT)?;
        statement.query_map((cursor, BATCH), reservation)?.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().map_err(|error| unreadable(&error))
}

fn reservation(row: &Row<'_>) -> rusqlite::Result<(i64, Reservation)> {
    let reservation = Reservation {
        order_id: parsed(row, 1)?,
        sale_id: parsed(row, 2)?,
        epoch: Epoch(row.get(3)?),
        unit: Unit(row.get(4)?),
        user_id: parsed(row, 5)?,
        reserved_at: parsed(row, 6)?,
    };
    Ok((row.get(0)?, reservation))
}
