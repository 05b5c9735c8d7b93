//! Thousands of worlds: no promise is broken in any, each kind of fault really happens, and a seed is a life.

use flashsale_simulation::{Fired, STEPS, simulate};

/// How many worlds; about half a minute's worth in a build for tests.
const SEEDS: u64 = 2_000;

#[test]
fn no_world_breaks_a_promise_and_every_kind_of_fault_happens() {
    let mut fired = Fired::default();
    for seed in 1..=SEEDS {
        let outcome = simulate(seed, STEPS);
        if let Some(broken) = outcome.broken {
            let story = outcome.story.join("\n");
            panic!("{story}\n\nseed {seed}: {broken}\nthe same again: scripts/simulate --seed {seed}");
        }
        fired.add(&outcome.fired);
    }
    let missing: Vec<_> = fired.missing().iter().map(|fault| fault.words()).collect();
    assert!(missing.is_empty(), "these never happened: {missing:?}\n{fired}");
}

#[test]
fn the_same_seed_is_the_same_life_and_another_is_another() {
    for seed in 1..=40 {
        let (first, again) = (simulate(seed, STEPS), simulate(seed, STEPS));
        assert_eq!(first.story, again.story, "seed {seed}");
        assert_eq!(
            first.trace, again.trace,
            "seed {seed}: told the same, and the disk was asked for something else"
        );
        assert_eq!(first.fired, again.fired, "seed {seed}");
        assert_ne!(first.trace, simulate(seed + 1_000, STEPS).trace, "seed {seed}");
    }
}
