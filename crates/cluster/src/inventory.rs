//! The inventory of a replica: gathers attempts into calls, has Redis decide, sees the reservations to the broker, and
//! then replies.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use flashsale_core::{
    Error, Result,
    ids::{Epoch, OrderId, SaleId, UserId},
    inventory::Decision,
    order::{Ending, Purchase, Reservation},
    ports::{self, Clock, OrderIds},
    sale::{NewSale, SaleChange, SaleStatus},
};
use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use tokio::{sync::oneshot, time::sleep};
use tracing::{debug, warn};

use crate::{
    audit::{Audit, Rejection},
    gather::{Gather, Waiting},
    keys::SaleKeys,
    latch::{self, Latch},
    message::{Message, Reserved, VERSION},
    outbox::{Handed, Outbox},
    recovery::Alarm,
    sales::Sales,
    stock::{Answer, Decided, Holding, State, Stock, Trouble},
    store::kind,
};

/// How long an attempt may wait, once Redis does not answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long attempts wait at a closed gate.
const GATE_PATIENCE: Duration = Duration::from_secs(1);
const GATE_GLANCE: Duration = Duration::from_millis(2);

/// What the calls have done since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Calls of `decide`.
    pub(crate) calls: AtomicU64,
    /// Attempts in them.
    pub(crate) decided: AtomicU64,
    /// Attempts that the latch rejected.
    pub(crate) latched: AtomicU64,
}

/// What a replica keeps of a sale.
struct Cell {
    sale: SaleId,
    keys: SaleKeys,
    gather: Gather,
    latch: RwLock<Option<Arc<Latch>>>,
    /// Whether a latch is being made.
    latching: Mutex<bool>,
    /// Whether a call of it has ever decided: there is such a sale.
    real: AtomicBool,
}

/// The inventory.
pub(crate) struct Replica {
    pub(crate) stock: Stock,
    pub(crate) audit: Arc<Audit>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) alarm: Arc<Alarm>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: Arc<dyn OrderIds>,
    pub(crate) sales: Sales,
    pub(crate) latches: bool,
    pub(crate) counts: Counts,
    pub(crate) cells: Cells,
    pub(crate) under_way: UnderWay,
}

/// The calls that are under way: each holds it to read, and goes on although whoever asked has hung up.
#[derive(Clone, Default)]
pub(crate) struct UnderWay(Arc<tokio::sync::RwLock<()>>);

impl UnderWay {
    /// Does `call` on a task of its own.
    fn go(&self, call: impl Future<Output = ()> + Send + 'static) {
        // Once it is waited for, there is nobody left who could ask.
        let here = self.0.clone().try_read_owned().ok();
        tokio::spawn(async move {
            call.await;
            drop(here);
        });
    }

    /// Waits until all have ended, and what they decided is with the audit trail.
    pub(crate) async fn end(&self) {
        drop(self.0.write().await);
    }
}

/// What a replica keeps of its sales.
#[derive(Default)]
pub(crate) struct Cells(RwLock<HashMap<SaleId, Arc<Cell>>>);

impl Replica {
    /// What this replica keeps of a sale. Of one that may be none it keeps nothing beyond the first call (`call`).
    fn cell(&self, sale: &SaleId) -> Arc<Cell> {
        if let Some(cell) = self.cells.0.read().get(sale) {
            return cell.clone();
        }
        let cell = || {
            Arc::new(Cell {
                sale: sale.clone(),
                keys: self.stock.keys.of(sale),
                gather: Gather::default(),
                latch: RwLock::new(None),
                latching: Mutex::new(false),
                real: AtomicBool::new(false),
            })
        };
        self.cells.0.write().entry(sale.clone()).or_insert_with(cell).clone()
    }

    /// Keeps nothing of a sale that may be none.
    fn forget(&self, cell: &Arc<Cell>) {
        let mut cells = self.cells.0.write();
        if cells.get(&cell.sale).is_some_and(|kept| Arc::ptr_eq(kept, cell)) {
            cells.remove(&cell.sale);
        }
    }

    /// What a trouble with a sale means to whoever asked.
    async fn explain(&self, sale: &SaleId, trouble: Trouble) -> Error {
        // Also a gate that was left closed over a sale that was deleted, and one that is just being made again.
        if !matches!(trouble, Trouble::Away(_)) {
            match self.stock.known(sale).await {
                Ok(false) => {
                    self.cells.0.write().remove(sale);
                    return Error::UnknownSale(sale.clone());
                }
                Ok(true) => {}
                Err(trouble) => return self.alarm.raise(trouble),
            }
        }
        self.alarm.raise(trouble)
    }

