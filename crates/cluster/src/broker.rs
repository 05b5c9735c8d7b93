//! RabbitMQ: a connection that comes back, the names of what is on it, and publishing with confirmation.
//!
//! Reservations are published `mandatory` to the exchange of their generation. Only the holder of the recovery lock makes
//! and deletes these, so that a replica which slept through a recovery finds none, instead of a confirmation (ADR 0009).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use flashsale_core::Error;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, LongString, ShortString},
    uri::AMQPUri,
};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use crate::options::Secret;

/// How long a confirmation may take before the broker counts as away.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a connection may take.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(6);
/// How long nothing is tried after that.
const SULK: Duration = Duration::from_millis(500);
/// How long other systems are told nothing after one of their queues did not answer.
const HUSH: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often a connection is looked at.
const GLANCE: Duration = Duration::from_millis(100);
/// In seconds. A worker that sleeps is given up after two of them, and what it held is delivered again.
const HEARTBEAT: u16 = 10;
const PERSISTENT: u8 = 2;

/// The names of what is on the broker.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Where reservations are published; the generation follows.
    purchases: String,
    /// The order queue.
    pub(crate) queue: String,
    /// What was refused for good.
    pub(crate) dead: String,
    /// Where the dead letters of the queue go first.
    pub(crate) dead_exchange: String,
    /// Where other systems hear of orders.
    pub(crate) events: String,
}

