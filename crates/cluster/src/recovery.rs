//! Recovery: Redis is rebuilt from PostgreSQL when it has forgotten, and not before everything that was on its way
//! has arrived there. The argument is ADR 0009.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use flashsale_core::{
    Error, Result,
    audit::OPERATOR,
    clock::Timestamp,
    ids::{OrderId, SaleId, Unit},
    order::Reservation,
    ports::OrderStore,
    sale::Sale,
};
use futures_util::TryStreamExt;
use parking_lot::Mutex;
use sqlx::{Connection, PgConnection, PgPool, Row};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

use crate::{
    broker::{self, Broker},
    lock::{Lock, What},
    message::Message,
    queue::Intake,
    sales::{Event, sale_of},
    stock::{Holding, LEFT_CLOSED, Rows, Stock, Trouble, place},
    store::{self, LONGEST, Store, database, kind, unsigned, within},
};

/// How often Redis is looked at without an alarm.
const GLANCE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long somebody else's recovery is waited for at a time.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
/// How long an empty queue is listened to before it is counted.
const SILENCE: Duration = Duration::from_millis(100);

/// Calls for whoever recovers.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    wanted: Notify,
    reason: Mutex<Option<&'static str>>,
    topology: AtomicBool,
}

impl Alarm {
    /// Says what a trouble means to whoever asked, and calls for recovery where it needs that.
    pub(crate) fn raise(&self, trouble: Trouble) -> Error {
        match &trouble {
            Trouble::Forgotten(why) => self.call(why),
            Trouble::Missing => self.call("a sale is not in Redis"),
            Trouble::Closed | Trouble::Away(_) => {}
        }
        trouble.into()
    }

    fn call(&self, why: &'static str) {
        self.reason.lock().get_or_insert(why);
        self.wanted.notify_one();
    }

    /// The order queue is not there, or not bound.
    pub(crate) fn topology(&self) {
        self.topology.store(true, Ordering::Release);
        self.wanted.notify_one();
    }
}

/// Whoever recovers: one in each replica, one at a time in the installation.
pub(crate) struct Recovery {
    pub(crate) pool: PgPool,
    pub(crate) stock: Stock,
    pub(crate) broker: Arc<Broker>,
    /// Without a mark in Redis, which is being rebuilt.
    pub(crate) store: Store,
    pub(crate) alarm: Arc<Alarm>,
}

