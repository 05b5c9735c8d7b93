//! The sold-out latch against everything that gives a unit back, heard of or not.

use flashsale_core::{
    conformance::{Harness, check_conserved},
    ids::SaleId,
    inventory::Decision,
    order::Ending,
    sale::SaleChange,
};

use crate::support::{Bench, wait};

/// Two replicas, the second of which rejects from memory.
async fn latched(name: &str, stock: u32) -> (Bench, Bench, SaleId) {
    let one = Bench::start().await;
    let other = Bench::on(one.site.clone()).await;
    let sale = one.open(name, stock).await;
    for number in 0..stock {
        one.reserve(&sale, number).await;
    }
    let from_memory = async || {
        let before = other.cluster.totals().latched;
        assert_eq!(other.attempt(&sale, 900).await, Decision::SoldOut);
        other.cluster.totals().latched > before
    };
    wait("a rejection from memory", from_memory).await;
    (one, other, sale)
}

/// The next attempts at the other replica, until one is no rejection.
async fn offered(other: &Bench, sale: &SaleId, number: u32) -> Decision {
    let last = std::cell::RefCell::new(Decision::SoldOut);
    let changed = async || {
        let decision = other.attempt(sale, number).await;
        let changed = decision != Decision::SoldOut;
        *last.borrow_mut() = decision;
        changed
    };
    wait("something else than SOLD_OUT", changed).await;
    last.into_inner()
}

/// Nobody hears of changes: the subscriptions are cut, and cut again.
async fn deafen(bench: &Bench) {
    let client = redis::Client::open(bench.site.options().redis_url.expose()).expect("an address");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    redis::cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("pubsub")
        .exec_async(&mut connection)
        .await
        .expect("cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purchasers_keep_their_answer_and_how_far_their_order_is() {
    let (one, other, sale) = latched("holders", 3).await;
    let held =
        one.inventory().purchase(&sale, &crate::support::user(1)).await.expect("a lookup").expect("held");
    assert_eq!(other.attempt(&sale, 1).await, Decision::AlreadyPurchased(held));
    check_conserved(&other, &sale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_released_unit_is_offered_by_the_other_replica() {
    let (one, other, sale) = latched("released", 2).await;
    let held =
        one.inventory().purchase(&sale, &crate::support::user(0)).await.expect("a lookup").expect("held");
    let page = one.queue().receive().await.expect("a batch").expect("an open queue");
    let reservation =
        page.reservations.iter().find(|one| one.order_id == held.order_id).expect("it is queued").clone();
    assert!(one.inventory().release(&reservation, Ending::Cancelled).await.expect("released"));
    assert!(matches!(offered(&other, &sale, 901).await, Decision::Reserved(_)));
    check_conserved(&one, &sale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restock_is_offered_although_nobody_heard_of_it() {
    let (one, other, sale) = latched("deaf", 1).await;
    deafen(&other).await;
    let more = SaleChange { total_stock: Some(2), ..SaleChange::default() };
    one.inventory().change(&sale, more).await.expect("restocked");
    assert!(matches!(offered(&other, &sale, 901).await, Decision::Reserved(_)));
    check_conserved(&one, &sale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_and_a_pause_open_the_latch() {
    let (one, other, sale) = latched("reset", 1).await;
    one.inventory().reset(&sale, None).await.expect("a reset");
    match offered(&other, &sale, 0).await {
        Decision::Reserved(held) => assert_eq!(held.epoch.0, 2),
        decision => panic!("{decision:?}"),
    }
    let pause = SaleChange { paused: Some(true), ..SaleChange::default() };
    one.inventory().change(&sale, pause).await.expect("paused");
    assert_eq!(offered(&other, &sale, 5).await, Decision::NotActive);
    check_conserved(&one, &sale).await;
}
