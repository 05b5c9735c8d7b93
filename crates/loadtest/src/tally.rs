//! What is remembered of the attempts: counters, latencies, and what the verdict needs of each purchase.
//!
//! Bounded: a success costs about 100 bytes, a user who was told ALREADY_PURCHASED about as much; of either, 10
//! million are kept (`MOST_RECORDS`), and beyond that only the counters move, which the report says.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::reply::Outcome;

/// The most purchases, and the most ALREADY_PURCHASED users, that a run remembers one by one.
const MOST_RECORDS: usize = 10_000_000;
/// Tallies that buyers enter attempts in, so that they do not wait for one lock.
const DESKS: usize = 4;
/// The longest latency that is told apart: 10 minutes, in microseconds.
const LONGEST_MICROS: u64 = 600_000_000;
/// The most distinct reasons of failures.
const MOST_REASONS: usize = 8;
/// Where the reasons beyond those go.
const OTHER_REASONS: &str = "other reasons";

/// One attempt, over.
pub(crate) struct Entry<'a> {
    pub(crate) user: u64,
    /// What its latency counts from.
    pub(crate) since: Instant,
    pub(crate) sent: Instant,
    pub(crate) completed: Instant,
    pub(crate) outcome: Outcome<'a>,
}

/// A SUCCESS: who, and the order id if the reply had one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Purchase {
    pub(crate) user: u64,
    pub(crate) order: Option<Box<str>>,
}

/// How many attempts had which outcome.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) success: u64,
    pub(crate) already_purchased: u64,
    pub(crate) sold_out: u64,
    pub(crate) not_active: u64,
    pub(crate) refused: u64,
    pub(crate) failed: u64,
}

impl Counts {
    pub(crate) fn total(&self) -> u64 {
        self.success + self.already_purchased + self.sold_out + self.not_active + self.refused + self.failed
    }
}

/// Everything that is remembered of a run's attempts.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    /// Microseconds; of every attempt, failed ones included.
    pub(crate) latency: Histogram<u64>,
    pub(crate) purchases: Vec<Purchase>,
    /// The order id that each user who was told ALREADY_PURCHASED was shown, if any.
    pub(crate) claims: HashMap<u64, Option<Box<str>>>,
    /// A user who was shown different order ids with ALREADY_PURCHASED.
    pub(crate) torn_claim: Option<u64>,
    /// Purchases and claims beyond what is kept.
    pub(crate) unrecorded: u64,
    /// When the first SOLD_OUT had arrived.
    pub(crate) first_sold_out: Option<Instant>,
    /// When the last attempt that became a SUCCESS was sent.
    pub(crate) last_success_sent: Option<Instant>,
    /// Why attempts failed, in order of appearance.
    pub(crate) reasons: Vec<(String, u64)>,
    last_answer: Option<Instant>,
}

impl Tally {
    pub(crate) fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST_MICROS, 3)
            .expect("1 to 10 minutes of microseconds at 3 digits are valid bounds");
        Self {
            counts: Counts::default(),
            latency,
            purchases: Vec::new(),
            claims: HashMap::new(),
            torn_claim: None,
            unrecorded: 0,
            first_sold_out: None,
            last_success_sent: None,
            reasons: Vec::new(),
            last_answer: None,
        }
    }

    /// When the last attempt was answered or given up.
    pub(crate) fn last_answer(&self) -> Option<Instant> {
        self.last_answer
    }

    pub(crate) fn enter(&mut self, entry: Entry<'_>) {
        let Entry { user, since, sent, completed, outcome } = entry;
        self.latency.saturating_record(micros(completed.saturating_duration_since(since)));
        self.last_answer = self.last_answer.max(Some(completed));
        match outcome {
            Outcome::Success(order) => {
                self.counts.success += 1;
                self.last_success_sent = self.last_success_sent.max(Some(sent));
                self.purchase(Purchase { user, order: order.map(boxed) });
            }
            Outcome::AlreadyPurchased(order) => {
                self.counts.already_purchased += 1;
                self.claim(user, order);
            }
            Outcome::SoldOut => {
                self.counts.sold_out += 1;
                self.first_sold_out = earlier(self.first_sold_out, Some(completed));
            }
            Outcome::NotActive => self.counts.not_active += 1,
            Outcome::Refused => self.counts.refused += 1,
            Outcome::Failed(reason) => {
                self.counts.failed += 1;
                self.reason(reason, 1);
            }
        }
    }

    /// Adds all that another tally remembers.
    pub(crate) fn add(&mut self, other: Self) {
        let (mine, theirs) = (&mut self.counts, other.counts);
        mine.success += theirs.success;
        mine.already_purchased += theirs.already_purchased;
        mine.sold_out += theirs.sold_out;
        mine.not_active += theirs.not_active;
        mine.refused += theirs.refused;
        mine.failed += theirs.failed;
        self.latency.add(&other.latency).expect("all tallies have the same bounds");
        self.unrecorded += other.unrecorded;
        self.torn_claim = self.torn_claim.or(other.torn_claim);
        self.first_sold_out = earlier(self.first_sold_out, other.first_sold_out);
        self.last_success_sent = self.last_success_sent.max(other.last_success_sent);
        self.last_answer = self.last_answer.max(other.last_answer);
        for purchase in other.purchases {
            self.purchase(purchase);
        }
        for (user, order) in other.claims {
            self.claim(user, order.map(|id| String::from(id).into()));
        }
        for (reason, count) in other.reasons {
            self.reason(reason, count);
        }
    }

    fn purchase(&mut self, purchase: Purchase) {
        if self.purchases.len() < MOST_RECORDS {
            self.purchases.push(purchase);
        } else {
            self.unrecorded += 1;
        }
    }

    fn claim(&mut self, user: u64, order: Option<Cow<'_, str>>) {
        let full = self.claims.len() >= MOST_RECORDS;
        match self.claims.entry(user) {
            Slot::Occupied(slot) if slot.get().as_deref() != order.as_deref() => self.torn_claim = Some(user),
            Slot::Occupied(_) => {}
            Slot::Vacant(_) if full => self.unrecorded += 1,
            Slot::Vacant(slot) => {
                slot.insert(order.map(boxed));
            }
        }
    }

    fn reason(&mut self, reason: String, count: u64) {
        let known = self.reasons.iter().position(|(known, _)| *known == reason);
        let room = self.reasons.len() < MOST_REASONS;
        match known {
            Some(at) => self.reasons[at].1 += count,
            None if room || reason == OTHER_REASONS => self.reasons.push((reason, count)),
            None => self.reason(OTHER_REASONS.to_owned(), count),
        }
    }
}

