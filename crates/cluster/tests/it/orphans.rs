//! Reservations whose replica died before it could publish them.

use std::time::Duration;

use flashsale_core::{
    conformance::{Harness, check_conserved},
    ids::{OrderId, SaleId},
    inventory::Decision,
    order::OrderStatus,
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::{Bench, PATIENCE, user, wait};

/// Reserves as a replica would that dies the moment after.
async fn reserve_and_die(bench: &Bench, sale: &SaleId, number: u32) -> OrderId {
    let mut records = PgConnection::connect(&bench.site.database_url()).await.expect("PostgreSQL answers");
    let installation: Uuid =
        sqlx::query_scalar("SELECT id FROM installation").fetch_one(&mut records).await.expect("an id");
    let order = OrderId(Uuid::now_v7());
    let keys = ["meta", "stock", "users", "orders", "outbox", "returned"];
    let mut call = redis::cmd("FCALL");
    call.arg("flashsale_1_decide").arg(keys.len());
    for key in keys {
        call.arg(format!("{}:sale:{sale}:{key}", bench.site.name));
    }
    call.arg(installation.to_string()).arg(user(number).as_str()).arg(order.to_string());
    let reply: Vec<redis::Value> = call.query_async(&mut bench.redis().await).await.expect("decided");
    assert_eq!(reply[0], redis::Value::BulkString(b"ok".to_vec()), "{reply:?}");
    order
}

/// Whoever retries elsewhere is told of the order only when it survives the loss of Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn already_purchased_is_not_said_of_what_redis_alone_knows() {
    let bench = Bench::start().await;
    let sale = bench.open("orphan", 5).await;
    let order = reserve_and_die(&bench, &sale, 1).await;
    match bench.attempt(&sale, 1).await {
        Decision::AlreadyPurchased(purchase) => assert_eq!(purchase.order_id, order),
        other => panic!("{other:?}"),
    }
    bench.forget().await;
    wait("Redis is rebuilt", async || bench.cluster.ready(Duration::ZERO).await.is_ok()).await;
    let known =
        bench.inventory().purchase(&sale, &user(1)).await.expect("a lookup").expect("it is still there");
    assert_eq!((known.order_id, known.status), (order, OrderStatus::Confirmed));
    check_conserved(&bench, &sale).await;
}

/// Nobody asks, and the order is stored all the same: another replica finds the entry, and publishes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_published_is_found_and_published() {
    let bench = Bench::start().await;
    let sale = bench.open("found", 5).await;
    let order = reserve_and_die(&bench, &sale, 1).await;
    let queue = bench.queue();
    let delivery = tokio::time::timeout(PATIENCE, queue.receive()).await.expect("it is found in time");
    let delivery = delivery.expect("a batch").expect("an open queue");
    assert_eq!(delivery.reservations.iter().map(|held| held.order_id).collect::<Vec<_>>(), [order]);
    bench.store().confirm(&delivery.reservations).await.expect("confirmed");
    queue.acknowledge(&delivery).await.expect("acknowledged");
    check_conserved(&bench, &sale).await;
    assert!(bench.cluster.totals().swept >= 1);
}

/// Somebody was told SUCCESS, and a reset came before the order was stored: the trail knows of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reset_takes_away_on_its_way_is_on_record() {
    let bench = Bench::start().await;
    let sale = bench.open("taken", 5).await;
    let held = bench.reserve(&sale, 1).await;
    bench.inventory().reset(&sale, None).await.expect("a reset");
    let events = bench.store().audit(&sale, 0, 100).await.expect("events").rows;
    let order = held.order_id.to_string();
    let told =
        events.iter().filter(|event| event.metadata.contains(&order)).map(|event| event.event_type.as_str());
    assert_eq!(told.collect::<Vec<_>>(), ["RESERVED"], "{events:?}");
    check_conserved(&bench, &sale).await;
}
