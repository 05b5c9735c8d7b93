//! A part of what Redis knows is lost, or somebody died in the middle of a change: what is left must not decide, and is mended.

use std::time::Duration;

use flashsale_core::{
    Error,
    conformance::{Harness, check_conserved},
    ids::Unit,
    inventory::Decision,
    order::Ending,
    sale::{NewSale, Window},
};

use sqlx::{Connection, PgConnection};

use crate::support::{Bench, id, user, wait};

async fn a_key_is_lost(key: &str) {
    a_key_is_damaged(key, &[redis::cmd("DEL")]).await;
}

/// More than one call of Redis lists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_sales_are_all_there_once_one_is() {
    let bench = Bench::start().await;
    let sale = bench.open("last", 3).await;
    let mut database = PgConnection::connect(&bench.site.database_url()).await.expect("a connection");
    let many = "INSERT INTO sales (id, name, total_stock, starts_at, ends_at, epoch) \
        SELECT 'many-' || one, 'Many', 1, now(), now() + interval '1 hour', 1 FROM generate_series(1, 2500) AS one";
    sqlx::query(many).execute(&mut database).await.expect("sales");
    bench.forget().await;
    let last = id("many-2500");
    // While the list is incomplete, nobody is told that a sale is not there, nor that these are all.
    let found = async || {
        match bench.inventory().status(&last).await {
            Ok(_) | Err(Error::Unavailable { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        match bench.inventory().statuses().await {
            Ok(all) => all.len() == 2_501 || panic!("{} sales", all.len()),
            Err(Error::Unavailable { .. }) => false,
            Err(other) => panic!("{other:?}"),
        }
    };
    wait("the sales are back", found).await;
    assert_eq!(bench.reserve(&sale, 1).await.unit, Unit(1));
}

/// The key is what comes after each of the commands.
async fn a_key_is_damaged(key: &str, commands: &[redis::Cmd]) {
    let bench = Bench::start().await;
    let sale = bench.open("lost", 3).await;
    let first = bench.reserve(&sale, 1).await;
    let second = bench.reserve(&sale, 2).await;
    assert!(bench.inventory().release(&first, Ending::Cancelled).await.expect("an answer"), "it is released");
    let mut redis = bench.redis().await;
    let name = format!("{}:sale:{sale}:{key}", bench.site.name);
    let there: u32 = redis::cmd("EXISTS").arg(&name).query_async(&mut redis).await.expect("Redis answers");
    assert_eq!(there, 1, "there is such a key");
    for command in commands {
        command.clone().arg(&name).exec_async(&mut redis).await.expect("Redis answers");
    }

    let told = bench.inventory().attempt(&sale, user(3)).await;
    assert!(matches!(told, Err(Error::Unavailable { .. })), "without {key}: {told:?}");
    // Ready is said of the list, and may be said before the loss is known there. Whoever asks again is told what holds.
    wait("sales go on", async || bench.inventory().attempt(&sale, user(3)).await.is_ok()).await;
    let third = bench.attempt(&sale, 3).await;
    assert!(
        matches!(&third, Decision::AlreadyPurchased(held) if held.unit == Unit(1)),
        "without {key}: {third:?}"
    );
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

/// Redis answers, and says that it cannot do that: as long as nobody looked why, that was "away" for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_something_else_in_the_place_of_a_key() {
    for key in ["meta", "stock", "users", "orders", "returned"] {
        // A stream, which none of these is.
        let mut other = redis::cmd("EVAL");
        other.arg("redis.call('DEL', KEYS[1]) redis.call('XADD', KEYS[1], '*', 'junk', '1')").arg(1);
        a_key_is_damaged(key, &[other]).await;
    }
    let mut text = redis::cmd("EVAL");
    text.arg("redis.call('SET', KEYS[1], 'junk')").arg(1);
    a_key_is_damaged("outbox", &[text]).await;
}

/// Somebody closed the gate and died. It opens again also for those who ask only now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_was_left_closed() {
    let bench = Bench::start().await;
    let sale = bench.open("shut", 3).await;
    let held = bench.reserve(&sale, 1).await;
    let mut redis = bench.redis().await;
    let meta = format!("{}:sale:{sale}:meta", bench.site.name);
    let long_ago = ["gate", "somebody who died", "closed_at", "1771815600000"];
    redis::cmd("HSET").arg(meta).arg(&long_ago).exec_async(&mut redis).await.expect("closed");
    let told = bench.inventory().attempt(&sale, user(2)).await;
    assert!(matches!(told, Err(Error::Unavailable { .. })), "{told:?}");
    // Nobody asks again before it is open.
    let open = async || bench.inventory().status(&sale).await.is_ok_and(|status| status.sold() == 1);
    wait("it is open again", open).await;
    wait("sales go on", async || bench.inventory().attempt(&sale, user(2)).await.is_ok()).await;
    let known = bench.attempt(&sale, 1).await;
    assert!(
        matches!(&known, Decision::AlreadyPurchased(known) if known.order_id == held.order_id),
        "{known:?}"
    );
    check_conserved(&bench, &sale).await;
}

/// Somebody died between the records and Redis: the sale is there for whoever tries to make it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_that_is_on_record_and_not_in_redis() {
    let bench = Bench::start().await;
    let mut records = PgConnection::connect(&bench.site.database_url()).await.expect("PostgreSQL answers");
    let insert = "INSERT INTO sales (id, name, total_stock, starts_at, ends_at, epoch) \
                  VALUES ('limbo', 'limbo', 3, now() - interval '1 hour', now() + interval '1 hour', 1)";
    sqlx::query(insert).execute(&mut records).await.expect("on record");
    let made = "INSERT INTO trail (sale_no, kind, epoch, place, at, user_id, detail) \
                SELECT no, 9, 1, 1::bigint << 32, now(), 'operator', '{\"totalStock\":3}' FROM sales WHERE id = 'limbo'";
    sqlx::query(made).execute(&mut records).await.expect("on record");
    let now = bench.now();
    let hour = Duration::from_secs(3_600);
    let window = Window::new(now.before(hour), now.after(hour)).expect("a valid window");
    let again = NewSale::new(id("limbo"), "limbo".to_owned(), 3, window).expect("a valid sale");
    let told = bench.inventory().create(again).await;
    assert!(matches!(told, Err(Error::SaleExists(_))), "{told:?}");
    wait("it is sold", async || bench.inventory().attempt(&id("limbo"), user(1)).await.is_ok()).await;
    check_conserved(&bench, &id("limbo")).await;
}
