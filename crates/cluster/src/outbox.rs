//! The outbox relay: what Redis reserved on its way to the order queue.
//!
//! The replica that reserved publishes at once. What nobody seems to have published, or what the queue has lost, is found in
//! the outbox and published again: to deliver something twice is harmless (ADR 0011).

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use flashsale_core::{
    Result,
    clock::Timestamp,
    ids::{OrderId, SaleId},
};
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::sleep;
use tracing::{debug, info};

use crate::{
    broker::{Broker, Published},
    message::Message,
    options::Ack,
    recovery::Alarm,
    stock::{Stock, Trouble},
};

/// How often outboxes are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// An entry that is older than this is looked at.
const OLD: Duration = Duration::from_secs(5);
/// Entries of a sale that are published again in one go.
const SWEEP_MAX: usize = 500;
/// Sales whose outbox is looked at in one go; the next go takes the next ones.
const SALES_MAX: usize = 500;

/// How many orders are remembered as queued, at least.
const QUEUED_MAX: usize = 65_536;

/// What became of reservations that were handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handed {
    /// They are as durable as they must be before SUCCESS is said.
    Safe,
    /// Redis was rebuilt since they were decided. Whether they still stand, the next attempt tells.
    Superseded,
}

/// The relay.
pub(crate) struct Outbox {
    stock: Stock,
    broker: Arc<Broker>,
    alarm: Arc<Alarm>,
    ack: Ack,
    provisional: Mutex<Provisional>,
    queued: Mutex<Queued>,
    pub(crate) published: AtomicU64,
    pub(crate) swept: AtomicU64,
}

impl Outbox {
    pub(crate) fn new(stock: Stock, broker: Arc<Broker>, alarm: Arc<Alarm>, ack: Ack) -> Self {
        let (published, swept) = Default::default();
        let (provisional, queued) = Default::default();
        Self { stock, broker, alarm, ack, provisional, queued, published, swept }
    }

    /// Whether SUCCESS rests on Redis alone right now, although it should rest on the broker.
    pub(crate) fn is_provisional(&self) -> bool {
        self.ack == Ack::Queued && (self.provisional.lock().count > 0 || !self.broker.is_up())
    }

    /// Publishes what a call reserved. Returns when SUCCESS may be said of it.
    pub(crate) async fn hand_over(self: &Arc<Self>, message: &Message) -> Handed {
        if self.ack == Ack::Reserved {
            let (outbox, message) = (self.clone(), message.clone());
            tokio::spawn(async move { outbox.publish(&message).await });
            return Handed::Safe;
        }
        match self.publish(message).await {
            Published::Confirmed => {
                self.queued.lock().add(message);
                Handed::Safe
            }
            // Its generation is over. Where somebody only deleted the exchange, the next attempt is told of the order.
            Published::Gone => {
                self.alarm.topology();
                Handed::Superseded
            }
            Published::Unroutable => {
                self.alarm.topology();
                self.fall_back(message).await
            }
            Published::Unknown => self.fall_back(message).await,
        }
    }

    /// Whether an order may be spoken of: whoever reserved it may have died before the broker had it.
    pub(crate) fn is_safe(&self, order: OrderId) -> bool {
        self.ack == Ack::Reserved || self.queued.lock().has(order)
    }

    async fn publish(&self, message: &Message) -> Published {
        self.published.fetch_add(1, Ordering::Relaxed);
        self.broker.publish(message.generation, &message.written()).await
    }

    /// The broker has not confirmed. If Redis still stands by the reservation, it is safe by Redis' durability, and said
    /// to be so; the entry in the outbox brings it to the queue later.
    async fn fall_back(&self, message: &Message) -> Handed {
        let Some(first) = message.reservations.first() else { return Handed::Safe };
        // Before anybody is told, so that what is told says it.
        self.provisional.lock().add(message.reserved_at);
        match self.stock.purchase(&message.sale_id, first.user_id.as_str()).await {
            Ok((generation, Some(held)))
                if generation == message.generation && held.order_id == first.order_id =>
            {
                Handed::Safe
            }
            other => {
                debug!(?other, "a reservation that the broker did not confirm is not there any more");
                Handed::Superseded
            }
        }
    }

