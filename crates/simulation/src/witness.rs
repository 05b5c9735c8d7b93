//! What callers were told, and whether the ledger bears it out.
//!
//! A sale's trail is one sequence, so it can be reckoned up from the first place to the last by rules of the tests' own
//! ([`Reckoning`], which shares nothing with `core::inventory`). Everything that somebody was told stands at a place of
//! that sequence: up to the last place that is on record it must be what the record says there; beyond it (rejections may
//! be told before their row is written, and a crash may take the row) it must be true of what is on record.

use std::collections::{BTreeMap, BTreeSet};

use flashsale_core::{
    audit::{AuditEvent, EventType},
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, SaleId, Unit, UserId},
    inventory::Decision,
    order::{OrderStatus, Purchase, Reservation},
};
use serde_json::Value;

/// A broken promise, in words.
pub(crate) type Broken = String;
pub(crate) type Checked<T = ()> = Result<T, Broken>;

/// The promises, as they are named.
macro_rules! broken {
    ($promise:literal, $($words:tt)*) => { Err(format!("{}: {}", $promise, format_args!($($words)*))) };
}
pub(crate) use broken;

/// Who took a place of a sale's sequence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Act {
    Attempt(UserId),
    Created { total: u32, starts_at: Timestamp, ends_at: Timestamp },
    Changed,
    Reset,
    Deleted,
    Released(OrderId),
}

/// Something that somebody was told.
#[derive(Clone, Debug)]
enum Told {
    Reserved(Reservation),
    Held { user: UserId, purchase: Purchase },
    SoldOut,
    NotActive(Timestamp),
    Done(&'static str),
}

/// One sale, as its callers know it.
#[derive(Default)]
struct Record {
    /// Who took which place.
    acts: BTreeMap<u64, Act>,
    /// What was told since the last start, with the place of it.
    told: Vec<(Option<Place>, Told)>,
    /// What users were told that they hold, and nobody took away since.
    held: BTreeMap<UserId, OrderId>,
    /// What the trail came to at the last start.
    reckoning: Reckoning,
}

/// All that callers know.
#[derive(Default)]
pub(crate) struct Witness {
    sales: BTreeMap<SaleId, Record>,
    pub(crate) tally: Tally,
}

/// How much was decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Attempts that were answered.
    pub answered: u64,
    /// Of them, purchases.
    pub reserved: u64,
    /// Retries of purchasers.
    pub already: u64,
    /// Rejections because all units were taken.
    pub sold_out: u64,
    /// Rejections outside the window or in a pause.
    pub not_active: u64,
    /// Attempts that got an error, or no answer.
    pub unanswered: u64,
    /// Changes by the shop that were acknowledged.
    pub changes: u64,
    /// Orders that were confirmed, on record.
    pub confirmed: u64,
    /// Starts, each with all checks.
    pub starts: u64,
}

impl Tally {
    /// Adds what `other` counted.
    pub fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.reserved += other.reserved;
        self.already += other.already;
        self.sold_out += other.sold_out;
        self.not_active += other.not_active;
        self.unanswered += other.unanswered;
        self.changes += other.changes;
        self.confirmed += other.confirmed;
        self.starts += other.starts;
    }
}

impl Witness {
    fn record(&mut self, sale: &SaleId) -> &mut Record {
        self.sales.entry(sale.clone()).or_default()
    }

    pub(crate) fn sales(&self) -> Vec<SaleId> {
        self.sales.keys().cloned().collect()
    }

    /// Whether the place `place` is known to be somebody's.
    pub(crate) fn is_taken(&self, sale: &SaleId, place: Place) -> bool {
        self.sales.get(sale).is_some_and(|record| record.acts.contains_key(&place.0))
    }

    /// `act` took the place `place`.
    pub(crate) fn took(&mut self, sale: &SaleId, place: Place, act: Act) -> Checked {
        let record = self.record(sale);
        match &act {
            Act::Reset | Act::Deleted => record.held.clear(),
            Act::Released(order) => record.held.retain(|_, held| held != order),
            _ => {}
        }
        match record.acts.insert(place.0, act) {
            None => Ok(()),
            Some(before) => {
                broken!("P5 one sequence", "place {place} of {sale} was taken twice; before by {before:?}")
            }
        }
    }

