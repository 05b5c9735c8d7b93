//! The order queue of the embedded profile: the ledger's reservations that are not confirmed.
//!
//! Reservation and outbox are one row, so there is no second copy that could differ. The newest part of it is still
//! in memory and need not be read. After a start, or when more came than memory keeps, the rows are gone through
//! once, by their keys. Nothing of this is kept: delivering something twice is harmless.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
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
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::{
    inventory::Engine,
    ledger::{Outbox, moment, order_id, parsed, unreadable},
};

/// The most reservations in a delivery.
const BATCH: usize = 1_024;
/// How long a delivery that is not full waits for more: confirming many at once costs little more than one.
const LINGER: Duration = Duration::from_millis(20);

const NEXT: &str = "SELECT key, live_orders.id, sales.id, live_orders.epoch, key & 0xFFFFFFFFFF, user_id, reserved_at, place \
     FROM live_orders JOIN sales ON sales.no = key >> 40 WHERE key > ?1 AND confirmed = 0 ORDER BY key LIMIT ?2";
// Units are mostly sold upwards, so the lowest one that waits has waited longest.
const OLDEST: &str = "SELECT reserved_at FROM sales CROSS JOIN live_orders \
     ON key > (no << 40) AND key < ((no + 1) << 40) WHERE sales.id = ?1 AND confirmed = 0 ORDER BY key LIMIT 1";

/// The queue.
pub(crate) struct LedgerQueue {
    engine: Arc<Engine>,
    hand: Mutex<Hand>,
    closed: AtomicBool,
}

/// What is delivered, and where the next delivery comes from.
#[derive(Default)]
struct Hand {
    /// The rows are being gone through; they are worked off up to this key.
    through: Option<i64>,
    /// What is not acknowledged yet.
    delivered: Option<Delivered>,
    next_tag: u64,
}

/// A delivery, as its acknowledgement finds it.
struct Delivered {
    tag: u64,
    until: Until,
}

/// How far an acknowledgement goes.
#[derive(Clone, Copy)]
enum Until {
    /// What memory keeps, before this number.
    Number(u64),
    /// The rows up to this key; and were they the last ones.
    Key { key: i64, last: bool },
}

impl LedgerQueue {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, hand: Mutex::default(), closed: AtomicBool::new(false) }
    }

    /// Ends the queue once it is drained.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.outbox().wake();
    }

    /// Since when the oldest reservation of a sale waits.
    pub(crate) async fn waiting_since(&self, sale: &SaleId) -> Result<Option<Timestamp>> {
        if self.hand.lock().through.is_none() && !self.outbox().is_behind() {
            return Ok(self.outbox().oldest_of(sale));
        }
        let sale = sale.clone();
        let read = move |connection: &Connection| {
            let row = connection
                .prepare_cached(OLDEST)
                .and_then(|mut oldest| oldest.query_row([sale.as_str()], |row| moment(row, 0)).optional());
            row.map_err(|error| unreadable(&error))
        };
        self.engine.ledger().readers.run(read).await
    }

    fn outbox(&self) -> &Outbox {
        &self.engine.ledger().outbox
    }

    /// Where the rows are to be gone through from, if they are.
    fn through(&self) -> Option<i64> {
        let mut hand = self.hand.lock();
        if hand.through.is_none() && self.outbox().catch_up() {
            hand.through = Some(0);
        }
        hand.through
    }

    fn deliver(&self, reservations: Vec<Reservation>, until: Until) -> Delivery {
        let mut hand = self.hand.lock();
        hand.next_tag += 1;
        let tag = hand.next_tag;
        hand.delivered = Some(Delivered { tag, until });
        Delivery { reservations, tag }
    }

    /// The next rows; `None` where there are no more, and memory has all there is.
    async fn read(&self, after: i64) -> Result<Option<Delivery>> {
        let rows = self.engine.ledger().readers.run(move |connection| read(connection, after)).await?;
        let Some(&(key, _)) = rows.last() else {
            self.hand.lock().through = None;
            return Ok(None);
        };
        let last = rows.len() < BATCH;
        let reservations = rows.into_iter().map(|(_, reservation)| reservation).collect();
        Ok(Some(self.deliver(reservations, Until::Key { key, last })))
    }
}

#[async_trait]
impl OrderQueue for LedgerQueue {
    async fn receive(&self) -> Result<Option<Delivery>> {
        let mut lingered = false;
        loop {
            let closed = self.closed.load(Ordering::Acquire);
            if let Some(after) = self.through() {
                match self.read(after).await? {
                    Some(delivery) => return Ok(Some(delivery)),
                    None => continue,
                }
            }
            let (end, batch) = self.outbox().next(BATCH);
            if batch.is_empty() {
                if closed {
                    return Ok(None);
                }
                self.outbox().wait().await;
            } else if batch.len() < BATCH && !lingered && !closed {
                lingered = true;
                tokio::time::sleep(LINGER).await;
            } else {
                return Ok(Some(self.deliver(batch, Until::Number(end))));
            }
        }
    }

    async fn acknowledge(&self, delivery: &Delivery) -> Result<()> {
        let mut hand = self.hand.lock();
        let Some(delivered) = hand.delivered.take_if(|delivered| delivered.tag == delivery.tag) else {
            return Ok(());
        };
        match delivered.until {
            Until::Number(end) => self.outbox().done(end),
            Until::Key { key, last } => hand.through = (!last).then_some(key),
        }
        Ok(())
    }

    async fn reject(&self, reservation: &Reservation, reason: &str) -> Result<()> {
        self.engine.refuse(reservation, reason).await
    }
}

fn read(connection: &Connection, after: i64) -> Result<Vec<(i64, Reservation)>> {
    let read = || {
        let mut statement = connection.prepare_cached(NEXT)?;
        statement.query_map((after, BATCH), reservation)?.collect::<rusqlite::Result<Vec<_>>>()
    };
    read().map_err(|error| unreadable(&error))
}

fn reservation(row: &Row<'_>) -> rusqlite::Result<(i64, Reservation)> {
    let reservation = Reservation {
        order_id: order_id(row, 1)?,
        sale_id: parsed(row, 2)?,
        epoch: Epoch(row.get(3)?),
        unit: Unit(row.get(4)?),
        user_id: parsed(row, 5)?,
        reserved_at: moment(row, 6)?,
        place: Place(row.get(7)?),
    };
    Ok((row.get(0)?, reservation))
}