    /// Looks through the outboxes as long as the process lives.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut from = 0;
        loop {
            sleep(SWEEP).await;
            match self.sweep(&mut from).await {
                Ok(()) => {}
                Err(error) => debug!(%error, "the outboxes cannot be looked through right now"),
            }
        }
    }

    /// One look. After an absence of the broker, everything is old enough that came since.
    async fn sweep(&self, from: &mut usize) -> Result<()> {
        if !self.broker.is_up() {
            return Ok(());
        }
        let (generation, sales) = self.stock.list().await.map_err(|trouble| self.alarm.raise(trouble))?;
        let provisional = *self.provisional.lock();
        let catching_up = provisional.count > 0;
        // What waits in the queue explains what is old.
        match self.broker.depth().await? {
            Some((0, _)) => {}
            Some(_) if catching_up => {}
            Some(_) => return Ok(()),
            None => {
                self.alarm.topology();
                return Ok(());
            }
        }
        // All there is, not all until now: Redis' clock may have been set back since.
        let before = if catching_up { None } else { Some(self.stock.now().await?.before(OLD)) };
        if sales.is_empty() {
            return Ok(());
        }
        let turn: Vec<_> = if catching_up {
            sales.iter().collect()
        } else {
            let start = *from % sales.len();
            *from = start + SALES_MAX;
            sales.iter().cycle().skip(start).take(SALES_MAX.min(sales.len())).collect()
        };
        let mut complete = true;
        for (sale, _) in turn {
            complete &= self.sweep_sale(sale, generation, provisional.since, before).await?;
        }
        if catching_up && complete && self.provisional.lock().settle(provisional) {
            info!("what was reserved while RabbitMQ was away is in the order queue now");
        }
        Ok(())
    }

    /// Publishes a sale's old entries again; whether all of them were confirmed.
    async fn sweep_sale(
        &self,
        sale: &SaleId,
        generation: u32,
        since: Option<Timestamp>,
        before: Option<Timestamp>,
    ) -> Result<bool> {
        // Entries are named by their moment.
        let mut after = since.map(|since| (since.as_millis() - 1).to_string());
        loop {
            let entries = match self.stock.outbox(sale, after.as_deref(), before, SWEEP_MAX).await {
                Ok(entries) => entries,
                Err(Trouble::Away(why)) => return Err(Trouble::Away(why).into()),
                Err(_) => return Ok(true),
            };
            let Some(last) = entries.last else { return Ok(true) };
            after = Some(last);
            let entries = entries.rows;
            info!(%sale, entries = entries.len(), "reservations are published again whose orders are not stored yet");
            let messages = entries.into_iter().filter_map(|entry| Message::of(sale, entry));
            // The entries have survived, and with them the reservations: they are of this generation.
            let published = messages.map(|message| async move {
                self.swept.fetch_add(1, Ordering::Relaxed);
                self.broker.publish(generation, &message.written()).await
            });
            let published = join_all(published).await;
            if published.contains(&Published::Gone) || published.contains(&Published::Unroutable) {
                self.alarm.topology();
                return Ok(false);
            }
            if published.contains(&Published::Unknown) {
                return Ok(false);
            }
        }
    }
}

/// Reservations of which SUCCESS was said although the broker has not confirmed them.
#[derive(Clone, Copy, Debug, Default)]
struct Provisional {
    count: u64,
    /// The moment of the first.
    since: Option<Timestamp>,
}

impl Provisional {
    fn add(&mut self, at: Timestamp) {
        self.count += 1;
        self.since = Some(self.since.map_or(at, |since| since.min(at)));
    }

    /// All that there were then are in the queue; whether there were no others since.
    fn settle(&mut self, then: Self) -> bool {
        let settled = self.count == then.count;
        if settled {
            *self = Self::default();
        }
        settled
    }
}

/// Orders that the broker is known to have, as many as there is room for: the newest.
#[derive(Debug, Default)]
struct Queued {
    newer: HashSet<OrderId>,
    older: HashSet<OrderId>,
}

impl Queued {
    fn add(&mut self, message: &Message) {
        if self.newer.len() >= QUEUED_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.extend(message.reservations.iter().map(|reserved| reserved.order_id));
    }

    fn has(&self, order: OrderId) -> bool {
        self.newer.contains(&order) || self.older.contains(&order)
    }
}

/// The reservations of messages by sale, as entries of the outbox that are done.
pub(crate) fn entries_by_sale<'a>(
    messages: impl Iterator<Item = &'a Message>,
) -> HashMap<&'a SaleId, Vec<&'a str>> {
    let mut entries: HashMap<&SaleId, Vec<&str>> = HashMap::new();
    for message in messages {
        // What was told again has no entry of its own.
        if !message.entry.is_empty() {
            entries.entry(&message.sale_id).or_default().push(&message.entry);
        }
    }
    entries
}
