//! The order queue as a worker sees it: batches of messages, acknowledged together.
//!
//! While somebody rebuilds Redis, workers stay off the queue: they close their channel, which gives back what they
//! hold, so that nothing is in anybody's hands when the queue counts as drained (ADR 0009).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use flashsale_core::{
    Error, Result,
    order::Reservation,
    ports::{Delivery, OrderQueue},
};
use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use sqlx::PgPool;
use tokio::{
    sync::{Mutex, Notify},
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

use crate::{
    broker::{self, Broker, away, failed, short},
    lock::{Lock, What},
    message::Message,
    outbox::entries_by_sale,
    stock::Stock,
    store::Store,
};

/// Messages that are delivered ahead of their acknowledgement.
const PREFETCH: u16 = 512;
/// The most reservations in a delivery; a message is not divided.
const BATCH: usize = 1_000;
/// How long a delivery that is not full waits for more.
const LINGER: Duration = Duration::from_millis(20);
/// How often an idle worker looks around: is somebody recovering, is the queue closed.
const GLANCE: Duration = Duration::from_millis(500);

/// A consumer of the order queue.
pub(crate) struct Intake {
    channel: Channel,
    consumer: Consumer,
}

/// Messages that were taken together.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Message>,
    pub(crate) reservations: Vec<Reservation>,
    /// Of the last message; acknowledging it acknowledges all before it.
    last: u64,
}

impl Intake {
    pub(crate) async fn open(broker: &Broker) -> Result<Self> {
        let channel = broker.channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(failed)?;
        let options = BasicConsumeOptions::default();
        let consume =
            channel.basic_consume(short(&broker.names.queue), "".into(), options, FieldTable::default());
        let consumer = consume.await.map_err(|error| match broker::is_not_found(&error) {
            true => Error::unavailable("the order queue is not there yet"),
            false => failed(error),
        })?;
        Ok(Self { channel, consumer })
    }

    pub(crate) fn alive(&self) -> bool {
        self.channel.status().connected()
    }

    /// What there is: the first message within `patience`, and more as long as it comes. What is no message goes to the
    /// dead letters.
    pub(crate) async fn next(&mut self, broker: &Broker, patience: Duration) -> Result<Batch> {
        let mut batch = Batch::default();
        let began = Instant::now();
        let mut wait = patience;
        while batch.reservations.len() < BATCH {
            let delivery = match timeout(wait, self.consumer.next()).await {
                Err(_) => break,
                Ok(None) => return Err(away()),
                Ok(Some(delivery)) => delivery.map_err(failed)?,
            };
            match Message::read(&delivery.data) {
                Ok(message) => {
                    batch.reservations.extend(message.reservations());
                    batch.messages.push(message);
                }
                Err(reason) => {
                    error!(reason, "a message of the order queue is put to the dead letters");
                    broker.bury(&delivery.data, &reason).await?;
                }
            }
            batch.last = delivery.delivery_tag;
            let first = if batch.messages.len() == 1 { Instant::now() } else { began };
            wait = LINGER.saturating_sub(first.elapsed().min(LINGER));
        }
        if batch.messages.is_empty() && batch.last > 0 {
            self.acknowledge(&batch).await?;
        }
        Ok(batch)
    }

    /// Asks the broker something of no consequence: what it sent before the answer has arrived with it.
    pub(crate) async fn settle(&self) -> Result<()> {
        self.channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(failed)
    }

    pub(crate) async fn acknowledge(&self, batch: &Batch) -> Result<()> {
        let all = BasicAckOptions { multiple: true };
        self.channel.basic_ack(batch.last, all).await.map_err(failed)
    }

    pub(crate) async fn close(self) {
        broker::close(self.channel).await;
    }
}

/// What a worker has and holds.
#[derive(Default)]
struct Bench {
    intake: Option<Intake>,
    /// Delivered, and not acknowledged yet.
    in_hand: Option<(u64, Batch)>,
    next_tag: u64,
    looked: Option<Instant>,
}

