//! What is remembered of the attempts: counters, latencies, and what the verdict needs of each purchase.
//!
//! Bounded: a success costs about 100 bytes, a user who was told ALREADY_PURCHASED about as much; where users come
//! again, one who was turned away or got no answer about 50. Of each kind, 10 million are kept (`MOST_RECORDS`), and
//! beyond that only the counters move, which the report says.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::reasons::{Reason, Reasons};
use crate::reply::Outcome;

/// The most purchases, and the most users of each other kind, that a run remembers one by one.
const MOST_RECORDS: usize = 10_000_000;
/// Tallies that buyers enter attempts in, so that they do not wait for one lock.
const DESKS: usize = 4;
/// The longest latency that is told apart: 10 minutes, in microseconds.
const LONGEST_MICROS: u64 = 600_000_000;

/// One attempt, over.
pub(crate) struct Entry<'a> {
    pub(crate) user: u64,
    /// What its latency counts from.
    pub(crate) since: Instant,
    pub(crate) sent: Instant,
    pub(crate) completed: Instant,
    pub(crate) outcome: Outcome<'a>,
}

/// Why an attempt was never sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Unsent {
    /// All connections were busy for too long.
    NoFreeConnection,
    /// This machine opens no more files.
    OutOfFiles,
}

/// A SUCCESS.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Purchase {
    pub(crate) user: u64,
    /// If the reply had one.
    pub(crate) order: Option<Box<str>>,
    pub(crate) sent: Instant,
    /// When the reply had arrived.
    pub(crate) told: Instant,
}

/// What a user was told to hold from before: ALREADY_PURCHASED, or a closed sale with an order id.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Claim {
    /// If the reply had one.
    pub(crate) order: Option<Box<str>>,
    /// When the first such reply had arrived.
    pub(crate) told: Instant,
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
    /// Never sent, since all connections were busy.
    pub(crate) crowded_out: u64,
    /// Never sent, for want of open files.
    pub(crate) out_of_files: u64,
}

impl Counts {
    /// Those that the server decided.
    pub(crate) fn decided(&self) -> u64 {
        self.success + self.already_purchased + self.sold_out + self.not_active
    }

    /// Those that got an answer that counts.
    pub(crate) fn answered(&self) -> u64 {
        self.decided() + self.refused
    }

    /// Those that were sent, or would have been but for the server, which could not be reached.
    pub(crate) fn sent(&self) -> u64 {
        self.answered() + self.failed
    }

    pub(crate) fn never_sent(&self) -> u64 {
        self.crowded_out + self.out_of_files
    }

    pub(crate) fn total(&self) -> u64 {
        self.sent() + self.never_sent()
    }

    fn add(&mut self, other: Self) {
        self.success += other.success;
        self.already_purchased += other.already_purchased;
        self.sold_out += other.sold_out;
        self.not_active += other.not_active;
        self.refused += other.refused;
        self.failed += other.failed;
        self.crowded_out += other.crowded_out;
        self.out_of_files += other.out_of_files;
    }
}

/// Everything that is remembered of a run's attempts.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    /// Microseconds; of every attempt that got an answer that counts.
    pub(crate) latency: Histogram<u64>,
    pub(crate) purchases: Vec<Purchase>,
    /// By user.
    pub(crate) claims: HashMap<u64, Claim>,
    /// A user who was shown different order ids as the one that they hold.
    pub(crate) torn_claim: Option<u64>,
    /// When the last attempt was sent that turned the user away as somebody who holds nothing. Only where users come
    /// again: else it proves nothing.
    pub(crate) turned_away: HashMap<u64, Instant>,
    /// When the first attempt was due that may have bought without saying so: lost, or refused on the way. Only where
    /// users come again.
    pub(crate) in_doubt: HashMap<u64, Instant>,
    /// Users that are not in one of these lists, since it was full.
    pub(crate) unrecorded: u64,
    /// When the first SOLD_OUT had arrived.
    pub(crate) first_sold_out: Option<Instant>,
    /// When the last attempt that became a SUCCESS was sent.
    pub(crate) last_success_sent: Option<Instant>,
    /// Why attempts failed.
    pub(crate) reasons: Reasons,
    last_over: Option<Instant>,
    users_come_again: bool,
}