impl Recovery {
    /// Watches and recovers as long as the process lives.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut pause = FIRST_PAUSE;
        // Somebody may have died in the middle of a change; where all is well, this changes nothing.
        self.alarm.call("the start");
        loop {
            match self.attend().await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    let _ = timeout(GLANCE, self.alarm.wanted.notified()).await;
                }
                Err(error) => {
                    warn!(%error, "the stock cannot be rebuilt yet; nothing is sold until it is");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    async fn attend(&self) -> Result<()> {
        // Taken before, so that what is called meanwhile is heard.
        let called = self.alarm.reason.lock().take();
        let forgotten = called.is_some()
            || matches!(self.stock.list().await, Err(Trouble::Forgotten(_) | Trouble::Missing));
        if forgotten && let Err(error) = self.recover().await {
            self.alarm.call(called.unwrap_or("Redis has forgotten"));
            return Err(error);
        }
        if self.alarm.topology.load(Ordering::Acquire) {
            self.mend_topology().await?;
            self.alarm.topology.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Makes the queue again that somebody deleted. What it held is still in the outboxes.
    async fn mend_topology(&self) -> Result<()> {
        let mut lock = Lock::acquire(&self.pool, What::Changes, LOCK_PATIENCE).await?;
        let generation = generation(&mut lock.session).await?;
        lock.still_held().await?;
        self.broker.declare(generation).await?;
        if let Err(error) = lock.still_held().await {
            // Somebody may have recovered meanwhile, and its fence must stay.
            self.broker.fence(generation).await?;
            return Err(error);
        }
        warn!("the order queue was gone; it is there again, and what it held is published again");
        lock.release().await;
        Ok(())
    }

    /// Rebuilds Redis, unless somebody else just did.
    async fn recover(&self) -> Result<()> {
        let mut lock = Lock::acquire(&self.pool, What::Changes, LOCK_PATIENCE).await?;
        let sales = sales(&mut lock.session).await?;
        let old = generation(&mut lock.session).await?;
        let Some(why) = self.needed(old, &sales).await? else {
            lock.release().await;
            return Ok(());
        };
        let began = Instant::now();
        warn!(why, "rebuilding the stock in Redis; nothing is sold meanwhile");
        lock.also(What::Recovery).await?;
        self.stock.load_library().await.map_err(Trouble::from)?;
        let new = old + 1;
        self.stock.disarm(new).await?;
        // In this order: the number of a generation that is not fenced must not be forgotten.
        self.broker.fence(old).await?;
        let fenced = Instant::now();
        let raise = sqlx::query("UPDATE installation SET generation = $1").bind(store::signed(new));
        within(LONGEST, raise.execute(&mut lock.session)).await?;

        let settled = (old > 0).then_some(fenced);
        let mut arrived = self.drain_queue(&mut lock, settled).await?;
        arrived += self.drain_outboxes(&sales).await?;
        // From here on PostgreSQL takes nothing of before. What is being stored right now is waited for.
        let settle = sqlx::query("UPDATE installation SET settled = $1").bind(store::signed(new));
        within(LONGEST, settle.execute(&mut lock.session)).await?;
        self.broker.declare(new).await?;

        let mut orders = 0;
        for (no, sale) in &sales {
            orders += self.load(&mut lock.session, *no, sale, new).await?;
        }
        let listed: Vec<(SaleId, i32)> = sales.iter().map(|(no, sale)| (sale.id.clone(), *no)).collect();
        self.stock.index(new, &listed).await?;
        let took_ms = began.elapsed().as_millis();
        info!(generation = new, sales = sales.len(), orders, arrived, took_ms, "the stock is rebuilt");
        lock.release().await;
        Ok(())
    }

    /// Why Redis has to be rebuilt; `None` where it has not. Nobody changes a sale meanwhile: we hold the lock.
    async fn needed(&self, generation: u32, sales: &[(i32, Sale)]) -> Result<Option<&'static str>> {
        let known = match self.stock.list().await {
            Ok((found, known)) if found == generation => known,
            Ok(_) => return Ok(Some("Redis is of another generation than PostgreSQL")),
            Err(Trouble::Away(why)) => return Err(Trouble::Away(why).into()),
            Err(Trouble::Forgotten(why)) => return Ok(Some(why)),
            Err(_) => return Ok(Some("Redis does not know the sales")),
        };
        let listed: HashSet<&SaleId> = known.iter().map(|(sale, _)| sale).collect();
        if listed.len() != sales.len() || sales.iter().any(|(_, sale)| !listed.contains(&sale.id)) {
            return Ok(Some("Redis knows other sales than PostgreSQL"));
        }
        for (_, sale) in sales {
            match self.stock.status(&sale.id).await {
                Ok(state) if state.closed => return Ok(Some(LEFT_CLOSED)),
                Ok(state) if state.sale != *sale => return Ok(Some("a sale is not what PostgreSQL says")),
                Ok(_) => {}
                Err(Trouble::Away(why)) => return Err(Trouble::Away(why).into()),
                Err(Trouble::Forgotten(why)) => return Ok(Some(why)),
                Err(_) => return Ok(Some("a sale is not in Redis")),
            }
        }
        Ok(None)
    }

    /// Stores everything that is in the order queue, to the last message that anybody holds.
    async fn drain_queue(&self, lock: &mut Lock, fenced: Option<Instant>) -> Result<usize> {
        let mut intake = Intake::open(&self.broker).await?;
        let drained = self.drain(&mut intake, lock, fenced).await;
        intake.close().await;
        drained
    }

    async fn drain(&self, intake: &mut Intake, lock: &mut Lock, fenced: Option<Instant>) -> Result<usize> {
        let (mut arrived, mut told) = (0, Instant::now());
        // The queue was found empty, and ours the only consumer; what comes afterwards tells whether it really was.
        let mut empty = false;
        loop {
            let batch = intake.next(&self.broker, SILENCE).await?;
            if !batch.reservations.is_empty() {
                self.keep(&batch.reservations).await?;
                intake.acknowledge(&batch).await?;
                arrived += batch.reservations.len();
                empty = false;
                continue;
            }
            // What a worker gave back just before it was counted out is on its way to us, and has arrived by now.
            if empty {
                return Ok(arrived);
            }
            lock.still_held().await?;
            // What was accepted before the fence may still be on its way into the queue, but no longer than whoever
            // published it waits for the confirmation.
            if fenced.is_some_and(|fenced| fenced.elapsed() < broker::PATIENCE) {
                continue;
            }
            // Our own consumer is one of them: none at all would be no answer.
            match self.broker.depth().await? {
                Some((0, 1)) => {
                    intake.settle().await?;
                    empty = true;
                }
                Some((_, 0)) | None => {
                    return Err(Error::unavailable("the order queue does not say what it holds"));
                }
                Some((waiting, consumers)) => {
                    if told.elapsed() > Duration::from_secs(2) {
                        told = Instant::now();
                        let others = consumers - 1;
                        warn!(waiting, others, "waiting for workers to give back what they hold");
                    }
                }
            }
        }
    }

    async fn drain_outboxes(&self, sales: &[(i32, Sale)]) -> Result<usize> {
        let mut arrived = 0;
        for (_, sale) in sales {
            let mut after: Option<String> = None;
            loop {
                let entries = match self.stock.outbox(&sale.id, after.as_deref(), None, 100).await {
                    Ok(entries) => entries,
                    Err(Trouble::Away(why)) => return Err(Trouble::Away(why).into()),
                    Err(_) => break,
                };
                let Some(last) = entries.last else { break };
                after = Some(last);
                let messages = entries.rows.into_iter().filter_map(|entry| Message::of(&sale.id, entry));
                let reservations: Vec<Reservation> =
                    messages.flat_map(|message| message.reservations().collect::<Vec<_>>()).collect();
                self.keep(&reservations).await?;
                arrived += reservations.len();
            }
        }
        Ok(arrived)
    }

    /// Stores reservations; what PostgreSQL refuses for good is put aside, one by one.
    async fn keep(&self, reservations: &[Reservation]) -> Result<()> {
        let mut waiting = vec![reservations];
        while let Some(part) = waiting.pop() {
            match (self.store.confirm(part).await, part) {
                (Ok(_), _) => {}
                (Err(Error::Refused(reason)), [culprit]) => {
                    error!(order = %culprit.order_id, reason, "an order is refused for good");
                    self.store.put_aside(culprit, &reason).await?;
                }
                (Err(Error::Refused(_)), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    waiting.extend([second, first]);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(())
    }

    /// Loads a sale, and puts on record that it was; how many live orders it has.
    async fn load(&self, session: &mut PgConnection, no: i32, sale: &Sale, generation: u32) -> Result<usize> {
        let place = place(generation, 0);
        let mut transaction = within(LONGEST, session.begin()).await?;
        let read = live_orders(&mut transaction, &sale.id, sale.epoch.0);
        let rows = timeout(LONGEST, read).await.map_err(|_| store::mute())??;
        let (kind, epoch) = (kind::RECOVERED, sale.epoch);
        let event = Event { no, kind, epoch, place, user: OPERATOR, held: None, detail: None };
        event.record(&mut transaction).await?;
        within(LONGEST, transaction.commit()).await?;
        let state = self.stock.load(no, sale, place, &rows).await?;
        debug!(sale = %sale.id, available = state.available, "loaded");
        Ok(rows.holders.len())
    }
}

async fn generation(session: &mut PgConnection) -> Result<u32> {
    let row = within(LONGEST, sqlx::query("SELECT generation FROM installation").fetch_one(session)).await?;
    Ok(unsigned(&row, "generation"))
}

/// All sales, in the order in which they were made.
async fn sales(session: &mut PgConnection) -> Result<Vec<(i32, Sale)>> {
    let sql = "SELECT no, id, name, total_stock, epoch, paused, \
         (extract(epoch FROM starts_at) * 1000)::bigint AS starts_at, \
         (extract(epoch FROM ends_at) * 1000)::bigint AS ends_at, \
         description, image_url, price::text AS price, currency FROM sales ORDER BY no";
    let rows = within(LONGEST, sqlx::query(sql).fetch_all(session)).await?;
    rows.iter().map(sale_of).collect()
}

async fn live_orders(session: &mut PgConnection, sale: &SaleId, epoch: u32) -> Result<Rows> {
    let sql = "SELECT user_id, unit, id, place, status, (extract(epoch FROM reserved_at) * 1000)::bigint AS at FROM orders \
         WHERE sale_id = $1 AND epoch = $2 AND released_at IS NULL";
    let query = sqlx::query(sql).bind(sale.as_str()).bind(store::signed(epoch));
    let mut stream = query.fetch(session);
    let mut rows = Rows::default();
    while let Some(row) = stream.try_next().await.map_err(database)? {
        let holding = Holding {
            confirmed: row.get::<&str, _>("status") == "CONFIRMED",
            unit: Unit(unsigned(&row, "unit")),
            place: flashsale_core::ids::Place(row.get::<i64, _>("place").cast_unsigned()),
            at: Timestamp::from_millis(row.get("at")),
            order_id: OrderId(row.get("id")),
        };
        rows.holders.push((row.get("user_id"), holding));
    }
    Ok(rows)
}
