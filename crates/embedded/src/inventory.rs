//! Decisions in memory, recorded in the ledger: the inventory of the embedded profile.
//!
//! Everything that happens to a sale happens in one critical section ([`Engine::step`]): the sale's lock is
//! taken, then the commit queue's; the state machine decides; the entry is appended. So the ledger's order
//! is the order of the decisions, and a decision that finds no room in the queue is not made.
//!
//! The one rule of replies: *no reply rests on what is not yet durable*. A reservation waits for its own
//! commit. A rejection replies at once when the event that it rests on (the user's own reservation, the last
//! unit's) is durable; otherwise it waits for the commit of its own row, which comes after that event's.

use std::sync::Arc;

use async_trait::async_trait;
use flashsale_core::{
    Error, Result,
    clock::Timestamp,
    ids::{Epoch, Place, SaleId, UserId},
    inventory::{Decision, Inventory},
    order::{Confirmation, Ending, Purchase, Reservation},
    ports::{self, Clock, OrderIds},
    sale::{NewSale, Sale, SaleChange, SaleStatus},
};
use rusqlite::OptionalExtension;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    ledger::{
        Ledger,
        commit_queue::{Entrance, PATIENCE, Room},
        record::{Entry, Outcome, Record},
    },
    sales::{SALE_NO_MAX, SALES_MAX, SaleCell, Sales},
};

type Commit = oneshot::Receiver<Result<()>>;

/// The embedded inventory and order store.
pub(crate) struct Engine {
    sales: Sales,
    ledger: Ledger,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn OrderIds>,
}

/// One step of a sale: its state, and the place in the commit queue that it may use.
struct Step<'a> {
    cell: &'a Arc<SaleCell>,
    inventory: &'a mut Inventory,
    deleted: &'a mut bool,
    now: Timestamp,
    room: Room<'a>,
}

impl Step<'_> {
    fn append(&mut self, place: Place, record: Record) {
        self.push(place, record, None);
    }

    fn append_awaited(&mut self, place: Place, record: Record) -> Commit {
        let (reply, commit) = oneshot::channel();
        self.push(place, record, Some(reply));
        commit
    }

    fn push(&mut self, place: Place, record: Record, reply: Option<oneshot::Sender<Result<()>>>) {
        let epoch = self.inventory.sale().epoch;
        self.room.push(Entry { cell: self.cell.clone(), place, epoch, at: self.now, record, reply });
    }
}

