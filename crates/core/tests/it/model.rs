//! The state machine against a model that is too simple to be wrong: a row of units, a map of users.
//!
//! Random histories, the same at every run. A failure prints the shortest history that shows it; more of
//! them are tried with `PROPTEST_CASES=100000`.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use flashsale_core::{
    Error,
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, Unit, UserId},
    inventory::{Decision, Event, Inventory},
    order::{Confirmation, Ending, OrderStatus, Purchase, Reservation},
    sale::{NewSale, Sale, SaleChange, TOTAL_STOCK_MAX, Window},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{RngAlgorithm, TestCaseError, TestCaseResult, TestRng, TestRunner},
};
use uuid::Uuid;

const CASES: u32 = 512;
const STEPS_MAX: usize = 120;
const STOCK_MAX: u32 = 6;
/// More than there are units, so that sales sell out.
const USERS: u32 = 9;

#[derive(Clone, Debug)]
enum Step {
    Attempt {
        user: u32,
        minute: u64,
    },
    Confirm(Pick),
    Release(Pick),
    Restock(u32),
    Pause(bool),
    Open {
        from_minute: u64,
        to_minute: u64,
    },
    Reset,
    Note,
    /// Rebuilt from the live orders, as a start of the program does it.
    Restart,
    /// Rebuilt from everything that ever happened.
    ReplayAll,
}

/// One of the reservations that were ever made, of whatever epoch.
#[derive(Clone, Debug)]
struct Pick {
    which: Index,
    epoch: Claim,
}

/// What a reservation says of its epoch.
#[derive(Clone, Debug)]
enum Claim {
    Truth,
    Present,
    Past,
}

fn step() -> impl Strategy<Value = Step> {
    let claim = prop_oneof![8 => Just(Claim::Truth), 1 => Just(Claim::Present), 1 => Just(Claim::Past)];
    let pick = || (any::<Index>(), claim.clone()).prop_map(|(which, epoch)| Pick { which, epoch });
    let minute = prop_oneof![8 => Just(50_u64), 1 => 0..100_u64];
    prop_oneof![
        24 => (0..USERS, minute).prop_map(|(user, minute)| Step::Attempt { user, minute }),
        8 => pick().prop_map(Step::Confirm),
        5 => pick().prop_map(Step::Release),
        3 => (0..=STOCK_MAX + 2).prop_map(Step::Restock),
        // Long pauses would leave little to be seen.
        2 => prop::bool::weighted(0.3).prop_map(Step::Pause),
        1 => (0..60_u64, 40..100_u64).prop_map(|(from_minute, to_minute)| Step::Open { from_minute, to_minute }),
        1 => Just(Step::Reset),
        1 => Just(Step::Note),
        1 => Just(Step::Restart),
        1 => Just(Step::ReplayAll),
    ]
}

fn minute(number: u64) -> Timestamp {
    Timestamp::from_millis(1_771_815_600_000).after(Duration::from_secs(60 * number))
}

fn user(number: u32) -> UserId {
    format!("user-{number}").parse().expect("a valid user id")
}

fn sale(stock: u32) -> Sale {
    let window = Window::new(minute(0), minute(100)).expect("a valid window");
    let id = "model".parse().expect("a valid sale id");
    NewSale::new(id, "Model".to_owned(), stock, window).expect("a valid sale").open(Epoch(1))
}

/// What somebody holds, as the model sees it.
struct Held {
    reservation: Reservation,
    confirmed: bool,
    /// The place of the last event of this holder.
    place: Place,
}

impl Held {
    fn purchase(&self) -> Purchase {
        let status = if self.confirmed { OrderStatus::Confirmed } else { OrderStatus::Reserved };
        Purchase { order_id: self.reservation.order_id, unit: self.reservation.unit, status }
    }
}

/// The sale as anybody would keep it with paper and pencil.
struct Model {
    sale: Sale,
    /// Who holds the first unit, the second, and so on.
    units: Vec<Option<UserId>>,
    holders: BTreeMap<UserId, Held>,
    place: Place,
    /// Of the last change of the stock or of the sale.
    changed_at: Place,
    /// Every reservation that was ever made, in that order.
    made: Vec<Reservation>,
}

impl Model {
    fn new(sale: Sale) -> Self {
        let units = vec![None; sale.total_stock as usize];
        let (holders, made) = (BTreeMap::new(), Vec::new());
        Self { sale, units, holders, place: Place(0), changed_at: Place(0), made }
    }

    fn step(&mut self) -> Place {
        self.place = Place(self.place.0 + 1);
        self.place
    }