    /// Somebody was told how the attempt at `place` was decided, at `at`.
    pub(crate) fn told(
        &mut self,
        sale: &SaleId,
        user: &UserId,
        place: Option<Place>,
        at: Timestamp,
        decision: &Decision,
    ) -> Checked {
        let tally = &mut self.tally;
        tally.answered += 1;
        match decision {
            Decision::Reserved(_) => tally.reserved += 1,
            Decision::AlreadyPurchased(_) => tally.already += 1,
            Decision::SoldOut => tally.sold_out += 1,
            Decision::NotActive => tally.not_active += 1,
        }
        let Some(place) = place else {
            return broken!(
                "P6 everything is on record",
                "{user} was answered {decision:?}, and no place was taken"
            );
        };
        let record = self.record(sale);
        let told = match decision {
            Decision::Reserved(reservation) => {
                if reservation.place != place || reservation.user_id != *user || reservation.sale_id != *sale
                {
                    return broken!("P2 one per user", "{user} was told {reservation:?} at place {place}");
                }
                if let Some(held) = record.held.get(user) {
                    return broken!(
                        "P2 one per user",
                        "{user} holds order {held} of {sale} and was told {decision:?}"
                    );
                }
                if record.still_stands(place, reservation.order_id) {
                    record.held.insert(user.clone(), reservation.order_id);
                }
                Told::Reserved(reservation.clone())
            }
            Decision::AlreadyPurchased(purchase) => {
                record.same_order(sale, user, *purchase)?;
                if record.still_stands(place, purchase.order_id) {
                    record.held.insert(user.clone(), purchase.order_id);
                }
                Told::Held { user: user.clone(), purchase: *purchase }
            }
            Decision::SoldOut => Told::SoldOut,
            Decision::NotActive => Told::NotActive(at),
        };
        record.told.push((Some(place), told));
        Ok(())
    }

    /// Somebody asked what they hold, and was told. `certain` when nothing that could change it was under way.
    pub(crate) fn told_of_purchase(
        &mut self,
        sale: &SaleId,
        user: &UserId,
        purchase: Option<Purchase>,
        since: Place,
    ) -> Checked {
        let record = self.record(sale);
        match purchase {
            Some(purchase) => {
                record.told.push((None, Told::Held { user: user.clone(), purchase }));
                Ok(())
            }
            None => match record.held.get(user) {
                // What was taken after the question may be missing from the answer.
                Some(order) if record.place_of(user) <= since.0 => {
                    broken!(
                        "P3 SUCCESS means recorded",
                        "{user} holds order {order} of {sale} and was told of none"
                    )
                }
                _ => Ok(()),
            },
        }
    }

    /// Somebody was told that a change of the sale is done.
    pub(crate) fn told_done(&mut self, sale: &SaleId, place: Option<Place>, what: &'static str) {
        self.tally.changes += 1;
        if let Some(place) = place {
            self.record(sale).told.push((Some(place), Told::Done(what)));
        }
    }

    /// Holds what was told against what is on record after a start. `events` is the trail after the place that
    /// [`Witness::reckoned`] said. `complete` is the last place where everything should be on record.
    pub(crate) fn audit(
        &mut self,
        sale: &SaleId,
        events: &[AuditEvent],
        last: Place,
        complete: Option<Place>,
    ) -> Checked {
        let record = self.sales.entry(sale.clone()).or_default();
        if let Some(complete) = complete
            && complete != last
        {
            return broken!(
                "P6 everything is on record",
                "{sale} was stopped cleanly at place {complete}, and its record ends at {last}"
            );
        }
        if last.0 < record.reckoning.place {
            return broken!(
                "P3 what is on record stays",
                "the record of {sale} went up to place {} at an earlier start, and now ends at {last}",
                record.reckoning.place
            );
        }
        let confirmed = record.reckon(sale, events, last)?;
        self.tally.confirmed += confirmed;
        for (place, told) in std::mem::take(&mut record.told) {
            record.bear_out(sale, place, &told, last)?;
        }
        record.acts.retain(|place, _| *place <= last.0);
        record.held = record.reckoning.live.iter().map(|(user, live)| (user.clone(), live.order)).collect();
        Ok(())
    }

    /// What a sale's trail came to.
    pub(crate) fn reckoned(&self, sale: &SaleId) -> Option<&Reckoning> {
        self.sales.get(sale).map(|record| &record.reckoning)
    }
}