impl Names {
    pub(crate) fn new(namespace: &str) -> Self {
        let name = |what: &str| format!("{namespace}{what}");
        Self {
            purchases: name("flashsale.purchases."),
            queue: name("purchase_queue"),
            dead: name("purchase_dlq"),
            dead_exchange: name("flashsale.dead"),
            events: name("flashsale.events"),
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Published {
    /// The broker has it, on disk.
    Confirmed,
    /// There is no such exchange: its generation is over, or somebody deleted it.
    Gone,
    /// There is no queue for it: somebody deleted it.
    Unroutable,
    /// It is not known whether the broker has it.
    Unknown,
}

/// A connection that comes back by itself.
pub(crate) struct Broker {
    pub(crate) names: Names,
    session: watch::Receiver<Option<Arc<Session>>>,
    /// Until when nothing is tried.
    sulking_until: Mutex<Option<Instant>>,
    /// Until when other systems are told nothing.
    hushed_until: Mutex<Option<Instant>>,
    supervisor: JoinHandle<()>,
}

/// One connection, with a channel for publishing.
pub(crate) struct Session {
    connection: Connection,
    publisher: Channel,
    /// For other systems. Apart, since what becomes of their queues must not hold up ours.
    events: Channel,
    /// It did not confirm in time. Whatever is wrong with it, the next one starts without its backlog.
    mute: AtomicBool,
}

impl Session {
    fn alive(&self) -> bool {
        !self.mute.load(Ordering::Acquire)
            && self.connection.status().connected()
            && self.publisher.status().connected()
            && self.events.status().connected()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Broker {
    /// Starts to connect, and goes on for ever.
    pub(crate) fn start(url: &Secret, namespace: &str, role: &'static str) -> Result<Self, String> {
        let uri = address(url)?;
        let names = Names::new(namespace);
        let (sender, session) = watch::channel(None);
        let supervisor = tokio::spawn(supervise(uri, names.clone(), role, sender));
        let (sulking_until, hushed_until) = Default::default();
        Ok(Self { names, session, sulking_until, hushed_until, supervisor })
    }

    /// Whether there is a broker that lets us in; why not, where there is none.
    pub(crate) async fn probe(url: &Secret) -> Result<(), String> {
        let properties = ConnectionProperties::default().with_connection_name("flashsale doctor".into());
        let attempt = async {
            let connection = Connection::connect_uri(address(url)?, properties).await.map_err(in_words)?;
            let channel = connection.create_channel().await.map_err(in_words)?;
            close(channel).await;
            let _ = timeout(PATIENCE, connection.close(200, "goodbye".into())).await;
            Ok(())
        };
        timeout(CONNECTION_PATIENCE, attempt).await.unwrap_or_else(|_| Err("it does not answer".to_owned()))
    }

    /// Whether there is a connection, and it answered lately.
    pub(crate) fn is_up(&self) -> bool {
        self.current().is_some() && !self.sulks()
    }

    fn sulks(&self) -> bool {
        self.sulking_until.lock().is_some_and(|until| Instant::now() < until)
    }

    fn current(&self) -> Option<Arc<Session>> {
        self.session.borrow().as_ref().filter(|session| session.alive()).cloned()
    }

    /// A channel of one's own.
    pub(crate) async fn channel(&self) -> Result<Channel, Error> {
        // One that is about to be connected is worth a moment.
        let mut watched = self.session.clone();
        let alive = |session: &Option<Arc<Session>>| session.as_ref().is_some_and(|session| session.alive());
        let session = timeout(PATIENCE, watched.wait_for(alive)).await.map_err(|_| away())?;
        let session = session.map_err(|_| away())?.clone().ok_or_else(away)?;
        timeout(PATIENCE, session.connection.create_channel()).await.map_err(|_| away())?.map_err(failed)
    }

    /// Publishes reservations of a generation, and waits for the confirmation.
    pub(crate) async fn publish(&self, generation: u32, payload: &[u8]) -> Published {
        let properties = BasicProperties::default().with_type("flashsale.reservations.v1".into());
        self.send(&self.exchange(generation), "", payload, properties).await
    }

    /// Where the reservations of a generation are published.
    fn exchange(&self, generation: u32) -> String {
        format!("{}{generation}", self.names.purchases)
    }

    /// Puts a message aside, with the reason.
    pub(crate) async fn bury(&self, payload: &[u8], reason: &str) -> Result<(), Error> {
        let mut headers = FieldTable::default();
        let reason: String = reason.chars().take(1_000).collect();
        headers.insert("x-reason".into(), AMQPValue::LongString(LongString::from(reason)));
        let properties = BasicProperties::default().with_headers(headers);
        match self.send("", &self.names.dead, payload, properties).await {
            Published::Confirmed => Ok(()),
            Published::Gone | Published::Unroutable => {
                Err(Error::unavailable("the queue of dead letters is not there"))
            }
            Published::Unknown => Err(away()),
        }
    }

    /// Tells other systems. Whether anybody listens does not matter, nor whether their queues are in good health: one that
    /// is full refuses, and one that does not answer is waited for once in a while.
    ///
    /// Without a connection nothing is told. Whoever told it cannot acknowledge then, either, and tells it again.
    pub(crate) async fn tell(&self, topic: &str, payload: &[u8]) {
        let hushed = self.hushed_until.lock().is_some_and(|until| Instant::now() < until);
        let Some(session) = self.current().filter(|_| !hushed) else { return };
        let (exchange, options) = (short(&self.names.events), BasicPublishOptions::default());
        let publish = async {
            let properties = as_json(BasicProperties::default());
            let sent = session.events.basic_publish(exchange, short(topic), options, payload, properties);
            sent.await?.await
        };
        match timeout(PATIENCE, publish).await {
            Ok(Ok(Confirmation::Ack(_) | Confirmation::NotRequested)) => {}
            Ok(Ok(Confirmation::Nack(_))) => debug!(topic, "somebody's queue refuses an event"),
            Ok(Err(error)) => debug!(%error, topic, "an event was not told"),
            Err(_) => {
                warn!(topic, "a queue of somebody else does not take events; they are told again in a while");
                *self.hushed_until.lock() = Some(Instant::now() + HUSH);
            }
        }
    }

    async fn send(
        &self,
        exchange: &str,
        key: &str,
        payload: &[u8],
        properties: BasicProperties,
    ) -> Published {
        if self.sulks() {
            return Published::Unknown;
        }
        let Some(session) = self.current() else { return Published::Unknown };
        let properties = as_json(properties);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publish = async {
            let sent =
                session.publisher.basic_publish(short(exchange), short(key), options, payload, properties);
            sent.await?.await
        };
        match timeout(PATIENCE, publish).await {
            Ok(Ok(Confirmation::Ack(None))) => Published::Confirmed,
            Ok(Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)))) => Published::Unroutable,
            Ok(Ok(Confirmation::Nack(None) | Confirmation::NotRequested)) => Published::Unknown,
            // The channel is closed with that, and the next one is on its way.
            Ok(Err(error)) if is_not_found(&error) => Published::Gone,
            Ok(Err(error)) => {
                debug!(%error, "a message was not confirmed");
                Published::Unknown
            }
            Err(_) => {
                *self.sulking_until.lock() = Some(Instant::now() + SULK);
                if !session.mute.swap(true, Ordering::AcqRel) {
                    warn!("RabbitMQ does not confirm; it counts as away, and is connected anew");
                }
                Published::Unknown
            }
        }
    }

    /// Makes queues and exchanges, and binds the queue to that of a generation. For the holder of the recovery lock.
    pub(crate) async fn declare(&self, generation: u32) -> Result<(), Error> {
        let channel = self.channel().await?;
        self.make(&channel).await.map_err(failed)?;
        let exchange = self.exchange(generation);
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let made =
            channel.exchange_declare(short(&exchange), ExchangeKind::Direct, durable, FieldTable::default());
        made.await.map_err(failed)?;
        let (queue, bind) = (short(&self.names.queue), QueueBindOptions::default());
        let bound = channel.queue_bind(queue, short(&exchange), "".into(), bind, FieldTable::default());
        bound.await.map_err(failed)?;
        close(channel).await;
        Ok(())
    }

    async fn make(&self, channel: &Channel) -> lapin::Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let none = FieldTable::default;
        for (name, kind) in
            [(&self.names.dead_exchange, ExchangeKind::Fanout), (&self.names.events, ExchangeKind::Topic)]
        {
            channel.exchange_declare(short(name), kind, durable, none()).await?;
        }
        let mut quorum = FieldTable::default();
        quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        channel
            .queue_declare(short(&self.names.dead), QueueDeclareOptions::durable(), quorum.clone())
            .await?;
        let bind = QueueBindOptions::default();
        channel
            .queue_bind(short(&self.names.dead), short(&self.names.dead_exchange), "".into(), bind, none())
            .await?;
        quorum.insert(
            "x-dead-letter-exchange".into(),
            AMQPValue::LongString(self.names.dead_exchange.as_str().into()),
        );
        channel.queue_declare(short(&self.names.queue), QueueDeclareOptions::durable(), quorum).await?;
        Ok(())
    }

    /// Takes a generation's exchange away: what is published for it is refused. For the holder of the recovery lock.
    pub(crate) async fn fence(&self, generation: u32) -> Result<(), Error> {
        let channel = self.channel().await?;
        self.make(&channel).await.map_err(failed)?;
        let gone =
            channel.exchange_delete(short(&self.exchange(generation)), ExchangeDeleteOptions::default());
        gone.await.map_err(failed)?;
        close(channel).await;
        Ok(())
    }

    /// Messages that wait in the order queue, and its consumers; `None` where there is no such queue.
    pub(crate) async fn depth(&self) -> Result<Option<(u32, u32)>, Error> {
        let channel = self.channel().await?;
        let passive = QueueDeclareOptions::durable().passive();
        let asked = channel.queue_declare(short(&self.names.queue), passive, FieldTable::default());
        match timeout(PATIENCE, asked).await.map_err(|_| away())? {
            Ok(queue) => {
                let counts = (queue.message_count(), queue.consumer_count());
                close(channel).await;
                Ok(Some(counts))
            }
            // A queue that is not there closes the channel, and only that.
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(&self) {
        self.supervisor.abort();
        if let Some(session) = self.current() {
            let _ = timeout(PATIENCE, session.connection.close(200, "goodbye".into())).await;
        }
    }
}

/// The address, with what it leaves open.
fn address(url: &Secret) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri = url.expose().parse().map_err(|error: String| error)?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    uri.query.connection_timeout.get_or_insert(5_000);
    Ok(uri)
}

#[expect(clippy::needless_pass_by_value, reason = "it is for `map_err`")]
fn in_words(error: lapin::Error) -> String {
    error.to_string()
}

pub(crate) async fn close(channel: Channel) {
    let _ = timeout(PATIENCE, channel.close(200, "done".into())).await;
}

pub(crate) fn is_not_found(error: &lapin::Error) -> bool {
    use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(said)
        if *said.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}

/// Kept on disk, and what it is.
fn as_json(properties: BasicProperties) -> BasicProperties {
    properties
        .with_delivery_mode(PERSISTENT)
        .with_content_type("application/json".into())
        .with_app_id("flashsale".into())
}

pub(crate) fn short(text: &str) -> ShortString {
    text.into()
}

pub(crate) fn away() -> Error {
    Error::Unavailable { reason: "RabbitMQ is away".to_owned(), retry_after: Duration::from_secs(2) }
}

pub(crate) fn failed(error: impl std::fmt::Display) -> Error {
    debug!(%error, "RabbitMQ cannot do it");
    away()
}

/// Connects, watches, and connects again, with growing pauses.
async fn supervise(
    uri: AMQPUri,
    names: Names,
    role: &'static str,
    session: watch::Sender<Option<Arc<Session>>>,
) {
    let mut pause = FIRST_PAUSE;
    let mut told = false;
    loop {
        match timeout(CONNECTION_PATIENCE, connect(uri.clone(), &names, role)).await {
            Ok(Ok(found)) => {
                info!(role, "connected to RabbitMQ");
                (pause, told) = (FIRST_PAUSE, false);
                let found = Arc::new(found);
                session.send_replace(Some(found.clone()));
                while found.alive() {
                    sleep(GLANCE).await;
                }
                session.send_replace(None);
                warn!(role, "the connection to RabbitMQ is lost");
                if found.mute.load(Ordering::Acquire) {
                    let _ = timeout(PATIENCE, found.connection.close(200, "no confirmations".into())).await;
                }
            }
            Ok(Err(error)) if !told => {
                told = true;
                warn!(role, %error, "cannot connect to RabbitMQ yet");
            }
            Err(_) if !told => {
                told = true;
                warn!(role, "RabbitMQ does not answer yet");
            }
            _ => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn connect(uri: AMQPUri, names: &Names, role: &'static str) -> lapin::Result<Session> {
    let properties = ConnectionProperties::default().with_connection_name(format!("flashsale {role}").into());
    let connection = Connection::connect_uri(uri, properties).await?;
    let publisher = connection.create_channel().await?;
    publisher.confirm_select(ConfirmSelectOptions::default()).await?;
    // Whoever comes first makes the exchange that others listen on; the rest of it is made under the recovery lock.
    let events = connection.create_channel().await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    events
        .exchange_declare(short(&names.events), ExchangeKind::Topic, durable, FieldTable::default())
        .await?;
    events.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(Session { connection, publisher, events, mute: AtomicBool::new(false) })
}
