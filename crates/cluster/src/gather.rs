//! Micro-batches: what arrives for a sale while a call is under way goes into the next one.
//!
//! There is no timer, so an attempt that comes alone leaves alone and at once. Calls of a sale follow each other, so
//! the order of arrival is the order of decision on this replica.

use flashsale_core::{Error, Result, ids::UserId, inventory::Decision};
use parking_lot::Mutex;
use std::{
    mem,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

use crate::message::RESERVATIONS_MAX;

/// The most attempts in one call, and so reservations in its message.
pub(crate) const CALL_MAX: usize = RESERVATIONS_MAX;
/// The most attempts of a sale that wait for a call; further ones are told to come again.
const WAITING_MAX: usize = 16_384;

/// An attempt that waits for its decision.
pub(crate) struct Waiting {
    pub(crate) user: UserId,
    pub(crate) since: Instant,
    pub(crate) reply: oneshot::Sender<Result<Decision>>,
}

/// The attempts of a sale that wait.
#[derive(Default)]
pub(crate) struct Gather(Mutex<Gathered>);

#[derive(Default)]
struct Gathered {
    waiting: Vec<Waiting>,
    /// Whether somebody takes calls from here.
    under_way: bool,
}

/// Where the decision of an attempt arrives, and whether whoever asked has to start the calls.
pub(crate) struct Ticket {
    pub(crate) decision: oneshot::Receiver<Result<Decision>>,
    pub(crate) starts: bool,
}

impl Gather {
    /// Adds an attempt.
    pub(crate) fn add(&self, user: UserId) -> Result<Ticket> {
        let mut gathered = self.0.lock();
        if gathered.waiting.len() >= WAITING_MAX {
            return Err(Error::Busy { retry_after: Duration::from_secs(1) });
        }
        let (reply, decision) = oneshot::channel();
        gathered.waiting.push(Waiting { user, since: Instant::now(), reply });
        let starts = !mem::replace(&mut gathered.under_way, true);
        Ok(Ticket { decision, starts })
    }

    /// The next call; empty when nobody waits, and then it ends here.
    pub(crate) fn next(&self) -> Vec<Waiting> {
        let mut gathered = self.0.lock();
        if gathered.waiting.is_empty() {
            gathered.under_way = false;
            return Vec::new();
        }
        if gathered.waiting.len() <= CALL_MAX {
            return mem::take(&mut gathered.waiting);
        }
        let rest = gathered.waiting.split_off(CALL_MAX);
        mem::replace(&mut gathered.waiting, rest)
    }

    /// Those who wait and have done so for `patience`; they were the first to come.
    pub(crate) fn overdue(&self, patience: Duration) -> Vec<Waiting> {
        let mut gathered = self.0.lock();
        let overdue = gathered.waiting.partition_point(|one| one.since.elapsed() >= patience);
        gathered.waiting.drain(..overdue).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> UserId {
        format!("user-{number}").parse().unwrap()
    }

    #[test]
    fn the_first_starts_and_the_others_ride_along_in_order_up_to_the_bound_of_a_call() {
        let gather = Gather::default();
        let starts: Vec<bool> = (0..300).map(|number| gather.add(user(number)).unwrap().starts).collect();
        assert!(starts[0] && starts[1..].iter().all(|starts| !starts));
        let calls: Vec<Vec<UserId>> =
            (0..3).map(|_| gather.next().into_iter().map(|waiting| waiting.user).collect()).collect();
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), [CALL_MAX, 300 - CALL_MAX, 0]);
        assert_eq!(calls.concat(), (0..300).map(user).collect::<Vec<_>>());
        assert!(gather.add(user(0)).unwrap().starts, "after the last call, the next attempt starts anew");
    }

    #[test]
    fn at_the_bound_further_attempts_are_told_to_come_again() {
        let gather = Gather::default();
        let tickets: Vec<_> = (0..WAITING_MAX).map(|number| gather.add(user(number))).collect();
        assert!(tickets.iter().all(Result::is_ok));
        assert!(matches!(gather.add(user(0)), Err(Error::Busy { .. })));
    }

    /// While Redis is silent, each call is; those behind it must not wait for as many of them as it takes.
    #[test]
    fn those_who_have_waited_too_long_are_told_so_and_the_others_wait_on() {
        let gather = Gather::default();
        let mut tickets: Vec<_> = (0..3).map(|number| gather.add(user(number)).unwrap()).collect();
        assert!(gather.overdue(Duration::from_secs(3_600)).is_empty());
        for one in &mut gather.0.lock().waiting[..2] {
            one.since -= Duration::from_secs(5);
        }
        let overdue = gather.overdue(Duration::from_secs(2));
        assert_eq!(overdue.iter().map(|one| &one.user).collect::<Vec<_>>(), [&user(0), &user(1)]);
        drop(overdue);
        assert!(tickets[0].decision.try_recv().is_err());
        assert_eq!(gather.next().len(), 1);
    }
}