impl Record {
    /// Whether `order`, held at `place`, was not ended by what came later.
    fn still_stands(&self, place: Place, order: OrderId) -> bool {
        let ends = |act: &Act| match act {
            Act::Reset | Act::Deleted => true,
            Act::Released(released) => *released == order,
            _ => false,
        };
        !self.acts.range(place.0 + 1..).any(|(_, act)| ends(act))
    }

    fn place_of(&self, user: &UserId) -> u64 {
        let is_theirs = |act: &Act| matches!(act, Act::Attempt(by) if by == user);
        self.acts.iter().rev().find(|(_, act)| is_theirs(act)).map_or(u64::MAX, |(place, _)| *place)
    }

    fn same_order(&self, sale: &SaleId, user: &UserId, purchase: Purchase) -> Checked {
        match self.held.get(user) {
            Some(held) if *held != purchase.order_id => broken!(
                "P2 a retry gets the same order",
                "{user} holds order {held} of {sale} and was told {}",
                purchase.order_id
            ),
            _ => Ok(()),
        }
    }

    /// Goes through what is new on record; how many orders it confirms.
    fn reckon(&mut self, sale: &SaleId, events: &[AuditEvent], last: Place) -> Checked<u64> {
        let before = self.reckoning.confirmations;
        let mut attempted: Option<&AuditEvent> = None;
        for event in events {
            if event.event_type == EventType::Attempted {
                attempted = Some(event);
                continue;
            }
            let row = Row::read(sale, event)?;
            self.creations_before(sale, row.place)?;
            let decides = matches!(
                event.event_type,
                EventType::Reserved
                    | EventType::RejectedSoldOut
                    | EventType::RejectedDuplicate
                    | EventType::RejectedNotActive
            );
            let pair = attempted
                .take()
                .is_some_and(|first| first.id + 1 == event.id && first.user_id == event.user_id);
            if decides != pair {
                return broken!(
                    "P6 everything is on record",
                    "{sale}: an attempt and its outcome are apart: {event:?}"
                );
            }
            self.by_whom(sale, &row, decides)?;
            self.reckoning
                .step(&row)
                .map_err(|what| format!("the record adds up: {sale}, {row:?}: {what}"))?;
        }
        self.creations_before(sale, last.0 + 1)?;
        if self.reckoning.place != last.0 {
            return broken!(
                "P6 everything is on record",
                "the record of {sale} should go up to place {last}, and ends at {}",
                self.reckoning.place
            );
        }
        Ok(self.reckoning.confirmations - before)
    }

    /// The making of a sale has a place, and shows in no trail.
    fn creations_before(&mut self, sale: &SaleId, place: u64) -> Checked {
        while self.reckoning.place + 1 < place {
            let gap = self.reckoning.place + 1;
            let Some(Act::Created { total, starts_at, ends_at }) = self.acts.get(&gap) else {
                return broken!("P6 everything is on record", "{sale}: nothing is on record at place {gap}");
            };
            self.reckoning.create(gap, *total, *starts_at, *ends_at);
        }
        Ok(())
    }

    /// A row must be by whoever took its place; where nobody did, it was the worker.
    fn by_whom(&self, sale: &SaleId, row: &Row, decides: bool) -> Checked {
        let fits = match self.acts.get(&row.place) {
            Some(Act::Attempt(user)) => decides && *user == row.user,
            Some(Act::Created { .. }) => false,
            Some(Act::Changed) => row.event == EventType::AdminChanged,
            Some(Act::Reset) => row.event == EventType::AdminReset,
            Some(Act::Deleted) => row.event == EventType::AdminDeleted,
            Some(Act::Released(order)) => {
                matches!(row.event, EventType::Cancelled | EventType::Expired) && row.order == Some(*order)
            }
            None => row.event == EventType::Confirmed,
        };
        if fits {
            return Ok(());
        }
        let by = self.acts.get(&row.place);
        broken!("P6 everything is on record", "{sale}: {row:?} is on record for {by:?}")
    }

