//! The sold-out latch: once a sale is sold out, a replica rejects from memory.
//!
//! Why that is right. A latch is made from a state of Redis in which no unit was free, and from all purchasers at the time:
//! the state is read before and after them, and if both name the same last event (`changed`), nothing was reserved,
//! released, changed or reset between. As long as `changed` stays what it is, a call would answer SOLD_OUT to whoever is
//! no purchaser, which is what the latch answers, and the rejection rests on that very event (ADR 0010).
//! Purchasers are not answered from memory: they go to Redis, which knows how far their order is.
//!
//! When `changed` moves, Redis publishes it and the latch is dropped. That message can be lost, so each latch is compared
//! with Redis every [`RECHECK`], and one that could not be compared for [`VALID`] answers nothing. A released unit is
//! thus offered by every replica after `VALID` at the latest. The window's end is judged by Redis' clock, which the
//! comparison brings along.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use flashsale_core::{
    clock::Timestamp,
    ids::{Epoch, Place, UserId},
};
use parking_lot::Mutex;

use crate::{audit::Rejection, stock::State, store::kind};

/// How often a latch is compared with Redis.
pub(crate) const RECHECK: Duration = Duration::from_millis(200);
/// How long it answers after the last comparison.
pub(crate) const VALID: Duration = Duration::from_secs(1);

/// A sale that is sold out, as of an event.
#[derive(Debug)]
pub(crate) struct Latch {
    pub(crate) generation: u32,
    pub(crate) epoch: Epoch,
    pub(crate) no: i32,
    /// The event that rejections rest on.
    pub(crate) changed: Place,
    ends_at: Timestamp,
    /// Hashes of the purchasers: a stranger with the same hash is asked about in Redis, which is right as well.
    purchasers: HashSet<u64>,
    hasher: RandomState,
    compared: Mutex<Compared>,
}

/// When the latch was last compared, by both clocks.
#[derive(Clone, Copy, Debug)]
struct Compared {
    here: Instant,
    there: Timestamp,
}

impl Latch {
    /// A latch from the state before and after its purchasers were read, if it may be one.
    pub(crate) fn new<'a>(
        before: &State,
        after: &State,
        purchasers: impl Iterator<Item = &'a str>,
        here: Instant,
    ) -> Option<Self> {
        let hasher = RandomState::new();
        let latch = Self {
            generation: before.generation,
            epoch: before.sale.epoch,
            no: before.no,
            changed: before.changed,
            ends_at: before.sale.window.ends_at(),
            purchasers: purchasers.map(|user| hasher.hash_one(user)).collect(),
            hasher,
            compared: Mutex::new(Compared { here, there: before.now }),
        };
        (latch.agrees(before) && latch.agrees(after)).then_some(latch)
    }

    /// Whether a state of Redis still says what the latch says.
    fn agrees(&self, state: &State) -> bool {
        state.available == 0
            && !state.closed
            && !state.sale.paused
            && state.now >= state.sale.window.starts_at()
            && state.now < state.sale.window.ends_at()
            && (state.generation, state.sale.epoch, state.changed)
                == (self.generation, self.epoch, self.changed)
    }

    /// Compares; `here` is when the state was asked for. Whether the latch may stay.
    pub(crate) fn compare(&self, state: &State, here: Instant) -> bool {
        let agrees = self.agrees(state);
        if agrees {
            *self.compared.lock() = Compared { here, there: state.now };
        }
        agrees
    }

    /// The moment of a rejection of `user` by Redis' clock; `None` where Redis has to be asked.
    pub(crate) fn rejects(&self, user: &UserId, here: Instant) -> Option<Timestamp> {
        let compared = *self.compared.lock();
        let since = here.saturating_duration_since(compared.here);
        let now = compared.there.after(since);
        let known = since < VALID && now < self.ends_at;
        (known && !self.purchasers.contains(&self.hasher.hash_one(user.as_str()))).then_some(now)
    }

    /// The rejection of `user`, as it is recorded; `None` where Redis has to be asked.
    pub(crate) fn rejection(&self, user: &UserId, here: Instant) -> Option<Rejection> {
        let at = self.rejects(user, here)?;
        Some(Rejection {
            sale_no: self.no,
            kind: kind::REJECTED_SOLD_OUT,
            epoch: self.epoch,
            place: self.changed,
            at,
            user_id: user.clone(),
            held: None,
            number: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use flashsale_core::{
        ids::Unit,
        sale::{NewSale, Window},
    };

    use super::*;
    use crate::stock::place;

    const NOW: i64 = 1_771_815_600_000;

    fn sold_out(changed: u64) -> State {
        let at = |seconds: i64| Timestamp::from_millis(NOW + 1_000 * seconds);
        let window = Window::new(at(-10), at(10)).unwrap();
        let sale =
            NewSale::new("sale_1".parse().unwrap(), "Sale".to_owned(), 1, window).unwrap().open(Epoch(1));
        State {
            generation: 1,
            now: at(0),
            changed: place(1, changed),
            no: 1,
            sale,
            available: 0,
            confirmed: 0,
            next: Unit(2),
            place: place(1, changed),
            closed: false,
        }
    }

    fn latch(here: Instant) -> Latch {
        Latch::new(&sold_out(5), &sold_out(5), ["ada"].into_iter(), here).expect("a latch")
    }

    fn user(name: &str) -> UserId {
        name.parse().unwrap()
    }

    #[test]
    fn it_rejects_strangers_and_sends_purchasers_to_redis() {
        let here = Instant::now();
        let latch = latch(here);
        assert_eq!(latch.rejects(&user("bob"), here), Some(Timestamp::from_millis(NOW)));
        assert_eq!(latch.rejects(&user("ada"), here), None);
    }

    #[test]
    fn it_answers_nothing_when_it_was_not_compared_for_long_or_the_window_is_over() {
        let here = Instant::now();
        let latch = latch(here);
        assert!(latch.rejects(&user("bob"), here + VALID - Duration::from_millis(1)).is_some());
        assert!(latch.rejects(&user("bob"), here + VALID).is_none());
        let mut later = sold_out(5);
        later.now = Timestamp::from_millis(NOW + 9_999);
        assert!(latch.compare(&later, here + VALID));
        assert!(latch.rejects(&user("bob"), here + VALID).is_some());
        assert!(
            latch.rejects(&user("bob"), here + VALID + Duration::from_millis(1)).is_none(),
            "it has ended"
        );
    }

    #[test]
    fn whatever_may_have_given_a_unit_back_keeps_it_from_being_made_and_from_staying() {
        let here = Instant::now();
        type Change = fn(&mut State);
        let changes: [(&str, Change); 7] = [
            ("a release, or a change", |state| state.changed = place(1, 6)),
            ("a unit that is free", |state| state.available = 1),
            ("a reset", |state| state.sale.epoch = Epoch(2)),
            ("a recovery", |state| state.generation = 2),
            ("a closed gate", |state| state.closed = true),
            ("a pause", |state| state.sale.paused = true),
            ("its end", |state| state.now = state.sale.window.ends_at()),
        ];
        for (what, change) in changes {
            let mut other = sold_out(5);
            change(&mut other);
            assert!(!latch(here).compare(&other, here), "{what}");
            assert!(Latch::new(&sold_out(5), &other, [].into_iter(), here).is_none(), "{what} meanwhile");
        }
    }
}
