//! When each attempt of an open loop is meant to start: decided before the first, and by nothing the server does.

use std::time::Duration;

/// `total` attempts, evenly spaced from zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    rate_per_second: f64,
    total: u64,
}

impl Schedule {
    /// Exactly `rate_per_second` × `duration` attempts, rounded. Both are positive, and the product below 2^53.
    pub(crate) fn new(rate_per_second: f64, duration: Duration) -> Self {
        let total = (rate_per_second * duration.as_secs_f64()).round() as u64;
        Self { rate_per_second, total }
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The intended start of an attempt, counted from the start of the run.
    pub(crate) fn intended(&self, attempt: u64) -> Duration {
        Duration::from_secs_f64(attempt as f64 / self.rate_per_second)
    }

    /// How many attempts should have started once `elapsed` of the run has passed.
    pub(crate) fn due(&self, elapsed: Duration) -> u64 {
        let started = (elapsed.as_secs_f64() * self.rate_per_second).floor() as u64 + 1;
        started.min(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_load_is_ten_thousand_attempts_half_a_millisecond_apart() {
        let schedule = Schedule::new(2_000.0, Duration::from_secs(5));
        assert_eq!(schedule.total(), 10_000);
        assert_eq!(schedule.intended(0), Duration::ZERO);
        assert_eq!(schedule.intended(1), Duration::from_micros(500));
        assert_eq!(schedule.intended(2_000), Duration::from_secs(1));
        assert_eq!(schedule.intended(9_999), Duration::from_micros(4_999_500));
    }

    #[test]
    fn an_attempt_is_due_from_its_intended_start_on() {
        let schedule = Schedule::new(1_000.0, Duration::from_secs(1));
        assert_eq!(schedule.due(Duration::ZERO), 1);
        assert_eq!(schedule.due(Duration::from_micros(999)), 1);
        assert_eq!(schedule.due(Duration::from_micros(1_001)), 2);
        assert_eq!(schedule.due(Duration::from_millis(500)), 501);
        assert_eq!(schedule.due(Duration::from_secs(60)), 1_000, "never more than there are");
    }

    #[test]
    fn a_rate_that_is_no_whole_number_still_gives_the_exact_total() {
        assert_eq!(Schedule::new(0.5, Duration::from_secs(10)).total(), 5);
        assert_eq!(Schedule::new(333.3, Duration::from_secs(3)).total(), 1_000);
        assert_eq!(Schedule::new(1_000.0 / 3.0, Duration::from_millis(3_000)).total(), 1_000);
    }
}