    /// Whether what somebody was told is borne out by what is on record up to `last`.
    fn bear_out(&self, sale: &SaleId, place: Option<Place>, told: &Told, last: Place) -> Checked {
        let on_record = place.is_some_and(|place| place <= last);
        let reckoning = &self.reckoning;
        match told {
            Told::Reserved(held) => {
                let found = reckoning.orders.get(&held.order_id);
                if found.is_some_and(|order| {
                    (order.place, &order.user, order.unit, order.epoch)
                        == (held.place.0, &held.user_id, held.unit, held.epoch)
                }) {
                    return Ok(());
                }
                broken!(
                    "P3 SUCCESS means recorded",
                    "{} was told SUCCESS of {sale} with unit {}, order {} at place {}; on record up to place {last}: {found:?}",
                    held.user_id,
                    held.unit,
                    held.order_id,
                    held.place
                )
            }
            Told::Held { user, purchase } => {
                let found = reckoning.orders.get(&purchase.order_id);
                let confirmed = purchase.status == OrderStatus::Confirmed;
                if found.is_some_and(|order| {
                    order.user == *user && order.unit == purchase.unit && (order.confirmed || !confirmed)
                }) {
                    return Ok(());
                }
                broken!(
                    "P3 no reply rests on what is not durable",
                    "{user} was told to hold {purchase:?} of {sale}; on record up to place {last}: {found:?}"
                )
            }
            // On record, it was judged at its place.
            Told::SoldOut if on_record => Ok(()),
            Told::SoldOut if reckoning.is_full() => Ok(()),
            Told::SoldOut => broken!(
                "P5 nobody is told SOLD_OUT before the last unit is taken",
                "at place {place:?} of {sale} somebody was; on record up to place {last} are {} of {} units",
                reckoning.live.len(),
                reckoning.total
            ),
            Told::NotActive(_) if on_record => Ok(()),
            Told::NotActive(at) if !reckoning.is_open(*at) => Ok(()),
            Told::NotActive(at) => {
                broken!(
                    "no reply rests on what is not durable",
                    "NOT_ACTIVE of {sale} at {at} is not true of the record"
                )
            }
            Told::Done(_) if on_record => Ok(()),
            Told::Done(what) => {
                broken!(
                    "a change that is acknowledged is on record",
                    "{what} of {sale} at {place:?} is not: {last}"
                )
            }
        }
    }
}

/// A live order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Live {
    pub(crate) order: OrderId,
    pub(crate) unit: Unit,
    pub(crate) confirmed: bool,
}

/// An order that ever was.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Ever {
    place: u64,
    user: UserId,
    unit: Unit,
    epoch: Epoch,
    confirmed: bool,
}

/// A sale, reckoned up from its trail by the plainest rules.
#[derive(Clone, Default, Debug)]
pub(crate) struct Reckoning {
    pub(crate) exists: bool,
    /// The last place, and the key of its row where it has one.
    pub(crate) place: u64,
    pub(crate) key: i64,
    pub(crate) epoch: u32,
    pub(crate) total: u32,
    starts_at: i64,
    ends_at: i64,
    pub(crate) paused: bool,
    pub(crate) live: BTreeMap<UserId, Live>,
    orders: BTreeMap<OrderId, Ever>,
    pub(crate) confirmations: u64,
}

impl Reckoning {
    fn create(&mut self, place: u64, total: u32, starts_at: Timestamp, ends_at: Timestamp) {
        self.place = place;
        self.exists = true;
        self.epoch += 1;
        self.total = total;
        (self.starts_at, self.ends_at, self.paused) = (starts_at.as_millis(), ends_at.as_millis(), false);
        self.live.clear();
    }

    fn is_open(&self, at: Timestamp) -> bool {
        self.exists && !self.paused && (self.starts_at..self.ends_at).contains(&at.as_millis())
    }

    fn is_full(&self) -> bool {
        self.exists && self.live.len() == self.total as usize
    }

    pub(crate) fn confirmed(&self) -> usize {
        self.live.values().filter(|live| live.confirmed).count()
    }

    fn free_unit(&self) -> Option<Unit> {
        let held: BTreeSet<Unit> = self.live.values().map(|live| live.unit).collect();
        (1..=self.total).map(Unit).find(|unit| !held.contains(unit))
    }

