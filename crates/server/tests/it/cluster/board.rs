//! The console of one replica shows what all of them do.

use serde_json::Value;

use super::stage::{Addresses, Stage};
use crate::board::{until, watch};

#[test]
fn the_console_of_one_replica_shows_all() {
    let stage = Stage::new(Addresses::shared());
    stage.sale("shared", 2);
    let [here, there] = &stage.replicas[..] else { panic!("two replicas") };
    let mut events = watch(here, "shared");
    until(&mut events, "live", "both replicas are seen", |live| live["replicas"] == 2);
    let _viewer = crate::events::Events::open(there, "/api/v1/sale/shared/events");
    until(&mut events, "live", "a viewer of the other replica is counted", |live| live["viewers"] == 1);
    for user in ["ada", "ben", "cem"] {
        there.buy("shared", user);
    }
    let is_busy = |live: &Value| {
        let samples = live["samples"].as_array().expect("samples");
        samples.iter().any(|sample| sample[1].as_u64() > Some(0) && sample[9].as_u64() > Some(0))
    };
    until(&mut events, "live", "attempts at the other replica are counted", is_busy);
    let done = until(&mut events, "live", "all are confirmed", |live| live["sale"]["confirmed"] == 2);
    assert_eq!(done["sale"]["remainingStock"], 0);
    // Decisions are told once to each stream, so a new one is told all of them.
    until(&mut watch(here, "shared"), "decisions", "a rejection of the other replica", |decisions| {
        decisions.to_string().contains("REJECTED_SOLD_OUT")
    });
    let holds = until(&mut events, "integrity", "the verdict", |_| true);
    assert_eq!(holds["holds"], true, "{holds}");
    // A replica that stops is gone from the figures.
    let mut stage = stage;
    drop(stage.replicas.pop());
    until(&mut events, "live", "one replica is left", |live| live["replicas"] == 1);
}
