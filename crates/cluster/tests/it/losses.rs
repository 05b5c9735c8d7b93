//! A part of what Redis knows is lost, and what is left must not decide.

use std::time::Duration;

use flashsale_core::{
    Error,
    conformance::{Harness, check_conserved},
    ids::Unit,
    inventory::Decision,
    order::Ending,
};

use crate::support::{Bench, PATIENCE, user};

async fn a_key_is_lost(key: &str) {
    let bench = Bench::start().await;
    let sale = bench.open("lost", 3).await;
    let first = bench.reserve(&sale, 1).await;
    let second = bench.reserve(&sale, 2).await;
    assert!(bench.inventory().release(&first, Ending::Cancelled).await.expect("an answer"), "it is released");
    let mut redis = bench.redis().await;
    let lost = redis::cmd("DEL").arg(format!("{}:sale:{sale}:{key}", bench.site.name)).to_owned();
    assert_eq!(lost.query_async::<u32>(&mut redis).await.expect("Redis answers"), 1, "there was such a key");

    let told = bench.inventory().attempt(&sale, user(3)).await;
    assert!(matches!(told, Err(Error::Unavailable { .. })), "without {key}: {told:?}");
    bench.cluster.ready(PATIENCE).await.expect("it is rebuilt");
    let again = async || bench.inventory().attempt(&sale, user(3)).await;
    // Ready is said of the list; the sale itself may be the last one to be loaded.
    let third = loop {
        match again().await {
            Ok(decision) => break decision,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert!(matches!(&third, Decision::Reserved(held) if held.unit == Unit(1)), "without {key}: {third:?}");
    let held = bench.attempt(&sale, 2).await;
    assert!(
        matches!(&held, Decision::AlreadyPurchased(held) if held.order_id == second.order_id),
        "without {key}: {held:?}"
    );
    assert_eq!(bench.reserve(&sale, 4).await.unit, Unit(3));
    assert_eq!(bench.attempt(&sale, 5).await, Decision::SoldOut);
    check_conserved(&bench, &sale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_set_up() {
    a_key_is_lost("meta").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_stock() {
    a_key_is_lost("stock").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_set_of_users() {
    a_key_is_lost("users").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_purchasers() {
    a_key_is_lost("orders").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_units_that_came_back() {
    a_key_is_lost("returned").await;
}