    fn step(&mut self, row: &Row) -> Result<(), &'static str> {
        let holds = |held: bool, what: &'static str| if held { Ok(()) } else { Err(what) };
        (self.place, self.key) = (row.place, row.key);
        holds(self.exists, "there is no such sale then")?;
        let open = self.is_open(row.at);
        let theirs = self.live.get(&row.user);
        let same = theirs.is_some_and(|live| Some(live.order) == row.order && Some(live.unit) == row.unit);
        let epoch = if row.event == EventType::AdminReset { self.epoch + 1 } else { self.epoch };
        holds(row.epoch == epoch, "P7: it is of another epoch")?;
        match row.event {
            EventType::Reserved => {
                holds(open, "the sale is not open then")?;
                holds(theirs.is_none(), "P2: the user holds a unit already")?;
                holds(row.unit.is_some(), "it has no unit")?;
                holds(row.unit == self.free_unit(), "P1: it is not the first unit that is free")?;
                let (Some(order), Some(unit)) = (row.order, row.unit) else { return Err("it has no order") };
                let ever = Ever {
                    place: row.place,
                    user: row.user.clone(),
                    unit,
                    epoch: Epoch(self.epoch),
                    confirmed: false,
                };
                holds(self.orders.insert(order, ever).is_none(), "two orders have one id")?;
                self.live.insert(row.user.clone(), Live { order, unit, confirmed: false });
            }
            EventType::RejectedSoldOut => {
                holds(open, "the sale is not open then")?;
                holds(theirs.is_none(), "the user holds a unit")?;
                holds(self.is_full(), "P5: a unit is free then")?;
            }
            EventType::RejectedDuplicate => {
                holds(open, "the sale is not open then")?;
                holds(same, "the user does not hold that then")?;
            }
            EventType::RejectedNotActive => holds(!open, "the sale is open then")?,
            EventType::Confirmed => {
                holds(same, "P7: there is no such live order to confirm")?;
                let live = self.live.get_mut(&row.user).ok_or("there is no such order")?;
                holds(!live.confirmed, "it is confirmed already")?;
                live.confirmed = true;
                self.orders.get_mut(&live.order).ok_or("there is no such order")?.confirmed = true;
                self.confirmations += 1;
            }
            EventType::Cancelled | EventType::Expired => {
                holds(same, "there is no such live order to release")?;
                self.live.remove(&row.user);
            }
            EventType::AdminChanged => self.change(row)?,
            EventType::AdminReset => {
                self.epoch += 1;
                self.live.clear();
            }
            EventType::AdminDeleted => {
                holds(self.live.is_empty(), "the sale has orders")?;
                self.exists = false;
            }
            _ => return Err("it does not belong here"),
        }
        Ok(())
    }

    fn change(&mut self, row: &Row) -> Result<(), &'static str> {
        let (total, starts_at, ends_at, paused) = row.set_up.ok_or("it does not say what the sale is now")?;
        if self.live.values().any(|live| live.unit.0 > total) {
            return Err("P1: a unit above the new stock is held");
        }
        (self.total, self.starts_at, self.ends_at, self.paused) = (total, starts_at, ends_at, paused);
        Ok(())
    }
}

/// A row of the trail.
#[derive(Clone, Debug)]
struct Row {
    place: u64,
    key: i64,
    event: EventType,
    epoch: u32,
    at: Timestamp,
    user: UserId,
    unit: Option<Unit>,
    order: Option<OrderId>,
    /// Total stock, start, end, paused: after a change.
    set_up: Option<(u32, i64, i64, bool)>,
}

impl Row {
    fn read(sale: &SaleId, event: &AuditEvent) -> Checked<Self> {
        let unreadable = || format!("the record can be read: {sale}: {event:?}");
        let detail: Value = serde_json::from_str(&event.metadata).map_err(|_| unreadable())?;
        let number = |name: &str| detail.get(name).and_then(Value::as_u64);
        let small = |name: &str| number(name).and_then(|number| u32::try_from(number).ok());
        let text = |name: &str| detail.get(name).and_then(Value::as_str);
        let moment = |name: &str| text(name)?.parse::<Timestamp>().ok().map(Timestamp::as_millis);
        let set_up = small("totalStock").and_then(|total| {
            Some((total, moment("startsAt")?, moment("endsAt")?, detail.get("paused")?.as_bool()?))
        });
        Ok(Self {
            place: number("place").ok_or_else(unreadable)?,
            key: event.id / 2,
            event: event.event_type,
            epoch: small("epoch").ok_or_else(unreadable)?,
            at: event.created_at,
            user: event.user_id.clone(),
            unit: small("unit").map(Unit),
            order: text("orderId").and_then(|id| id.parse().ok()),
            set_up,
        })
    }
}