/// The queue.
pub(crate) struct Queue {
    broker: Arc<Broker>,
    stock: Stock,
    store: Arc<Store>,
    pool: PgPool,
    bench: Mutex<Bench>,
    closed: AtomicBool,
    closing: Notify,
}

impl Queue {
    pub(crate) fn new(broker: Arc<Broker>, stock: Stock, store: Arc<Store>, pool: PgPool) -> Self {
        let (bench, closed, closing) = Default::default();
        Self { broker, stock, store, pool, bench, closed, closing }
    }

    /// No further deliveries.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.closing.notify_one();
    }

    /// Gives back what is in hand, and says goodbye.
    async fn step_aside(&self, bench: &mut Bench) {
        bench.in_hand = None;
        if let Some(intake) = bench.intake.take() {
            intake.close().await;
        }
    }

    /// Whether somebody rebuilds Redis, asked now and then.
    async fn is_recovering(&self, bench: &mut Bench) -> Result<bool> {
        if bench.looked.is_some_and(|looked| looked.elapsed() < GLANCE) {
            return Ok(false);
        }
        let held = Lock::is_held(&self.pool, What::Recovery).await?;
        bench.looked = Some(Instant::now()).filter(|_| !held);
        Ok(held)
    }
}

#[async_trait]
impl OrderQueue for Queue {
    async fn receive(&self) -> Result<Option<Delivery>> {
        let mut bench = self.bench.lock().await;
        loop {
            if self.closed.load(Ordering::Acquire) {
                self.step_aside(&mut bench).await;
                return Ok(None);
            }
            let recovering = match self.is_recovering(&mut bench).await {
                Ok(recovering) => recovering,
                Err(error) => {
                    // Whoever recovers waits for what is in hand here, and without PostgreSQL it cannot be stored.
                    self.step_aside(&mut bench).await;
                    return Err(error);
                }
            };
            if recovering {
                if bench.intake.is_some() {
                    info!("the stock is being rebuilt; this worker stays off the queue");
                }
                self.step_aside(&mut bench).await;
                sleep(GLANCE).await;
                continue;
            }
            if bench.intake.as_ref().is_some_and(|intake| !intake.alive()) {
                // What it held is delivered again.
                (bench.intake, bench.in_hand) = (None, None);
            }
            if let Some((tag, batch)) = &bench.in_hand {
                return Ok(Some(Delivery { reservations: batch.reservations.clone(), tag: *tag }));
            }
            if bench.intake.is_none() {
                bench.intake = Some(Intake::open(&self.broker).await?);
            }
            let Some(intake) = &mut bench.intake else { continue };
            let next = tokio::select! {
                batch = intake.next(&self.broker, GLANCE) => batch,
                () = self.closing.notified() => continue,
            };
            match next {
                Ok(batch) if batch.reservations.is_empty() => {}
                Ok(batch) => {
                    bench.next_tag += 1;
                    bench.in_hand = Some((bench.next_tag, batch));
                }
                Err(error) => {
                    // What was read of a batch that failed is given back with the channel.
                    self.step_aside(&mut bench).await;
                    return Err(error);
                }
            }
        }
    }

    async fn acknowledge(&self, delivery: &Delivery) -> Result<()> {
        let mut bench = self.bench.lock().await;
        let Some((_, batch)) = bench.in_hand.take_if(|(tag, _)| *tag == delivery.tag) else { return Ok(()) };
        for (sale, entries) in entries_by_sale(batch.messages.iter()) {
            // An entry that stays is published again, and creates nothing.
            if let Err(trouble) = self.stock.forget(sale, &entries).await {
                debug!(%sale, ?trouble, "entries stay in the outbox");
            }
        }
        if let Some(intake) = &bench.intake
            && let Err(error) = intake.acknowledge(&batch).await
        {
            warn!(%error, "stored orders are not acknowledged; they come again, and create nothing");
            bench.intake = None;
        }
        Ok(())
    }

    async fn reject(&self, reservation: &Reservation, reason: &str) -> Result<()> {
        self.store.put_aside(reservation, reason).await
    }
}