    fn lowest_free_unit(&self) -> Option<Unit> {
        let index = self.units.iter().position(Option::is_none)?;
        Some(Unit(u32::try_from(index + 1).expect("few units")))
    }

    fn is_open(&self, now: Timestamp) -> bool {
        !self.sale.paused && self.sale.window.starts_at() <= now && now < self.sale.window.ends_at()
    }

    /// The answer, and the place of the event that it rests on.
    fn attempt(&mut self, user: &UserId, now: Timestamp, order_id: OrderId) -> (Decision, Place) {
        let place = self.step();
        if !self.is_open(now) {
            return (Decision::NotActive, self.changed_at);
        }
        if let Some(held) = self.holders.get(user) {
            return (Decision::AlreadyPurchased(held.purchase()), held.place);
        }
        let Some(unit) = self.lowest_free_unit() else { return (Decision::SoldOut, self.changed_at) };
        let (sale_id, epoch, user_id) = (self.sale.id.clone(), self.sale.epoch, user.clone());
        let reservation =
            Reservation { sale_id, epoch, place: self.place, unit, user_id, order_id, reserved_at: now };
        self.units[unit.0 as usize - 1] = Some(user.clone());
        let held = Held { reservation: reservation.clone(), confirmed: false, place };
        self.holders.insert(user.clone(), held);
        self.made.push(reservation.clone());
        self.changed_at = place;
        (Decision::Reserved(reservation), place)
    }

    fn is_live(&self, reservation: &Reservation) -> bool {
        reservation.epoch == self.sale.epoch
            && self
                .holders
                .get(&reservation.user_id)
                .is_some_and(|held| held.reservation.order_id == reservation.order_id)
    }

    fn confirm(&mut self, reservation: &Reservation) -> (Confirmation, Option<Place>) {
        if !self.is_live(reservation) {
            return (Confirmation::Stale, None);
        }
        let next = Place(self.place.0 + 1);
        let held = self.holders.get_mut(&reservation.user_id).expect("it is live");
        if held.confirmed {
            return (Confirmation::AlreadyConfirmed, None);
        }
        (held.confirmed, held.place) = (true, next);
        (Confirmation::Confirmed, Some(self.step()))
    }

    fn release(&mut self, reservation: &Reservation) -> Option<Place> {
        if !self.is_live(reservation) {
            return None;
        }
        let held = self.holders.remove(&reservation.user_id).expect("it is live");
        self.units[held.reservation.unit.0 as usize - 1] = None;
        self.changed_at = self.step();
        Some(self.place)
    }

    /// The place of the change, or `None` where it is not allowed.
    fn change(&mut self, change: &SaleChange) -> Option<Place> {
        let starts_at = change.starts_at.unwrap_or(self.sale.window.starts_at());
        let ends_at = change.ends_at.unwrap_or(self.sale.window.ends_at());
        let stock = change.total_stock.unwrap_or(self.sale.total_stock);
        let highest_held = self.holders.values().map(|held| held.reservation.unit.0).max();
        if starts_at >= ends_at || !(1..=TOTAL_STOCK_MAX).contains(&stock) || Some(stock) < highest_held {
            return None;
        }
        self.sale.window = Window::new(starts_at, ends_at).expect("a valid window");
        self.sale.total_stock = stock;
        self.sale.paused = change.paused.unwrap_or(self.sale.paused);
        self.units.resize(stock as usize, None);
        self.changed_at = self.step();
        Some(self.place)
    }

    fn reset(&mut self) -> Place {
        self.sale.epoch = Epoch(self.sale.epoch.0 + 1);
        self.units.fill(None);
        self.holders.clear();
        self.changed_at = self.step();
        self.place
    }

    /// After a start, whatever is known is durable, and may rest on the last place.
    fn restart(&mut self) {
        self.changed_at = self.place;
        for held in self.holders.values_mut() {
            held.place = self.place;
        }
    }

    fn confirmed(&self) -> usize {
        self.holders.values().filter(|held| held.confirmed).count()
    }
}

/// The state machine and the model, side by side.
struct Pair {
    machine: Inventory,
    model: Model,
    /// The sale as it was made, and everything that happened to it.
    created: Sale,
    events: Vec<Event>,
    /// What the history came across.
    seen: BTreeSet<&'static str>,
}

impl Pair {
    fn new(stock: u32) -> Self {
        let created = sale(stock);
        let (machine, model) = (Inventory::new(created.clone(), Place(0)), Model::new(created.clone()));
        Self { machine, model, created, events: Vec::new(), seen: BTreeSet::new() }
    }

