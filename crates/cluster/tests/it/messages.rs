//! What may come out of the order queue: the same again and again, in any order, of the past, and nonsense.

use std::sync::Arc;

use flashsale_core::{
    conformance::{Harness, check_conserved},
    ids::{Epoch, OrderId, Place, Unit},
    order::{OrderStatus, Reservation},
    worker::OrderWorker,
};
use lapin::{
    BasicProperties,
    options::{BasicGetOptions, BasicPublishOptions},
    types::AMQPValue,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Bench, SystemClock, user, wait};

/// A message as the documentation has it.
fn message(generation: u32, reservations: &[Reservation]) -> Value {
    let first = &reservations[0];
    json!({
        "version": 1,
        "saleId": first.sale_id,
        "epoch": first.epoch,
        "generation": generation,
        "entry": "0-1",
        "reservedAt": first.reserved_at,
        "reservations": reservations.iter().map(|one| json!({
            "orderId": one.order_id, "userId": one.user_id, "unit": one.unit, "place": one.place,
        })).collect::<Vec<_>>(),
    })
}

async fn deliver(bench: &Bench, payload: &[u8]) {
    let channel = bench.channel().await;
    let (queue, options) = (bench.name("purchase_queue"), BasicPublishOptions::default());
    let sent = channel.basic_publish("".into(), queue, options, payload, BasicProperties::default()).await;
    sent.expect("sent").await.expect("there");
}

/// Works on the queue until this is so.
async fn work_until<F: Future<Output = bool>>(bench: &Bench, what: &str, holds: impl FnMut() -> F) {
    let worker = OrderWorker::new(bench.queue(), bench.store(), Arc::new(SystemClock));
    let worker = tokio::spawn(worker.run());
    wait(what, holds).await;
    worker.abort();
}

