//! One clock for all: Redis'. What a replica's own says decides nothing.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use flashsale_cluster::Cluster;
use flashsale_core::{
    clock::Timestamp,
    conformance::{Harness, check_conserved},
    inventory::Decision,
    ports::Clock,
};

use crate::support::{Bench, PATIENCE, RandomIds, SystemClock};

/// A clock that is two hours ahead.
struct Ahead;

#[async_trait]
impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().after(Duration::from_secs(7_200))
    }

    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}

/// The sale is open for one more hour; by the clock of this replica it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_is_judged_by_the_clock_of_redis_and_not_by_the_replicas() {
    let right = Bench::start().await;
    let sale = right.open("clock", 3).await;
    let site = right.site.clone();
    let cluster =
        Cluster::both(site.options(), Arc::new(Ahead), Arc::new(RandomIds)).await.expect("it opens");
    cluster.ready(PATIENCE).await.expect("sales can be decided");
    let ahead = Bench { cluster, site };
    assert_eq!(right.reserve(&sale, 1).await.unit.0, 1);
    match ahead.attempt(&sale, 2).await {
        Decision::Reserved(held) => {
            assert_eq!(held.unit.0, 2);
            assert!(
                held.reserved_at < Ahead.now().before(Duration::from_secs(3_600)),
                "told by Redis' clock"
            );
        }
        other => panic!("the sale is open, but: {other:?}"),
    }
    let status = ahead.inventory().status(&sale).await.expect("a status");
    assert!(status.sale.is_open(status.now), "so it is shown, too");
    check_conserved(&right, &sale).await;
}