    fn take(&mut self, step: &Step) -> TestCaseResult {
        match step {
            Step::Attempt { user: number, minute: at } => self.attempt(&user(*number), minute(*at)),
            Step::Confirm(pick) => self.picked(pick).map_or(Ok(()), |picked| self.confirm(&picked)),
            Step::Release(pick) => self.picked(pick).map_or(Ok(()), |picked| self.release(&picked)),
            Step::Restock(stock) => {
                self.change(&SaleChange { total_stock: Some(*stock), ..SaleChange::default() })
            }
            Step::Pause(paused) => {
                self.change(&SaleChange { paused: Some(*paused), ..SaleChange::default() })
            }
            Step::Open { from_minute, to_minute } => {
                let (starts_at, ends_at) = (Some(minute(*from_minute)), Some(minute(*to_minute)));
                self.change(&SaleChange { starts_at, ends_at, ..SaleChange::default() })
            }
            Step::Reset => self.reset(),
            Step::Note => {
                prop_assert_eq!(self.machine.note(), self.model.step());
                Ok(())
            }
            Step::Restart => self.restart(),
            Step::ReplayAll => self.replay_all(),
        }
    }

    fn picked(&self, pick: &Pick) -> Option<Reservation> {
        if self.model.made.is_empty() {
            return None;
        }
        let mut picked = pick.which.get(&self.model.made).clone();
        let present = self.model.sale.epoch;
        match pick.epoch {
            Claim::Truth => {}
            Claim::Present => picked.epoch = present,
            Claim::Past => picked.epoch = Epoch(present.0 - 1),
        }
        Some(picked)
    }

    fn attempt(&mut self, user: &UserId, now: Timestamp) -> TestCaseResult {
        let order_id = OrderId(Uuid::from_u128(self.model.made.len() as u128 + 1));
        let free = self.model.lowest_free_unit();
        let (expected, rests_on) = self.model.attempt(user, now, order_id);
        let mut minted = 0;
        let decided = self.machine.attempt(user, now, || {
            minted += 1;
            order_id
        });
        let seen = match &decided.decision {
            Decision::Reserved(reservation) => {
                prop_assert_eq!(Some(reservation.unit), free, "the lowest free unit is sold first");
                prop_assert_eq!(decided.rests_on, decided.place, "a reservation rests on itself");
                self.events.push(Event::Reserved(reservation.clone()));
                "reserved"
            }
            Decision::SoldOut => {
                prop_assert_eq!(free, None, "sold out while a unit is free");
                "sold out"
            }
            Decision::AlreadyPurchased(_) => "already purchased",
            Decision::NotActive => "not active",
        };
        self.seen.insert(seen);
        prop_assert_eq!(minted, i32::from(seen == "reserved"), "an id is made for a reservation only");
        prop_assert_eq!(decided.decision, expected);
        prop_assert_eq!(decided.place, self.model.place, "places are contiguous");
        prop_assert_eq!(decided.rests_on, rests_on);
        Ok(())
    }

    fn confirm(&mut self, reservation: &Reservation) -> TestCaseResult {
        let outcome = self.machine.confirm(reservation);
        if reservation.epoch < self.model.sale.epoch {
            self.seen.insert("confirmed from the past");
            prop_assert_eq!(outcome, (Confirmation::Stale, None), "the past stays past");
        }
        prop_assert_eq!(outcome, self.model.confirm(reservation));
        self.seen.insert(match outcome.0 {
            Confirmation::Confirmed => "confirmed",
            Confirmation::AlreadyConfirmed => "confirmed twice",
            Confirmation::Stale => "stale",
        });
        if outcome.1.is_some() {
            self.events.push(Event::Confirmed { user_id: reservation.user_id.clone() });
        }
        Ok(())
    }

    fn release(&mut self, reservation: &Reservation) -> TestCaseResult {
        let released = self.machine.release(reservation);
        if reservation.epoch < self.model.sale.epoch {
            self.seen.insert("released from the past");
            prop_assert_eq!(released, None, "the past stays past");
        }
        prop_assert_eq!(released, self.model.release(reservation));
        if released.is_some() {
            self.seen.insert("released");
            let (user_id, ending) = (reservation.user_id.clone(), Ending::Expired);
            self.events.push(Event::Released { user_id, ending });
        }
        Ok(())
    }

