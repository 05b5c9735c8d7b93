//! How often somebody may try to sign in: by address, and all together.
//!
//! The address is that of the connection. What a header claims of a client is not believed, since whoever guesses
//! tokens can claim a new address each time. So behind a proxy all share one allowance; whoever is signed in
//! already is not touched by it.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed, keyed::HashMapStateStore},
};

/// Tries of one address: so many at once, and a new one each [`ADDRESS_PERIOD`].
const ADDRESS_TRIES: u32 = 5;
const ADDRESS_PERIOD: Duration = Duration::from_secs(12);
/// Tries of all addresses together. They bound what the operator log can grow by.
const ALL_TRIES: u32 = 30;
const ALL_PERIOD: Duration = Duration::from_secs(2);
/// The most addresses that are remembered; those that have not tried for a while are forgotten first.
const ADDRESSES_MAX: usize = 4_096;
/// A lock-out is put on record once in this time.
const WINDOW: Duration = Duration::from_secs(60);

type Keyed<C> = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, C, NoOpMiddleware<<C as Clock>::Instant>>;
type Single<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The limits, by a clock that only goes forward.
pub(crate) struct SignInLimit<C: Clock + Clone = MonotonicClock> {
    by_address: Keyed<C>,
    all: Single<C>,
    told: Single<C>,
    clock: C,
}

/// No more for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooOften {
    /// When to try again.
    pub(crate) retry_after: Duration,
    /// Whether this is the first in a while, to be put on record.
    pub(crate) tell: bool,
}

impl<C: Clock + Clone> SignInLimit<C> {
    pub(crate) fn new(clock: C) -> Self {
        let quota = |period, tries| {
            let quota = Quota::with_period(period).expect("the period is not zero");
            quota.allow_burst(NonZeroU32::new(tries).expect("more than none"))
        };
        Self {
            by_address: RateLimiter::hashmap_with_clock(quota(ADDRESS_PERIOD, ADDRESS_TRIES), clock.clone()),
            all: RateLimiter::direct_with_clock(quota(ALL_PERIOD, ALL_TRIES), clock.clone()),
            told: RateLimiter::direct_with_clock(quota(WINDOW, 1), clock.clone()),
            clock,
        }
    }

    /// Whether somebody at `address` may try now; it counts as a try.
    ///
    /// # Errors
    /// When it was too often. By address first, so that one who hammers takes nothing from the others.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<(), TooOften> {
        self.forget_the_idle();
        let address = whose(address);
        let known = self.by_address.len() < ADDRESSES_MAX;
        let wait = match known.then(|| self.by_address.check_key(&address)) {
            None => ADDRESS_PERIOD,
            Some(Err(not_until)) => not_until.wait_time_from(self.clock.now()),
            Some(Ok(())) => match self.all.check() {
                Ok(()) => return Ok(()),
                Err(not_until) => not_until.wait_time_from(self.clock.now()),
            },
        };
        Err(TooOften { retry_after: wait, tell: self.told.check().is_ok() })
    }

    fn forget_the_idle(&self) {
        if self.by_address.len() >= ADDRESSES_MAX {
            self.by_address.retain_recent();
            self.by_address.shrink_to_fit();
        }
    }
}

/// Who is behind an address: a whole /64 of IPv6, which is what one subscriber has.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn v4(last: u32) -> IpAddr {
        IpAddr::from(u32::to_be_bytes(0xCB00_0000 + last))
    }

    fn limit() -> (SignInLimit<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (SignInLimit::new(clock.clone()), clock)
    }

    #[test]
    fn an_address_has_five_tries_and_a_new_one_each_twelve_seconds() {
        let (limit, clock) = limit();
        for _ in 0..5 {
            assert_eq!(limit.admit(v4(1)), Ok(()));
        }
        let wait = limit.admit(v4(1)).unwrap_err().retry_after;
        assert_eq!(wait, Duration::from_secs(12));
        assert_eq!(limit.admit(v4(2)), Ok(()));
        clock.advance(Duration::from_secs(11));
        assert_eq!(limit.admit(v4(1)).unwrap_err().retry_after, Duration::from_secs(1));
        clock.advance(Duration::from_secs(1));
        assert_eq!(limit.admit(v4(1)), Ok(()));
        assert!(limit.admit(v4(1)).is_err());
    }

    #[test]
    fn all_together_have_thirty() {
        let (limit, clock) = limit();
        for address in 0..30 {
            assert_eq!(limit.admit(v4(address)), Ok(()));
        }
        assert_eq!(limit.admit(v4(31)).unwrap_err().retry_after, Duration::from_secs(2));
        clock.advance(Duration::from_secs(2));
        assert_eq!(limit.admit(v4(32)), Ok(()));
        assert!(limit.admit(v4(33)).is_err());
    }

    #[test]
    fn who_hammers_takes_nothing_from_the_others() {
        let (limit, _) = limit();
        for _ in 0..1_000 {
            let _ = limit.admit(v4(1));
        }
        for address in 2..27 {
            assert_eq!(limit.admit(v4(address)), Ok(()));
        }
    }

    #[test]
    fn a_lock_out_is_told_once_a_minute() {
        let (limit, clock) = limit();
        let told = |seconds| {
            let told = (0..100).filter(|_| limit.admit(v4(1)).is_err_and(|often| often.tell)).count();
            clock.advance(Duration::from_secs(seconds));
            told
        };
        assert_eq!([told(59), told(1), told(0)], [1, 0, 1]);
    }

    #[test]
    fn memory_is_bounded_however_many_addresses_come() {
        let (limit, clock) = limit();
        for address in 0..20_000 {
            let _ = limit.admit(v4(address));
            assert!(limit.by_address.len() <= ADDRESSES_MAX);
        }
        // All of them have tried just now: a new one waits rather than grow the process.
        assert!(limit.admit(v4(30_000)).is_err());
        clock.advance(Duration::from_secs(61));
        assert_eq!(limit.admit(v4(30_000)), Ok(()));
    }

    #[test]
    fn one_subscriber_is_one_address() {
        let (limit, _) = limit();
        let v6 = |text: &str| text.parse().unwrap();
        for host in 1..=5 {
            assert_eq!(limit.admit(v6(&format!("2001:db8:1:2::{host}"))), Ok(()));
        }
        assert!(limit.admit(v6("2001:db8:1:2:ffff::")).is_err());
        assert_eq!(limit.admit(v6("2001:db8:1:3::1")), Ok(()));
        for _ in 0..5 {
            assert_eq!(limit.admit(v6("::ffff:203.0.113.7")), Ok(()));
        }
        assert!(limit.admit(v6("203.0.113.7")).is_err());
    }
}