/// The next dead letter, and the reason on it.
async fn dead_letter(bench: &Bench) -> (Vec<u8>, String) {
    let channel = bench.channel().await;
    let queue = bench.name("purchase_dlq");
    let letter = channel.basic_get(queue, BasicGetOptions { no_ack: true }).await.expect("an answer");
    let letter = letter.expect("a dead letter").delivery;
    let reason = letter.properties.headers().as_ref().and_then(|headers| headers.inner().get("x-reason"));
    match reason {
        Some(AMQPValue::LongString(reason)) => (letter.data, reason.to_string()),
        other => panic!("no reason, but {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_delivered_ten_times_and_out_of_order_creates_its_orders_once() {
    let bench = Bench::start().await;
    let sale = bench.open("again", 50).await;
    let mut held = Vec::new();
    for number in 0..30 {
        held.push(bench.reserve(&sale, number).await);
    }
    for round in 0..10 {
        for part in held.chunks(3 + round).rev() {
            deliver(&bench, message(1, part).to_string().as_bytes()).await;
        }
    }
    let (store, inventory) = (bench.store(), bench.inventory());
    let stored = async || inventory.status(&sale).await.expect("a status").confirmed == 30;
    work_until(&bench, "the orders", stored).await;
    check_conserved(&bench, &sale).await;
    let figures = store.figures(&sale).await.expect("figures");
    assert_eq!((figures.confirmed, figures.audited_confirmed, figures.attempts_reserved), (30, 30, 30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_an_older_epoch_creates_nothing() {
    let bench = Bench::start().await;
    let sale = bench.open("past", 50).await;
    let old = bench.reserve(&sale, 1).await;
    bench.inventory().reset(&sale, None).await.expect("a reset");
    let new = bench.reserve(&sale, 2).await;
    deliver(&bench, message(1, &[old]).to_string().as_bytes()).await;
    let (store, inventory) = (bench.store(), bench.inventory());
    let stored = async || inventory.status(&sale).await.expect("a status").confirmed == 1;
    work_until(&bench, "the new order", stored).await;
    let orders = store.orders(&sale, 0, 10).await.expect("orders").rows;
    assert_eq!(orders.iter().map(|order| order.id).collect::<Vec<_>>(), [new.order_id]);
    // Passed over, since nothing is wrong with it; not left to the database to refuse.
    let events = store.audit(&sale, 0, 100).await.expect("events").rows;
    assert!(events.iter().all(|event| event.event_type.as_str() != "FAILED_DB"), "{events:?}");
    check_conserved(&bench, &sale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_goes_to_the_dead_letters_with_its_reason_and_holds_nobody_up() {
    let bench = Bench::start().await;
    let sale = bench.open("poison", 5).await;
    for (nonsense, reason) in [
        (&b"not json"[..], "it is no message"),
        (br#"{"version":9}"#, "it has version 9"),
        (b"\xff\xfe", "it is no message"),
    ] {
        deliver(&bench, nonsense).await;
        let held = bench.reserve(&sale, u32::try_from(nonsense.len()).expect("short")).await;
        let inventory = bench.inventory();
        let confirmed = async || {
            let known = inventory.purchase(&sale, &held.user_id).await.expect("a lookup");
            known.is_some_and(|known| known.status == OrderStatus::Confirmed)
        };
        work_until(&bench, "the order behind it", confirmed).await;
        let (letter, said) = dead_letter(&bench).await;
        assert_eq!(letter, nonsense);
        assert!(said.contains(reason), "{said}");
    }
    check_conserved(&bench, &sale).await;
}

/// An order that PostgreSQL refuses is found among the good ones of its message, and put aside on record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_refused_for_good_is_found_among_the_good_ones() {
    let bench = Bench::start().await;
    let sale = bench.open("culprit", 20).await;
    let mut held = Vec::new();
    for number in 0..9 {
        held.push(bench.reserve(&sale, number).await);
    }
    let forged = Reservation {
        sale_id: sale.clone(),
        epoch: Epoch(1),
        place: Place((2 << 32) - 1),
        unit: Unit(21),
        user_id: "somebody".parse().expect("a valid user id"),
        order_id: OrderId(Uuid::now_v7()),
        reserved_at: held[0].reserved_at,
    };
    held.insert(4, forged.clone());
    deliver(&bench, message(1, &held).to_string().as_bytes()).await;
    let inventory = bench.inventory();
    let confirmed = async || inventory.status(&sale).await.expect("a status").confirmed == 9;
    work_until(&bench, "the good orders", confirmed).await;
    let records = bench.store();
    let told = async || {
        let events = records.audit(&sale, 0, 1_000).await.expect("events").rows;
        events.iter().any(|event| {
            event.event_type.as_str() == "FAILED_DB"
                && event.user_id == forged.user_id
                && event.metadata.contains("none of the stock")
        })
    };
    work_until(&bench, "the refusal on record", told).await;
    let (letter, said) = dead_letter(&bench).await;
    assert!(
        String::from_utf8_lossy(&letter).contains("somebody") && said.contains("none of the stock"),
        "{said}"
    );
    assert_eq!(records.orders(&sale, 0, 100).await.expect("orders").rows.len(), 9);
    assert_eq!(records.figures(&sale).await.expect("figures").orders_refused, 1);
}

/// The last border: whatever a message went through, an order of a generation that is over is not stored any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_a_generation_that_is_over_creates_nothing() {
    let bench = Bench::start().await;
    let sale = bench.open("over", 5).await;
    let forgotten = Reservation { order_id: OrderId(Uuid::now_v7()), ..bench.reserve(&sale, 1).await };
    bench.forget().await;
    wait("Redis is rebuilt", async || bench.inventory().attempt(&sale, user(2)).await.is_ok()).await;
    let late = Reservation { user_id: user(3), unit: Unit(5), ..forgotten };
    deliver(&bench, message(1, &[late]).to_string().as_bytes()).await;
    let inventory = bench.inventory();
    let confirmed = async || inventory.status(&sale).await.expect("a status").confirmed == 2;
    work_until(&bench, "the orders", confirmed).await;
    let store = bench.store();
    let told = async || {
        let events = store.audit(&sale, 0, 100).await.expect("events").rows;
        events
            .iter()
            .any(|event| event.event_type.as_str() == "FAILED_DB" && event.metadata.contains("is over"))
    };
    work_until(&bench, "the refusal on record", told).await;
    assert_eq!(store.orders(&sale, 0, 10).await.expect("orders").rows.len(), 2);
    assert!(dead_letter(&bench).await.1.contains("is over"));
    check_conserved(&bench, &sale).await;
}

/// A queue of theirs that is full is their business: orders are stored and acknowledged all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_of_another_system_holds_nobody_up() {
    let bench = Bench::start().await;
    let sale = bench.open("full", 5).await;
    let channel = bench.channel().await;
    let exclusive = lapin::options::QueueDeclareOptions { exclusive: true, ..Default::default() };
    let mut full = lapin::types::FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(0));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let ear = channel.queue_declare("".into(), exclusive, full).await.expect("a queue");
    let (events, topic) = (bench.name("flashsale.events"), "order.#".into());
    let bound = channel.queue_bind(ear.name().clone(), events, topic, Default::default(), Default::default());
    bound.await.expect("bound");
    for number in 0..3 {
        bench.reserve(&sale, number).await;
    }
    let inventory = bench.inventory();
    let confirmed = async || inventory.status(&sale).await.expect("a status").confirmed == 3;
    work_until(&bench, "the orders", confirmed).await;
    let channel = bench.channel().await;
    let empty = async || {
        let passive =
            lapin::options::QueueDeclareOptions { passive: true, durable: true, ..Default::default() };
        let queue = channel.queue_declare(bench.name("purchase_queue"), passive, Default::default()).await;
        queue.expect("the order queue").message_count() == 0
    };
    work_until(&bench, "the acknowledgement", empty).await;
    check_conserved(&bench, &sale).await;
}

/// Other systems hear of each order on the topic exchange.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_systems_hear_of_confirmed_orders() {
    let bench = Bench::start().await;
    let sale = bench.open("heard", 5).await;
    let channel = bench.channel().await;
    let exclusive = lapin::options::QueueDeclareOptions { exclusive: true, ..Default::default() };
    let ear = channel.queue_declare("".into(), exclusive, Default::default()).await.expect("a queue");
    let (name, topic) = (ear.name().clone(), "order.confirmed.*".into());
    let bound = channel.queue_bind(
        name.clone(),
        bench.name("flashsale.events"),
        topic,
        Default::default(),
        Default::default(),
    );
    bound.await.expect("bound");
    let held = bench.reserve(&sale, 7).await;
    let inventory = bench.inventory();
    let confirmed = async || inventory.status(&sale).await.expect("a status").confirmed == 1;
    work_until(&bench, "the order", confirmed).await;
    let heard = async || match channel
        .basic_get(name.clone(), BasicGetOptions { no_ack: true })
        .await
        .expect("an answer")
    {
        None => false,
        Some(event) => {
            assert_eq!(event.delivery.routing_key.as_str(), "order.confirmed.heard");
            let event: Value = serde_json::from_slice(&event.delivery.data).expect("JSON");
            assert_eq!((&event["version"], &event["saleId"]), (&json!(1), &json!("heard")));
            assert_eq!(event["orders"][0]["orderId"], json!(held.order_id), "{event}");
            true
        }
    };
    wait("the event", heard).await;
}