impl Tally {
    pub(crate) fn new(users_come_again: bool) -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST_MICROS, 3)
            .expect("1 to 10 minutes of microseconds at 3 digits are valid bounds");
        Self {
            counts: Counts::default(),
            latency,
            purchases: Vec::new(),
            claims: HashMap::new(),
            torn_claim: None,
            turned_away: HashMap::new(),
            in_doubt: HashMap::new(),
            unrecorded: 0,
            first_sold_out: None,
            last_success_sent: None,
            reasons: Reasons::default(),
            last_over: None,
            users_come_again,
        }
    }

    /// When the last attempt was answered or given up.
    pub(crate) fn last_over(&self) -> Option<Instant> {
        self.last_over
    }

    pub(crate) fn enter(&mut self, entry: Entry<'_>) {
        let Entry { user, since, sent, completed, outcome } = entry;
        self.last_over = self.last_over.max(Some(completed));
        if !matches!(outcome, Outcome::Failed(_)) {
            self.latency.saturating_record(micros(completed.saturating_duration_since(since)));
        }
        match outcome {
            Outcome::Success(order) => {
                self.counts.success += 1;
                self.last_success_sent = self.last_success_sent.max(Some(sent));
                self.purchase(Purchase { user, order: order.map(boxed), sent, told: completed });
            }
            Outcome::AlreadyPurchased(order) => {
                self.counts.already_purchased += 1;
                self.claim(user, Claim { order: order.map(boxed), told: completed });
            }
            Outcome::SoldOut => {
                self.counts.sold_out += 1;
                self.first_sold_out = earlier(self.first_sold_out, Some(completed));
                self.turn_away(user, sent);
            }
            Outcome::NotActive(order) => {
                self.counts.not_active += 1;
                match order.map(boxed) {
                    None => self.turn_away(user, sent),
                    order => self.claim(user, Claim { order, told: completed }),
                }
            }
            Outcome::Refused => {
                self.counts.refused += 1;
                self.doubt(user, since);
            }
            Outcome::Failed(reason) => {
                self.counts.failed += 1;
                self.reasons.add(Reason::new(reason, 1));
                self.doubt(user, since);
            }
        }
    }

    fn skip(&mut self, why: Unsent, now: Instant) {
        self.last_over = self.last_over.max(Some(now));
        match why {
            Unsent::NoFreeConnection => self.counts.crowded_out += 1,
            Unsent::OutOfFiles => self.counts.out_of_files += 1,
        }
    }

    /// Adds all that another tally remembers.
    pub(crate) fn add(&mut self, other: Self) {
        self.counts.add(other.counts);
        self.latency.add(&other.latency).expect("all tallies have the same bounds");
        self.unrecorded += other.unrecorded;
        self.torn_claim = self.torn_claim.or(other.torn_claim);
        self.first_sold_out = earlier(self.first_sold_out, other.first_sold_out);
        self.last_success_sent = self.last_success_sent.max(other.last_success_sent);
        self.last_over = self.last_over.max(other.last_over);
        for purchase in other.purchases {
            self.purchase(purchase);
        }
        for (user, claim) in other.claims {
            self.claim(user, claim);
        }
        for (user, sent) in other.turned_away {
            self.turn_away(user, sent);
        }
        for (user, since) in other.in_doubt {
            self.doubt(user, since);
        }
        self.reasons.append(other.reasons);
    }

    fn purchase(&mut self, purchase: Purchase) {
        if self.purchases.len() < MOST_RECORDS {
            self.purchases.push(purchase);
        } else {
            self.unrecorded += 1;
        }
    }

    fn claim(&mut self, user: u64, claim: Claim) {
        let full = self.claims.len() >= MOST_RECORDS;
        match self.claims.entry(user) {
            Slot::Occupied(mut slot) => {
                let known = slot.get_mut();
                if known.order != claim.order {
                    self.torn_claim = Some(user);
                }
                known.told = known.told.min(claim.told);
            }
            Slot::Vacant(_) if full => self.unrecorded += 1,
            Slot::Vacant(slot) => {
                slot.insert(claim);
            }
        }
    }

    fn turn_away(&mut self, user: u64, sent: Instant) {
        if self.users_come_again {
            self.unrecorded += u64::from(!keep(&mut self.turned_away, user, sent, Instant::max));
        }
    }

    fn doubt(&mut self, user: u64, since: Instant) {
        if self.users_come_again {
            self.unrecorded += u64::from(!keep(&mut self.in_doubt, user, since, Instant::min));
        }
    }
}

/// Keeps one of a user's instants; says whether there was room.
fn keep(
    instants: &mut HashMap<u64, Instant>,
    user: u64,
    at: Instant,
    choose: fn(Instant, Instant) -> Instant,
) -> bool {
    let room = instants.len() < MOST_RECORDS;
    match instants.entry(user) {
        Slot::Occupied(mut slot) => *slot.get_mut() = choose(*slot.get(), at),
        Slot::Vacant(slot) if room => {
            slot.insert(at);
        }
        Slot::Vacant(_) => return false,
    }
    true
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
    users_come_again: bool,
}

impl Tallies {
    pub(crate) fn new(users_come_again: bool) -> Self {
        let desks = std::array::from_fn(|_| Mutex::new(Tally::new(users_come_again)));
        Self { desks, entered: AtomicU64::new(0), users_come_again }
    }

    /// Enters an attempt at a desk; any number will do.
    pub(crate) fn enter(&self, desk: usize, entry: Entry<'_>) {
        self.at(desk).enter(entry);
    }

    /// Enters an attempt that was never sent.
    pub(crate) fn skip(&self, desk: usize, why: Unsent) {
        self.at(desk).skip(why, Instant::now());
    }