    /// A rejection from memory, where the sale is latched.
    fn reject_from_memory(&self, cell: &Cell, user: &UserId) -> Option<Decision> {
        let latch = cell.latch.read().clone()?;
        let rejection = latch.rejection(user, Instant::now())?;
        self.counts.latched.fetch_add(1, Ordering::Relaxed);
        self.audit.take([rejection]);
        Some(Decision::SoldOut)
    }

    /// Makes calls as long as attempts wait.
    async fn call(self: Arc<Self>, cell: Arc<Cell>) {
        loop {
            let waiting = cell.gather.next();
            if waiting.is_empty() {
                return;
            }
            // Only the id's own; the moment of the decision is Redis'.
            let now = self.clock.now();
            let attempts: Vec<_> =
                waiting.iter().map(|one| (one.user.as_str(), self.ids.mint(now))).collect();
            match self.decide(&cell, &attempts).await {
                Ok(decided) => self.settle(&cell, waiting, decided),
                Err(trouble) => {
                    let error = self.explain(&cell.sale, trouble).await;
                    if !cell.real.load(Ordering::Relaxed) {
                        self.forget(&cell);
                    }
                    // Redis may be silent, and each further call as long as this one.
                    for one in waiting.into_iter().chain(cell.gather.overdue(PATIENCE)) {
                        let _ = one.reply.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// One call; at a closed gate, again and again for a while.
    async fn decide(&self, cell: &Cell, attempts: &[(&str, OrderId)]) -> Result<Decided, Trouble> {
        let began = Instant::now();
        loop {
            self.counts.calls.fetch_add(1, Ordering::Relaxed);
            let decided = self.stock.decide(&cell.keys, attempts).await;
            if decided.is_ok() {
                cell.real.store(true, Ordering::Relaxed);
                self.counts.decided.fetch_add(attempts.len() as u64, Ordering::Relaxed);
            }
            if decided != Err(Trouble::Closed) || began.elapsed() > GATE_PATIENCE {
                return decided;
            }
            sleep(GATE_GLANCE).await;
        }
    }

    /// Records the rejections of a call, and replies: at once, or when what it speaks of is as durable as it must be.
    fn settle(self: &Arc<Self>, cell: &Arc<Cell>, waiting: Vec<Waiting>, decided: Decided) {
        let messages = self.messages(&cell.sale, &waiting, &decided);
        let sold_out = self.latches && decided.answers.contains(&Answer::SoldOut);
        if messages.is_empty() {
            self.audit.take(rejections(&waiting, &decided));
            reply(&cell.sale, waiting, &decided, &Ok(()));
            if sold_out {
                self.clone().latch(cell.clone());
            }
            return;
        }
        // The next call need not wait for the broker.
        let (replica, cell) = (self.clone(), cell.clone());
        self.under_way.go(async move {
            let handed = join_all(messages.iter().map(|message| replica.outbox.hand_over(message))).await;
            let safe = if handed.contains(&Handed::Superseded) {
                Err(Error::Unavailable {
                    reason: "The stock was rebuilt meanwhile; please ask again".to_owned(),
                    retry_after: Duration::from_secs(1),
                })
            } else {
                // Those who are told nothing come again, and are on record then.
                replica.audit.take(rejections(&waiting, &decided));
                Ok(())
            };
            reply(&cell.sale, waiting, &decided, &safe);
            if sold_out {
                replica.latch(cell);
            }
        });
    }

    /// What has to be on the broker before anybody is told: what the call reserved, and what it found reserved by
    /// somebody who may have died before the broker had it.
    fn messages(&self, sale: &SaleId, waiting: &[Waiting], decided: &Decided) -> Vec<Message> {
        let reserved = |user: &UserId, held: &Holding| Reserved {
            order_id: held.order_id,
            user_id: user.clone(),
            unit: held.unit,
            place: held.place,
        };
        let message = |entry: &str, reserved_at, reservations| Message {
            version: VERSION,
            sale_id: sale.clone(),
            epoch: decided.epoch,
            generation: decided.generation,
            entry: entry.to_owned(),
            reserved_at,
            reservations,
        };
        let answers = || waiting.iter().zip(&decided.answers);
        let own: Vec<Reserved> = answers()
            .filter_map(|(one, answer)| match answer {
                Answer::Reserved(held) => Some(reserved(&one.user, held)),
                _ => None,
            })
            .collect();
        let on_its_way: HashSet<OrderId> = own.iter().map(|reserved| reserved.order_id).collect();
        let again = answers().filter_map(|(one, answer)| match answer {
            Answer::Held(held)
                if !held.confirmed
                    && !on_its_way.contains(&held.order_id)
                    && !self.outbox.is_safe(held.order_id) =>
            {
                Some(message("", held.at, vec![reserved(&one.user, held)]))
            }
            _ => None,
        });
        let first = decided.entry.as_ref().map(|entry| message(entry, decided.now, own));
        first.into_iter().chain(again).collect()
    }

    /// Makes a latch, unless somebody does or there is one.
    fn latch(self: Arc<Self>, cell: Arc<Cell>) {
        if cell.latch.read().is_some() || std::mem::replace(&mut *cell.latching.lock(), true) {
            return;
        }
        tokio::spawn(async move {
            match self.try_latch(&cell).await {
                Ok(Some(latch)) => {
                    debug!(sale = %cell.sale, "sold out: rejections are answered from memory");
                    *cell.latch.write() = Some(Arc::new(latch));
                }
                Ok(None) => {}
                Err(trouble) => debug!(sale = %cell.sale, ?trouble, "no latch"),
            }
            *cell.latching.lock() = false;
        });
    }

    async fn try_latch(&self, cell: &Cell) -> Result<Option<Latch>, Trouble> {
        let here = Instant::now();
        let before = self.stock.status(&cell.sale).await?;
        if before.available > 0 {
            return Ok(None);
        }
        let purchasers = self.stock.purchasers(&cell.keys).await?;
        let after = self.stock.status(&cell.sale).await?;
        Ok(Latch::new(&before, &after, purchasers.iter().map(String::as_str), here))
    }

    /// Compares all latches with Redis, again and again.
    pub(crate) async fn watch_latches(self: Arc<Self>) {
        loop {
            sleep(latch::RECHECK).await;
            let latched: Vec<_> =
                self.cells.0.read().values().filter(|cell| cell.latch.read().is_some()).cloned().collect();
            for cell in latched {
                let here = Instant::now();
                let state = self.stock.status(&cell.sale).await;
                let mut latch = cell.latch.write();
                let stays = match (&*latch, &state) {
                    (Some(latch), Ok(state)) => latch.compare(state, here),
                    // Unanswered, it ends by itself; an answer that is none says that something changed.
                    (Some(_), Err(Trouble::Away(_))) => true,
                    _ => false,
                };
                if !stays {
                    *latch = None;
                }
            }
        }
    }

    /// Something of a sale has changed: what was known of it is asked anew.
    pub(crate) fn changed(&self, sale: &SaleId) {
        if let Some(cell) = self.cells.0.read().get(sale) {
            *cell.latch.write() = None;
        }
    }

    fn status_of(state: State) -> SaleStatus {
        let sold = state.sale.total_stock - state.available;
        let confirmed = state.confirmed.min(sold);
        SaleStatus { reserved: sold - confirmed, confirmed, sale: state.sale, now: state.now }
    }
}

/// The rejections of a call, as they are recorded.
fn rejections<'a>(waiting: &'a [Waiting], decided: &'a Decided) -> impl Iterator<Item = Rejection> + 'a {
    waiting.iter().zip(&decided.answers).filter_map(|(one, answer)| {
        let (kind, place, held) = match answer {
            Answer::Reserved(_) => return None,
            Answer::SoldOut => (kind::REJECTED_SOLD_OUT, decided.changed, None),
            Answer::NotActive => (kind::REJECTED_NOT_ACTIVE, decided.changed, None),
            Answer::Held(held) => (kind::REJECTED_DUPLICATE, held.place, Some((held.unit, held.order_id))),
        };
        Some(Rejection {
            sale_no: decided.no,
            kind,
            epoch: decided.epoch,
            place,
            at: decided.now,
            user_id: one.user.clone(),
            held,
            number: 0,
        })
    })
}

/// Replies to everybody of a call. Where its reservations are not safe nobody is told anything that rests on them.
fn reply(sale: &SaleId, waiting: Vec<Waiting>, decided: &Decided, handed: &Result<()>) {
    for (one, answer) in waiting.into_iter().zip(&decided.answers) {
        let decision = handed.clone().map(|()| match answer {
            Answer::SoldOut => Decision::SoldOut,
            Answer::NotActive => Decision::NotActive,
            Answer::Held(held) => Decision::AlreadyPurchased(held.purchase()),
            Answer::Reserved(held) => Decision::Reserved(Reservation {
                sale_id: sale.clone(),
                epoch: decided.epoch,
                place: held.place,
                unit: held.unit,
                user_id: one.user.clone(),
                order_id: held.order_id,
                reserved_at: decided.now,
            }),
        });
        // Whoever has hung up asks again, and is told then.
        let _ = one.reply.send(decision);
    }
}

/// The inventory as its port, with the replica behind it shared with its own tasks.
#[derive(Clone)]
pub(crate) struct ClusterInventory(pub(crate) Arc<Replica>);

impl ClusterInventory {
    /// Carries a change out whatever becomes of whoever asked for it.
    async fn carried_out<T: Send + 'static>(
        &self,
        sale: &SaleId,
        change: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let done = tokio::spawn(change).await.unwrap_or_else(|failed| {
            warn!(%failed, "a change of a sale ended badly");
            Err(Error::unavailable("the change ended badly"))
        });
        self.0.changed(sale);
        done
    }
}

#[async_trait]
impl ports::Inventory for ClusterInventory {
    async fn attempt(&self, sale: &SaleId, user: UserId) -> Result<Decision> {
        let replica = &self.0;
        replica.audit.room()?;
        let cell = replica.cell(sale);
        if let Some(decision) = replica.reject_from_memory(&cell, &user) {
            return Ok(decision);
        }
        let ticket = cell.gather.add(user)?;
        if ticket.starts {
            replica.under_way.go(replica.clone().call(cell));
        }
        let lost = |_: oneshot::error::RecvError| Err(Error::unavailable("the replica is stopping"));
        ticket.decision.await.unwrap_or_else(lost)
    }

    async fn purchase(&self, sale: &SaleId, user: &UserId) -> Result<Option<Purchase>> {
        match self.0.stock.purchase(sale, user.as_str()).await {
            Ok((_, held)) => Ok(held.map(|held| held.purchase())),
            Err(trouble) => Err(self.0.explain(sale, trouble).await),
        }
    }

    async fn release(&self, reservation: &Reservation, ending: Ending) -> Result<bool> {
        let (replica, reservation) = (self.0.clone(), reservation.clone());
        let sale = reservation.sale_id.clone();
        self.carried_out(&sale, async move { replica.sales.release(&reservation, ending).await }).await
    }

    async fn status(&self, sale: &SaleId) -> Result<SaleStatus> {
        match self.0.stock.status(sale).await {
            // Somebody may have died over deleting it.
            Ok(state) if state.closed => match self.0.stock.known(sale).await {
                Ok(false) => Err(Error::UnknownSale(sale.clone())),
                _ => Ok(Replica::status_of(state)),
            },
            Ok(state) => Ok(Replica::status_of(state)),
            Err(trouble) => Err(self.0.explain(sale, trouble).await),
        }
    }

    async fn statuses(&self) -> Result<Vec<SaleStatus>> {
        let (_, sales) = self.0.stock.list().await.map_err(|trouble| self.0.alarm.raise(trouble))?;
        let states = join_all(sales.iter().map(|(sale, _)| self.status(sale))).await;
        // A sale that was deleted since it was listed is none.
        states.into_iter().filter(|state| !matches!(state, Err(Error::UnknownSale(_)))).collect()
    }

    async fn create(&self, sale: NewSale) -> Result<SaleStatus> {
        let (replica, id) = (self.0.clone(), sale.id().clone());
        self.carried_out(&id, async move { replica.sales.create(sale).await }).await.map(Replica::status_of)
    }

    async fn change(&self, sale: &SaleId, change: SaleChange) -> Result<SaleStatus> {
        let (replica, id) = (self.0.clone(), sale.clone());
        self.carried_out(sale, async move { replica.sales.change(&id, &change).await })
            .await
            .map(Replica::status_of)
    }

    async fn reset(&self, sale: &SaleId, expected: Option<Epoch>) -> Result<SaleStatus> {
        let (replica, id) = (self.0.clone(), sale.clone());
        self.carried_out(sale, async move { replica.sales.reset(&id, expected).await })
            .await
            .map(Replica::status_of)
    }

    async fn delete(&self, sale: &SaleId) -> Result<()> {
        let (replica, id) = (self.0.clone(), sale.clone());
        self.carried_out(sale, async move { replica.sales.delete(&id).await }).await?;
        self.0.cells.0.write().remove(sale);
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        self.0.audit.room()?;
        self.0.stock.list().await.map(drop).map_err(|trouble| self.0.alarm.raise(trouble))
    }
}
