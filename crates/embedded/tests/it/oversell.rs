//! The database itself refuses to oversell (P1, P2, P7), whoever writes to it and whatever they believe.

use flashsale_core::{conformance::Harness, order::Ending};
use rusqlite::Connection;

use crate::support::{Bench, number, user};

/// A sale of three units in its second epoch: user-1 holds the first, user-2 the second, the third is free.
async fn bench() -> Bench {
    let bench = Bench::start().await;
    let sale = bench.sale("guarded", 3).await;
    bench.inventory().reset(&sale, None).await.expect("a reset");
    bench.reserve(&sale, 1).await;
    bench.reserve(&sale, 2).await;
    bench
}

/// An order of an intruder, in the sale that has this number.
fn insert(no: i64, epoch: u32, unit: i64, user: &str) -> String {
    format!(
        "INSERT INTO live_orders (key, place, epoch, confirmed, reserved_at, confirmed_at, id, user_id) VALUES \
         (({no} << 40) + {unit}, 900, {epoch}, 0, 1, 1, randomblob(16), '{user}')"
    )
}

/// What SQLite says to a statement that it must refuse; nothing of it may stay.
fn refusal(connection: &Connection, sql: &str) -> String {
    let contents = "SELECT group_concat(id || sale_id || epoch || unit || user_id || status) FROM orders";
    let stock = "SELECT total_stock FROM sales";
    let read = || -> (String, i64) {
        (connection.query_row(contents, [], |row| row.get(0)).expect("the orders"), number(connection, stock))
    };
    let before = read();
    let refused = connection.execute_batch(sql).expect_err(sql).to_string();
    assert_eq!(read(), before, "{sql}");
    refused
}

#[tokio::test]
async fn an_order_outside_the_stock_or_the_epoch_is_refused() {
    let bench = bench().await;
    let outsider = bench.outsider();
    for order in [
        insert(1, 2, 4, "user-9"),
        insert(1, 2, 0, "user-9"),
        insert(1, 2, -1, "user-9"),
        insert(1, 1, 3, "user-9"),
        insert(1, 3, 3, "user-9"),
        insert(2, 2, 3, "user-9"),
    ] {
        let refused = refusal(&outsider, &order);
        assert!(refused.contains("none of the stock, or the order is of another epoch"), "{refused}");
    }
}

#[tokio::test]
async fn a_second_live_order_for_a_user_or_a_unit_is_refused() {
    let bench = bench().await;
    let outsider = bench.outsider();
    let refused = refusal(&outsider, &insert(1, 2, 3, "user-1"));
    assert!(refused.contains("UNIQUE") && refused.contains("one_live_order_a_user"), "{refused}");
    let refused = refusal(&outsider, &insert(1, 2, 1, "user-9"));
    assert!(refused.contains("UNIQUE") && refused.contains("live_orders.key"), "{refused}");
}

#[tokio::test]
async fn an_order_cannot_be_moved_to_another_unit_user_epoch_or_sale() {
    let bench = bench().await;
    let outsider = bench.outsider();
    for change in ["key = key + 2", "key = key + 3", "user_id = 'user-9'", "epoch = 3", "id = randomblob(16)"]
    {
        let refused =
            refusal(&outsider, &format!("UPDATE live_orders SET {change} WHERE user_id = 'user-1'"));
        assert!(refused.contains("an order keeps its sale, epoch, unit and user"), "{refused}");
    }
}

#[tokio::test]
async fn a_stock_below_a_held_unit_is_refused() {
    let bench = bench().await;
    let outsider = bench.outsider();
    let refused = refusal(&outsider, "UPDATE sales SET total_stock = 1");
    assert!(refused.contains("a unit above the new stock is held"), "{refused}");
    for stock in [0, -1, 10_000_001] {
        let refused = refusal(&outsider, &format!("UPDATE sales SET total_stock = {stock}"));
        assert!(refused.contains("CHECK") || refused.contains("is held"), "{refused}");
    }
}

#[tokio::test]
async fn an_ended_order_cannot_come_back_to_a_unit_that_was_sold_again() {
    let bench = bench().await;
    let sale = "guarded".parse().unwrap();
    let first = bench.inventory().purchase(&sale, &user(1)).await.unwrap().unwrap();
    let orders = bench.store().orders(&sale, 0, 10).await.unwrap().rows;
    let order = orders.into_iter().find(|order| order.id == first.order_id).unwrap();
    let held = flashsale_core::order::Reservation {
        sale_id: order.sale_id,
        epoch: order.epoch,
        place: flashsale_core::ids::Place(1),
        unit: order.unit,
        user_id: order.user_id,
        order_id: order.id,
        reserved_at: order.reserved_at,
    };
    assert!(bench.inventory().release(&held, Ending::Expired).await.unwrap());
    assert_eq!(bench.reserve(&sale, 3).await.unit, held.unit);
    let back = "INSERT INTO live_orders SELECT (key >> 40 << 40) | unit, place, epoch, 0, reserved_at, reserved_at, id, \
         user_id FROM ended_orders";
    let refused = refusal(&bench.outsider(), back);
    assert!(refused.contains("UNIQUE") && refused.contains("live_orders.key"), "{refused}");
}

/// So that the others are refused for the reason that they are meant to be refused for.
#[tokio::test]
async fn what_is_within_the_rules_is_not_refused() {
    let bench = bench().await;
    let outsider = bench.outsider();
    outsider.execute_batch(&insert(1, 2, 3, "user-9")).unwrap();
    outsider.execute_batch("UPDATE sales SET total_stock = 4; UPDATE sales SET total_stock = 3").unwrap();
    assert_eq!(number(&outsider, "SELECT count(*) FROM orders"), 3);
}