    fn at(&self, desk: usize) -> MutexGuard<'_, Tally> {
        self.entered.fetch_add(1, Ordering::Relaxed);
        // A panic elsewhere does not make the figures wrong that were entered before it.
        self.desks[desk % DESKS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many attempts are over.
    pub(crate) fn entered(&self) -> u64 {
        self.entered.load(Ordering::Relaxed)
    }

    /// Takes all that was entered so far.
    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::new(self.users_come_again);
        for desk in &self.desks {
            let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
            total.add(std::mem::replace(&mut *desk, Tally::new(self.users_come_again)));
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
        let (tallies, start) = (Tallies::new(false), Instant::now());
        let later = start + Duration::from_secs(1);
        tallies.enter(0, entry(0, start, Outcome::Success(Some("o-0".into()))));
        tallies.enter(1, entry(1, later, Outcome::Success(None)));
        tallies.enter(2, entry(0, later, Outcome::AlreadyPurchased(Some("o-0".into()))));
        tallies.enter(3, entry(2, later, Outcome::SoldOut));
        tallies.enter(4, entry(3, start, Outcome::SoldOut));
        tallies.enter(5, entry(4, start, Outcome::NotActive(None)));
        tallies.enter(6, entry(5, start, Outcome::Refused));
        tallies.enter(7, entry(6, start, Outcome::Failed("why".into())));
        tallies.skip(8, Unsent::NoFreeConnection);
        tallies.skip(9, Unsent::OutOfFiles);
        assert_eq!(tallies.entered(), 10);

        let tally = tallies.total();
        let counts = tally.counts;
        assert_eq!((counts.success, counts.already_purchased, counts.sold_out), (2, 1, 2));
        assert_eq!((counts.not_active, counts.refused, counts.failed), (1, 1, 1));
        assert_eq!((counts.crowded_out, counts.out_of_files), (1, 1));
        assert_eq!((counts.decided(), counts.answered(), counts.sent(), counts.total()), (6, 7, 8, 10));
        assert_eq!(tally.purchases.len(), 2);
        assert_eq!(tally.claims[&0].order.as_deref(), Some("o-0"));
        assert_eq!(tally.first_sold_out, Some(start + Duration::from_millis(5)));
        assert_eq!(tally.last_success_sent, Some(later + Duration::from_millis(1)));
        assert!(tally.last_over() >= Some(later + Duration::from_millis(5)));
        assert_eq!(tally.reasons.iter().collect::<Vec<_>>(), [&Reason::new("why", 1)]);
        assert_eq!(tally.latency.len(), 7, "how long a failure took is not a response time");
    }

    #[test]
    fn where_users_come_again_the_first_doubt_and_the_last_rejection_count() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let sent = |start: Instant| start + Duration::from_millis(1);
        for (come_again, turned_away, in_doubt) in
            [(true, Some(sent(later)), Some(start)), (false, None, None)]
        {
            let tallies = Tallies::new(come_again);
            tallies.enter(0, entry(1, later, Outcome::SoldOut));
            tallies.enter(1, entry(1, start, Outcome::NotActive(None)));
            tallies.enter(2, entry(2, later, Outcome::Failed("lost".into())));
            tallies.enter(3, entry(2, start, Outcome::Refused));
            let tally = tallies.total();
            assert_eq!(tally.turned_away.get(&1).copied(), turned_away);
            assert_eq!(tally.in_doubt.get(&2).copied(), in_doubt);
        }
    }

    #[test]
    fn a_closed_sale_with_an_order_id_says_what_the_user_holds() {
        let (mut tally, start) = (Tally::new(true), Instant::now());
        tally.enter(entry(1, start, Outcome::NotActive(Some("o-1".into()))));
        assert_eq!(tally.claims[&1].order.as_deref(), Some("o-1"));
        assert!(tally.turned_away.is_empty());
    }

    #[test]
    fn a_user_who_is_shown_two_orders_is_noticed_at_one_desk_and_across_desks() {
        for other_desk in [0, 1] {
            let (tallies, start) = (Tallies::new(false), Instant::now());
            tallies.enter(0, entry(7, start, Outcome::AlreadyPurchased(Some("o-1".into()))));
            tallies.enter(other_desk, entry(7, start, Outcome::AlreadyPurchased(Some("o-2".into()))));
            assert_eq!(tallies.total().torn_claim, Some(7), "desk {other_desk}");
        }
    }

    #[test]
    fn a_latency_beyond_ten_minutes_counts_as_ten_minutes() {
        let (mut tally, start) = (Tally::new(false), Instant::now());
        let completed = start + Duration::from_secs(3_600);
        tally.enter(Entry { user: 0, since: start, sent: start, completed, outcome: Outcome::SoldOut });
        assert!(tally.latency.max().abs_diff(LONGEST_MICROS) < LONGEST_MICROS / 500);
    }
}
