//! The order queue: at least once each, whether memory still has the reservation or only the ledger.

use std::ops::RangeInclusive;

use flashsale_core::{
    conformance::{Harness, check_conserved},
    ids::SaleId,
    inventory::Decision,
    ports::{Delivery, OrderQueue},
};
use tokio::task::JoinSet;

use crate::support::{Bench, user, within_patience};

/// Of the outbox in memory, in reservations.
const CAPACITY: u32 = 65_536;
/// The most reservations in a delivery.
const BATCH: u32 = 1_024;
/// How many buyers come at the same time.
const TOGETHER: u32 = 2_048;

async fn receive(queue: &dyn OrderQueue) -> Delivery {
    within_patience(queue.receive()).await.expect("a batch").expect("an open queue")
}

fn units(delivery: &Delivery) -> Vec<u32> {
    delivery.reservations.iter().map(|reservation| reservation.unit.0).collect()
}

/// Receives, confirms and acknowledges until `count` were received: their units.
async fn work_off(bench: &Bench, count: usize) -> Vec<u32> {
    let (queue, store) = (bench.queue(), bench.store());
    let mut worked_off = Vec::new();
    while worked_off.len() < count {
        let delivery = receive(&*queue).await;
        store.confirm(&delivery.reservations).await.expect("confirmed");
        queue.acknowledge(&delivery).await.expect("acknowledged");
        worked_off.extend(units(&delivery));
    }
    worked_off
}

async fn reserve(bench: &Bench, sale: &SaleId, buyers: RangeInclusive<u32>) {
    for number in buyers {
        bench.reserve(sale, number).await;
    }
}

/// Reserves many units, many at once. They go to the buyers in whatever order.
async fn reserve_many(bench: &Bench, sale: &SaleId, count: u32) {
    let mut buyers = JoinSet::new();
    for first in 0..TOGETHER {
        let (inventory, sale) = (bench.inventory(), sale.clone());
        buyers.spawn(async move {
            for number in (first..count).step_by(TOGETHER as usize) {
                let decision = inventory.attempt(&sale, user(number)).await.expect("a decision");
                assert!(matches!(decision, Decision::Reserved(_)), "{decision:?}");
            }
        });
    }
    buyers.join_all().await;
}

/// Once, they were read from the ledger, dropped while the queue lingered for more, and waited for the next
/// purchase, which then went past them.
#[tokio::test]
async fn what_was_reserved_before_a_crash_is_delivered_after_it_without_a_new_purchase() {
    let bench = Bench::start().await;
    let sale = bench.sale("crash", 9).await;
    reserve(&bench, &sale, 1..=5).await;
    let bench = bench.crash().await;
    assert_eq!(work_off(&bench, 5).await, [1, 2, 3, 4, 5]);
    reserve(&bench, &sale, 6..=7).await;
    assert_eq!(work_off(&bench, 2).await, [6, 7]);
    assert_eq!(bench.store().figures(&sale).await.unwrap().confirmed, 7);
    check_conserved(&bench, &sale).await;
}

#[tokio::test]
async fn a_delivery_that_is_not_acknowledged_comes_again_before_a_crash_and_after_it() {
    let bench = Bench::start().await;
    let sale = bench.sale("again", 9).await;
    reserve(&bench, &sale, 1..=2).await;
    for _ in 0..2 {
        assert_eq!(units(&receive(&*bench.queue()).await), [1, 2]);
    }
    let bench = bench.crash().await;
    for _ in 0..2 {
        assert_eq!(units(&receive(&*bench.queue()).await), [1, 2]);
    }
    reserve(&bench, &sale, 3..=3).await;
    assert_eq!(units(&receive(&*bench.queue()).await), [1, 2, 3]);
    assert_eq!(work_off(&bench, 3).await, [1, 2, 3]);
}

#[tokio::test]
async fn what_is_acknowledged_does_not_come_again_and_a_closed_queue_ends_when_it_is_empty() {
    let bench = Bench::start().await;
    let sale = bench.sale("ends", 9).await;
    reserve(&bench, &sale, 1..=3).await;
    assert_eq!(work_off(&bench, 3).await, [1, 2, 3]);
    reserve(&bench, &sale, 4..=4).await;
    bench.embedded.close_queue();
    assert_eq!(work_off(&bench, 1).await, [4]);
    assert!(within_patience(bench.queue().receive()).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_batch_is_delivered_in_order_after_a_crash_while_selling_goes_on() {
    let bench = Bench::start().await;
    let sale = bench.sale("many", 4 * BATCH).await;
    reserve_many(&bench, &sale, 2 * BATCH + 100).await;
    let bench = bench.crash().await;
    let first = work_off(&bench, 1).await;
    assert_eq!(first, (1..=BATCH).collect::<Vec<_>>());
    reserve(&bench, &sale, 10_001..=10_050).await;
    let second = work_off(&bench, BATCH as usize + 150).await;
    assert_eq!(second, (BATCH + 1..=2 * BATCH + 150).collect::<Vec<_>>());
    reserve(&bench, &sale, 10_051..=10_060).await;
    work_off(&bench, 10).await;
    assert_eq!(bench.store().figures(&sale).await.unwrap().reserved, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_into_memory_is_delivered_from_the_ledger() {
    let bench = Bench::start().await;
    let sale = bench.sale("large", CAPACITY + 200).await;
    reserve_many(&bench, &sale, CAPACITY + 100).await;
    let all = work_off(&bench, CAPACITY as usize + 100).await;
    assert_eq!(all, (1..=CAPACITY + 100).collect::<Vec<_>>());
    reserve(&bench, &sale, 100_001..=100_002).await;
    assert_eq!(work_off(&bench, 2).await, [CAPACITY + 101, CAPACITY + 102]);
    assert_eq!(bench.store().figures(&sale).await.unwrap().reserved, 0);
}