impl Engine {
    pub(crate) fn new(sales: Sales, ledger: Ledger, clock: Arc<dyn Clock>, ids: Arc<dyn OrderIds>) -> Self {
        Self { sales, ledger, clock, ids }
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Takes a step of a sale, as soon as there is room to record it.
    async fn step<T>(&self, cell: &Arc<SaleCell>, mut take: impl FnMut(&mut Step<'_>) -> T) -> Result<T> {
        if let Some(taken) = self.try_step(cell, &mut take)? {
            return Ok(taken);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut room = std::pin::pin!(self.ledger.queue.room());
            // Whoever leaves room after this line is heard, even before the wait begins.
            room.as_mut().enable();
            if let Some(taken) = self.try_step(cell, &mut take)? {
                return Ok(taken);
            }
            if timeout_at(deadline, room).await.is_err() {
                return Err(Error::Busy { retry_after: PATIENCE });
            }
        }
    }

    fn try_step<T>(
        &self,
        cell: &Arc<SaleCell>,
        take: &mut impl FnMut(&mut Step<'_>) -> T,
    ) -> Result<Option<T>> {
        let mut state = cell.state.lock();
        if state.deleted {
            return Err(Error::UnknownSale(cell.id.clone()));
        }
        let Entrance::Open(room) = self.ledger.queue.enter()? else { return Ok(None) };
        let state = &mut *state;
        let (inventory, deleted) = (&mut state.inventory, &mut state.deleted);
        Ok(Some(take(&mut Step { cell, inventory, deleted, now: self.clock.now(), room })))
    }

    /// Confirms reservations of one sale; what became of each, and the commit to wait for.
    async fn confirm_in(
        &self,
        cell: &Arc<SaleCell>,
        reservations: &[&Reservation],
    ) -> Result<(Vec<Confirmation>, Option<Commit>)> {
        self.step(cell, |step| {
            let mut confirmed = Vec::with_capacity(reservations.len());
            let mut last = None;
            let outcomes = reservations
                .iter()
                .map(|reservation| {
                    let (outcome, place) = step.inventory.confirm(reservation);
                    if place.is_some() {
                        last = place;
                        confirmed.push((*reservation).clone());
                    }
                    outcome
                })
                .collect();
            let commit = last.map(|place| step.append_awaited(place, Record::Confirmed(confirmed)));
            (outcomes, commit)
        })
        .await
    }

    /// Confirms reservations, sale by sale, each at most once.
    pub(crate) async fn confirm_all(&self, reservations: &[Reservation]) -> Result<Vec<Confirmation>> {
        let mut outcomes = vec![Confirmation::Stale; reservations.len()];
        let mut commits = Vec::new();
        let mut by_sale: Vec<(&SaleId, Vec<usize>)> = Vec::new();
        for (index, reservation) in reservations.iter().enumerate() {
            match by_sale.iter_mut().find(|(sale, _)| *sale == &reservation.sale_id) {
                Some((_, indexes)) => indexes.push(index),
                None => by_sale.push((&reservation.sale_id, vec![index])),
            }
        }
        for (sale, indexes) in by_sale {
            let Some(cell) = self.sales.find(sale) else { continue };
            let of_sale: Vec<_> = indexes.iter().map(|&index| &reservations[index]).collect();
            match self.confirm_in(&cell, &of_sale).await {
                Ok((confirmed, commit)) => {
                    for (index, outcome) in indexes.into_iter().zip(confirmed) {
                        outcomes[index] = outcome;
                    }
                    commits.extend(commit);
                }
                // Deleted since; its reservations are stale.
                Err(Error::UnknownSale(_)) => {}
                Err(error) => return Err(error),
            }
        }
        for commit in commits {
            committed(commit).await?;
        }
        Ok(outcomes)
    }

    /// Puts on record that the store refuses a reservation for good.
    pub(crate) async fn refuse(&self, reservation: &Reservation, reason: &str) -> Result<()> {
        let cell = self.sales.get(&reservation.sale_id)?;
        let commit = self.step(&cell, |step| {
            let place = step.inventory.note();
            step.append_awaited(place, Record::Refused(reservation.clone(), reason.to_owned()))
        });
        committed(commit.await?).await
    }

    /// The number and the epochs so far of a sale id that was deleted.
    async fn retired(&self, id: &SaleId) -> Result<Option<(u32, Epoch, Place)>> {
        let id = id.clone();
        let read = move |connection: &rusqlite::Connection| {
            let row = connection.query_row(
                "SELECT no, epoch, last_place FROM retired_sales WHERE id = ?1",
                [id.as_str()],
                |row| Ok((row.get(0)?, Epoch(row.get(1)?), Place(row.get::<_, i64>(2)?.cast_unsigned()))),
            );
            row.optional().map_err(|error| crate::ledger::unreadable(&error))
        };
        self.ledger.readers.run(read).await
    }

    /// The last place of a sale's sequence in memory.
    #[cfg(feature = "stepped")]
    pub(crate) fn place(&self, sale: &SaleId) -> Option<Place> {
        Some(self.sales.find(sale)?.state.lock().inventory.place())
    }

    fn status_of(&self, cell: &SaleCell) -> SaleStatus {
        cell.state.lock().inventory.status(self.clock.now())
    }
}

/// Waits for the commit of an entry.
async fn committed(commit: Commit) -> Result<()> {
    commit.await.unwrap_or_else(|_| Err(Error::unavailable("the ledger has stopped")))
}

#[async_trait]
impl ports::Inventory for Engine {
    async fn attempt(&self, sale: &SaleId, user: UserId) -> Result<Decision> {
        let cell = self.sales.get(sale)?;
        let (decision, commit) = self
            .step(&cell, |step| {
                let now = step.now;
                let decided = step.inventory.attempt(&user, now, || self.ids.mint(now));
                let record = Record::Attempt(user.clone(), Outcome::of(&decided));
                let commit = if decided.rests_on <= step.cell.durable() {
                    step.append(decided.place, record);
                    None
                } else {
                    Some(step.append_awaited(decided.place, record))
                };
                (decided.decision, commit)
            })
            .await?;
        if let Some(commit) = commit {
            committed(commit).await?;
        }
        Ok(decision)
    }

    async fn purchase(&self, sale: &SaleId, user: &UserId) -> Result<Option<Purchase>> {
        let cell = self.sales.get(sale)?;
        loop {
            let mut commit = std::pin::pin!(self.ledger.queue.next_commit());
            // A commit that ends after this line is heard, even before the wait begins.
            commit.as_mut().enable();
            let held = cell.state.lock().inventory.purchase(user);
            let Some((purchase, rests_on)) = held else { return Ok(None) };
            if rests_on <= cell.durable() {
                return Ok(Some(purchase));
            }
            self.ledger.queue.check()?;
            commit.await;
        }
    }

    async fn release(&self, reservation: &Reservation, ending: Ending) -> Result<bool> {
        let cell = self.sales.get(&reservation.sale_id)?;
        let commit = self.step(&cell, |step| {
            let place = step.inventory.release(reservation)?;
            Some(step.append_awaited(place, Record::Released(reservation.clone(), ending)))
        });
        match commit.await? {
            Some(commit) => committed(commit).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn status(&self, sale: &SaleId) -> Result<SaleStatus> {
        Ok(self.status_of(&*self.sales.get(sale)?))
    }

    async fn statuses(&self) -> Result<Vec<SaleStatus>> {
        let mut cells = self.sales.all();
        cells.sort_by_key(|cell| cell.no);
        Ok(cells.iter().map(|cell| self.status_of(cell)).collect())
    }

    async fn create(&self, new: NewSale) -> Result<SaleStatus> {
        let mut next_no = self.sales.next_no.lock().await;
        if self.sales.find(new.id()).is_some() {
            return Err(Error::SaleExists(new.id().clone()));
        }
        if self.sales.len() >= SALES_MAX {
            return Err(Error::Conflict(format!("There are {SALES_MAX} sales already; delete some first")));
        }
        // A deletion that nobody waited for is on record by then.
        self.ledger.queue.flush().await?;
        let (no, epoch, place) = match self.retired(new.id()).await? {
            Some((no, epoch, place)) => (no, epoch.next(), place),
            None if *next_no > SALE_NO_MAX => {
                return Err(Error::Conflict(format!(
                    "This ledger has had {SALE_NO_MAX} sales; begin a new one"
                )));
            }
            None => (*next_no, Epoch(1), Place(0)),
        };
        let sale: Sale = new.open(epoch);
        // Its first place is its making, so that no answer about it leaves before that is durable.
        let cell = Arc::new(SaleCell::new(no, Inventory::new(sale.clone(), place.next())));
        cell.set_durable(place);
        let commit = self.step(&cell, |step| {
            let place = step.inventory.place();
            step.append_awaited(place, Record::Created(sale.clone()))
        });
        let commit = commit.await?;
        // It is on its way to the ledger: whoever hangs up from here on leaves a sale that is made.
        *next_no = (*next_no).max(no + 1);
        self.sales.insert(cell.clone());
        committed(commit).await.inspect_err(|_| self.sales.remove(&sale.id))?;
        Ok(self.status_of(&cell))
    }

    async fn change(&self, sale: &SaleId, change: SaleChange) -> Result<SaleStatus> {
        let cell = self.sales.get(sale)?;
        let changed = self.step(&cell, |step| {
            let place = step.inventory.change(&change)?;
            let record = Record::Changed(step.inventory.sale().clone());
            Ok::<_, Error>((step.append_awaited(place, record), step.inventory.status(step.now)))
        });
        let (commit, status) = changed.await??;
        committed(commit).await.map(|()| status)
    }

    async fn reset(&self, sale: &SaleId, expected: Option<Epoch>) -> Result<SaleStatus> {
        let cell = self.sales.get(sale)?;
        let reset = self.step(&cell, |step| {
            step.inventory.sale().check_epoch(expected)?;
            let (place, remains) = step.inventory.reset();
            Ok::<_, Error>((
                step.append_awaited(place, Record::Reset),
                step.inventory.status(step.now),
                remains,
            ))
        });
        let (commit, status, remains) = reset.await??;
        drop(remains);
        committed(commit).await.map(|()| status)
    }

    async fn delete(&self, sale: &SaleId) -> Result<()> {
        let _one_at_a_time = self.sales.next_no.lock().await;
        let cell = self.sales.get(sale)?;
        let deleted = self.step(&cell, |step| {
            let sold = step.inventory.status(step.now).sold();
            if sold > 0 {
                let orders = if sold == 1 { "1 order".to_owned() } else { format!("{sold} orders") };
                return Err(Error::Conflict(format!(
                    "The sale {sale} has {orders}; reset it first if they are to be lost"
                )));
            }
            let place = step.inventory.note();
            *step.deleted = true;
            Ok(step.append_awaited(place, Record::Deleted))
        });
        let commit = deleted.await??;
        // It is on its way to the ledger: whoever hangs up from here on leaves a sale that is deleted.
        self.sales.remove(sale);
        committed(commit).await
    }

    async fn ready(&self) -> Result<()> {
        self.ledger.queue.check()
    }
}
