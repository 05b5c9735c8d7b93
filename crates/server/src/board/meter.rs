//! What this replica has decided of each sale, counted as it happens: a few atomic additions an attempt.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use flashsale_core::inventory::Decision;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

/// Latencies are counted in steps that grow by half: from 20 µs to about 4 s, and one for what took longer.
const STEPS: usize = 32;
const FIRST_STEP_US: f64 = 20.0;
const GROWTH: f64 = 1.5;

/// The meters of the sales that are busy. One that is quiet for long is forgotten, and begins anew.
#[derive(Default)]
pub(super) struct Meters(RwLock<HashMap<Box<str>, Meter>>);

/// The meter of a sale.
#[derive(Default)]
struct Meter {
    accepted: AtomicU64,
    rejected: AtomicU64,
    latencies: [AtomicU64; STEPS],
}

/// What a meter shows: all since it began.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reading {
    #[serde(rename = "a")]
    pub(super) accepted: u64,
    #[serde(rename = "r")]
    pub(super) rejected: u64,
    #[serde(rename = "l")]
    pub(super) latencies: Vec<u64>,
}

impl Meters {
    /// Counts a decision of a sale, which therefore exists.
    pub(super) fn count(&self, sale: &str, decision: &Decision, took: Duration) {
        if let Some(meter) = self.0.read().get(sale) {
            return meter.count(decision, took);
        }
        self.0.write().entry(sale.into()).or_default().count(decision, took);
    }

    /// Forgets the meters of these sales.
    pub(super) fn forget(&self, sales: &[Box<str>]) {
        if !sales.is_empty() {
            let mut meters = self.0.write();
            for sale in sales {
                meters.remove(sale);
            }
        }
    }

    pub(super) fn read(&self) -> Vec<(Box<str>, Reading)> {
        self.0.read().iter().map(|(sale, meter)| (sale.clone(), meter.read())).collect()
    }
}

impl Meter {
    fn count(&self, decision: &Decision, took: Duration) {
        let outcome = match decision {
            Decision::Reserved(_) => &self.accepted,
            Decision::AlreadyPurchased(_) | Decision::SoldOut | Decision::NotActive => &self.rejected,
        };
        outcome.fetch_add(1, Ordering::Relaxed);
        self.latencies[step(took)].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> Reading {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Reading {
            accepted: load(&self.accepted),
            rejected: load(&self.rejected),
            latencies: self.latencies.iter().map(load).collect(),
        }
    }
}

impl Reading {
    /// What has come since an earlier reading. A meter that went backwards has begun anew: all of it is new.
    pub(super) fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) =
            before.filter(|before| self.accepted >= before.accepted && self.rejected >= before.rejected)
        else {
            return self.clone();
        };
        let earlier = before.latencies.iter().copied().chain(std::iter::repeat(0));
        Self {
            accepted: self.accepted - before.accepted,
            rejected: self.rejected - before.rejected,
            latencies: self
                .latencies
                .iter()
                .zip(earlier)
                .map(|(now, before)| now.saturating_sub(before))
                .collect(),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        // Other replicas' counts are what somebody wrote into Redis.
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.rejected = self.rejected.saturating_add(other.rejected);
        self.latencies.resize(self.latencies.len().max(other.latencies.len()), 0);
        let counts = self.latencies.iter_mut().zip(&other.latencies);
        counts.for_each(|(sum, count)| *sum = sum.saturating_add(*count));
    }

    /// How long the attempt took that is slower than this share of all, in microseconds; `None` where there was none.
    pub(super) fn latency(&self, share: f64) -> Option<u64> {
        let all = self.latencies.iter().fold(0_u64, |all, count| all.saturating_add(*count));
        let wanted = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0_u64;
        let step = self.latencies.iter().position(|count| {
            seen = seen.saturating_add(*count);
            seen >= wanted
        });
        step.filter(|_| all > 0).map(|step| upper(step) as u64)
    }
}

/// The step that a latency belongs to.
fn step(took: Duration) -> usize {
    let micros = took.as_secs_f64() * 1e6;
    let step = (micros / FIRST_STEP_US).max(1.0).ln() / GROWTH.ln();
    (step.ceil() as usize).min(STEPS - 1)
}

/// The longest latency of a step, in microseconds.
fn upper(step: usize) -> f64 {
    FIRST_STEP_US * GROWTH.powi(i32::try_from(step).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_latency_is_shown_no_lower_than_it_was_and_at_most_half_higher() {
        for took in [1, 20, 21, 500, 1_000, 12_345, 1_000_000] {
            let shown = upper(step(micros(took)));
            assert!(
                shown >= took as f64 && shown <= (took as f64 * GROWTH).max(FIRST_STEP_US),
                "{took}: {shown}"
            );
        }
        assert_eq!(step(Duration::from_secs(3_600)), STEPS - 1);
    }

    #[test]
    fn shares_are_those_of_what_was_counted() {
        let meters = Meters::default();
        for took in [100; 98].into_iter().chain([10_000, 200_000]) {
            meters.count("sale_1", &Decision::SoldOut, micros(took));
        }
        let reading = &meters.read()[0].1;
        assert_eq!((reading.accepted, reading.rejected), (0, 100));
        let shown = [0.5, 0.98, 0.99, 1.0].map(|share| reading.latency(share).unwrap());
        assert!(shown[0] < 200 && shown[1] < 200 && shown[2] > 9_000 && shown[2] < 20_000, "{shown:?}");
        assert!(shown[3] >= 200_000, "{shown:?}");
        assert_eq!(Reading::default().latency(0.5), None);
    }

    #[test]
    fn what_is_new_is_the_difference_unless_the_meter_began_anew() {
        let reading = |accepted, rejected, latencies: &[u64]| Reading {
            accepted,
            rejected,
            latencies: latencies.to_vec(),
        };
        let (before, now) = (reading(2, 10, &[5, 7]), reading(3, 14, &[8, 9]));
        assert_eq!(now.since(Some(&before)), reading(1, 4, &[3, 2]));
        assert_eq!(now.since(None), now);
        assert_eq!(before.since(Some(&now)), before);
    }
}