    fn change(&mut self, change: &SaleChange) -> TestCaseResult {
        let changed = self.machine.change(change);
        let expected = self.model.change(change);
        match (changed, expected) {
            (Ok(place), Some(expected)) => {
                prop_assert_eq!(place, expected);
                self.events.push(Event::Changed(self.machine.sale().clone()));
                self.seen.insert("changed");
            }
            (Err(Error::Invalid(_)), None) => drop(self.seen.insert("invalid change")),
            (Err(Error::Conflict(_)), None) => drop(self.seen.insert("unit held above the new stock")),
            (changed, expected) => {
                return Err(TestCaseError::fail(format!("{change:?}: {changed:?} ≠ {expected:?}")));
            }
        }
        Ok(())
    }

    fn reset(&mut self) -> TestCaseResult {
        let (place, _) = self.machine.reset();
        prop_assert_eq!(place, self.model.reset());
        self.events.push(Event::Reset(self.model.sale.epoch));
        self.seen.insert("reset");
        Ok(())
    }

    /// As the ledger does it: the live orders in the order of their reservation, each with its confirmation.
    fn restart(&mut self) -> TestCaseResult {
        let mut machine = Inventory::new(self.model.sale.clone(), self.model.place);
        for reservation in self.model.made.iter().filter(|made| self.model.is_live(made)) {
            let user_id = reservation.user_id.clone();
            let confirmed = self.model.holders[&user_id].confirmed;
            replay(&mut machine, &Event::Reserved(reservation.clone()))?;
            if confirmed {
                replay(&mut machine, &Event::Confirmed { user_id })?;
            }
        }
        self.seen.insert("restarted");
        self.rebuilt(machine)
    }

    fn replay_all(&mut self) -> TestCaseResult {
        let mut machine = Inventory::new(self.created.clone(), self.model.place);
        for event in &self.events {
            replay(&mut machine, event)?;
        }
        self.seen.insert("replayed");
        self.rebuilt(machine)
    }

    fn rebuilt(&mut self, machine: Inventory) -> TestCaseResult {
        self.machine = machine;
        self.model.restart();
        Ok(())
    }

    /// What holds after every step.
    fn check(&self) -> TestCaseResult {
        let status = self.machine.status(minute(50));
        prop_assert_eq!(&status.sale, &self.model.sale);
        prop_assert_eq!(self.machine.place(), self.model.place);
        let (sold, total) = (status.sold(), status.sale.total_stock);
        prop_assert!(sold <= total, "oversold: {} of {}", sold, total);
        prop_assert_eq!(status.available() + status.reserved + status.confirmed, total, "stock is conserved");
        prop_assert_eq!(status.confirmed as usize, self.model.confirmed());

        let mut units = BTreeSet::new();
        for user in (0..USERS).map(user) {
            let purchase = self.machine.purchase(&user);
            let held = self.model.holders.get(&user).map(|held| (held.purchase(), held.place));
            prop_assert_eq!(purchase, held, "what {} holds", user);
            if let Some((Purchase { unit, .. }, _)) = purchase {
                prop_assert!((1..=total).contains(&unit.0), "unit {} is none of the {}", unit, total);
                prop_assert!(units.insert(unit), "unit {} is held twice", unit);
            }
        }
        prop_assert_eq!(units.len(), sold as usize, "one unit a holder");
        Ok(())
    }
}

fn replay(machine: &mut Inventory, event: &Event) -> TestCaseResult {
    machine.replay(event).map_err(|damaged| TestCaseError::fail(format!("{event:?}: {damaged}")))
}

#[test]
fn any_history_keeps_the_promises_and_gets_the_answers_of_a_naive_model() {
    let defaults = ProptestConfig::default();
    let config = ProptestConfig { cases: defaults.cases.max(CASES), failure_persistence: None, ..defaults };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let seen = RefCell::new(BTreeSet::new());
    let outcome = runner.run(&(1..=STOCK_MAX, vec(step(), 1..STEPS_MAX)), |(stock, steps)| {
        let mut pair = Pair::new(stock);
        for step in &steps {
            pair.take(step)?;
            pair.check()?;
        }
        seen.borrow_mut().append(&mut pair.seen);
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));

    // Histories that never come across something prove nothing about it.
    let seen: Vec<_> = seen.into_inner().into_iter().collect();
    let everything = [
        "already purchased",
        "changed",
        "confirmed",
        "confirmed from the past",
        "confirmed twice",
        "invalid change",
        "not active",
        "released",
        "released from the past",
        "replayed",
        "reserved",
        "reset",
        "restarted",
        "sold out",
        "stale",
        "unit held above the new stock",
    ];
    assert_eq!(seen, everything);
}