fn boxed(order: Cow<'_, str>) -> Box<str> {
    order.into_owned().into_boxed_str()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// The tallies of a run while it is under way.
pub(crate) struct Tallies {
    desks: [Mutex<Tally>; DESKS],
    entered: AtomicU64,
}

impl Tallies {
    pub(crate) fn new() -> Self {
        Self { desks: std::array::from_fn(|_| Mutex::new(Tally::new())), entered: AtomicU64::new(0) }
    }

    /// Enters an attempt at a desk; any number will do.
    pub(crate) fn enter(&self, desk: usize, entry: Entry<'_>) {
        self.entered.fetch_add(1, Ordering::Relaxed);
        // A panic elsewhere does not make the figures wrong that were entered before it.
        self.desks[desk % DESKS].lock().unwrap_or_else(PoisonError::into_inner).enter(entry);
    }

    /// How many attempts are over.
    pub(crate) fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    /// Takes all that was entered so far.
    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::new();
        for desk in &self.desks {
            let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
            total.add(std::mem::replace(&mut *desk, Tally::new()));
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(user: u64, start: Instant, outcome: Outcome<'_>) -> Entry<'_> {
        let (sent, completed) = (start + Duration::from_millis(1), start + Duration::from_millis(5));
        Entry { user, since: start, sent, completed, outcome }
    }

    #[test]
    fn every_outcome_is_counted_once_wherever_it_is_entered() {
        let (tallies, start) = (Tallies::new(), Instant::now());
        let later = start + Duration::from_secs(1);
        tallies.enter(0, entry(0, start, Outcome::Success(Some("o-0".into()))));
        tallies.enter(1, entry(1, later, Outcome::Success(None)));
        tallies.enter(2, entry(0, later, Outcome::AlreadyPurchased(Some("o-0".into()))));
        tallies.enter(3, entry(2, later, Outcome::SoldOut));
        tallies.enter(4, entry(3, start, Outcome::SoldOut));
        tallies.enter(5, entry(4, start, Outcome::NotActive));
        tallies.enter(6, entry(5, start, Outcome::Refused));
        tallies.enter(7, entry(6, start, Outcome::Failed("why".into())));
        assert_eq!(tallies.entered(), 8);

        let tally = tallies.total();
        let counts = tally.counts;
        assert_eq!((counts.success, counts.already_purchased, counts.sold_out), (2, 1, 2));
        assert_eq!((counts.not_active, counts.refused, counts.failed, counts.total()), (1, 1, 1, 8));
        assert_eq!(tally.purchases.len(), 2);
        assert_eq!(tally.claims[&0].as_deref(), Some("o-0"));
        assert_eq!(tally.first_sold_out, Some(start + Duration::from_millis(5)));
        assert_eq!(tally.last_success_sent, Some(later + Duration::from_millis(1)));
        assert_eq!(tally.last_answer(), Some(later + Duration::from_millis(5)));
        assert_eq!(tally.reasons, [("why".to_owned(), 1)]);
        assert_eq!(tally.latency.len(), 8);
    }

    #[test]
    fn a_user_who_is_shown_two_orders_is_noticed_at_one_desk_and_across_desks() {
        for other_desk in [0, 1] {
            let (tallies, start) = (Tallies::new(), Instant::now());
            tallies.enter(0, entry(7, start, Outcome::AlreadyPurchased(Some("o-1".into()))));
            tallies.enter(other_desk, entry(7, start, Outcome::AlreadyPurchased(Some("o-2".into()))));
            assert_eq!(tallies.total().torn_claim, Some(7), "desk {other_desk}");
        }
    }

    #[test]
    fn reasons_are_bounded_and_no_failure_is_lost() {
        let (tallies, start) = (Tallies::new(), Instant::now());
        for i in 0..100 {
            tallies.enter(i, entry(0, start, Outcome::Failed(format!("reason {i}"))));
        }
        let reasons = tallies.total().reasons;
        assert!(reasons.len() <= MOST_REASONS + 1, "{reasons:?}");
        assert_eq!(reasons.iter().map(|(_, count)| count).sum::<u64>(), 100);
    }

    #[test]
    fn a_latency_beyond_ten_minutes_counts_as_ten_minutes() {
        let (mut tally, start) = (Tally::new(), Instant::now());
        let completed = start + Duration::from_secs(3_600);
        tally.enter(Entry { user: 0, since: start, sent: start, completed, outcome: Outcome::SoldOut });
        assert!(tally.latency.max().abs_diff(LONGEST_MICROS) < LONGEST_MICROS / 500);
    }
}
