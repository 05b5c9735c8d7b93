//! A ledger that cannot be written: selling stops at once and for good, nothing is half written, and the next
//! start sells what is left.

use flashsale_core::{
    Error,
    conformance::{Harness, check_conserved},
    ids::SaleId,
    inventory::Decision,
    sale::SaleChange,
};
use rusqlite::Connection;

use crate::support::{Bench, at_once, is_pending, number, reserved, user, within_patience};

/// The ledger refuses every row of this user.
const BROKEN_DISK: &str = "CREATE TRIGGER broken_disk BEFORE INSERT ON live_orders WHEN NEW.user_id = 'user-4' \
     BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
/// The rows can be written, and the commit fails.
const BROKEN_COMMIT: &str = "CREATE TABLE parents (id INTEGER PRIMARY KEY); \
     CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED); \
     CREATE TRIGGER broken_disk AFTER INSERT ON live_orders WHEN NEW.user_id = 'user-4' \
     BEGIN INSERT INTO children VALUES (1); END";

fn reason<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(Error::Unavailable { reason, .. }) => reason,
        other => panic!("it should have been unavailable, but: {other:?}"),
    }
}

fn rows(connection: &Connection) -> (i64, i64) {
    (number(connection, "SELECT count(*) FROM orders"), number(connection, "SELECT count(*) FROM trail"))
}

async fn everything_is_refused(bench: &Bench, sale: &SaleId, why: &str) {
    let inventory = bench.inventory();
    let change = SaleChange { paused: Some(true), ..SaleChange::default() };
    for refused in [
        reason(inventory.ready().await),
        reason(inventory.attempt(sale, user(9)).await),
        // Even who holds a unit: it is only after a start that anybody knows what is on the disk.
        reason(inventory.attempt(sale, user(1)).await),
        reason(inventory.change(sale, change).await),
        reason(inventory.reset(sale, None).await),
        reason(inventory.create(bench.new_sale("another", 1)).await),
        reason(bench.store().figures(sale).await),
    ] {
        assert!(refused.contains("selling has stopped") && refused.contains(why), "{refused}");
    }
}

/// The ledger breaks under a group of entries; everything but the way it breaks is the same.
async fn breaks(how: &str, why: &str) {
    let bench = Bench::start().await;
    let (sold_out, open) = (bench.sale("sold", 1).await, bench.sale("open", 5).await);
    bench.reserve(&sold_out, 1).await;
    let before = [bench.reserve(&open, 1).await, bench.reserve(&open, 2).await];
    let (inventory, outsider) = (bench.inventory(), bench.outsider());
    let (orders, trail) = rows(&outsider);

    let hold = bench.hold();
    hold.execute(how);
    // The ledger stands before the lock with the first group, a change that it will be able to write…
    let change = SaleChange { name: Some("Renamed".to_owned()), ..SaleChange::default() };
    let mut changing = inventory.change(&open, change);
    assert!(is_pending(&mut changing).await);
    bench.until_taken();
    // …so these three are the second group: two that it could write, and one that breaks it.
    assert_eq!(at_once(&mut inventory.attempt(&sold_out, user(2))).await, Some(Ok(Decision::SoldOut)));
    let (mut third, mut fourth) = (inventory.attempt(&open, user(3)), inventory.attempt(&open, user(4)));
    assert!(is_pending(&mut third).await);
    assert!(is_pending(&mut fourth).await);
    let late = user(3);
    let mut lookup = inventory.purchase(&open, &late);
    assert!(is_pending(&mut lookup).await);
    hold.release();

    assert_eq!(changing.await.expect("it was written").sale.name, "Renamed");
    let answers = async { [reason(third.await), reason(fourth.await), reason(lookup.await)] };
    for refused in within_patience(answers).await {
        assert!(refused.contains(why), "{refused}");
    }
    within_patience(everything_is_refused(&bench, &open, why)).await;
    assert_eq!(rows(&outsider), (orders, trail + 1), "nothing of the second group is written");

    outsider.execute_batch("DROP TRIGGER broken_disk").expect("mended");
    within_patience(everything_is_refused(&bench, &open, why)).await;
    drop(outsider);
    let bench = bench.restart();
    let inventory = bench.inventory();
    inventory.ready().await.expect("it can sell");
    for held in before {
        let found = inventory.purchase(&open, &held.user_id).await.expect("a lookup");
        assert_eq!(found.map(|found| (found.order_id, found.unit)), Some((held.order_id, held.unit)));
    }
    assert_eq!(inventory.purchase(&open, &user(3)).await, Ok(None), "whoever was refused holds nothing");
    for (buyer, unit) in [(4, 3), (3, 4), (5, 5)] {
        assert_eq!(reserved(inventory.attempt(&open, user(buyer)).await.expect("a decision")).unit.0, unit);
    }
    assert_eq!(inventory.attempt(&open, user(6)).await, Ok(Decision::SoldOut));
    check_conserved(&bench, &open).await;
    check_conserved(&bench, &sold_out).await;
}

#[tokio::test]
async fn a_failed_write_stops_selling_for_good_and_leaves_nothing_half_written() {
    breaks(BROKEN_DISK, "the disk is full").await;
}

#[tokio::test]
async fn a_failed_commit_stops_selling_for_good_and_leaves_nothing_half_written() {
    breaks(BROKEN_COMMIT, "FOREIGN KEY constraint failed").await;
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_whatever_is_told_of_a_failure_and_does_not_wait_on() {
    let bench = Bench::start().await;
    let (sold_out, open) = (bench.sale("sold", 1).await, bench.sale("open", 5).await);
    bench.reserve(&sold_out, 1).await;
    let inventory = bench.inventory();
    let hold = bench.hold();
    hold.execute(BROKEN_DISK);
    let mut fourth = inventory.attempt(&open, user(4));
    assert!(is_pending(&mut fourth).await);
    bench.until_taken();
    let mut behind = inventory.attempt(&open, user(5));
    assert!(is_pending(&mut behind).await);
    let asked = user(4);
    let mut lookup = inventory.purchase(&open, &asked);
    assert!(is_pending(&mut lookup).await);
    let mut fill = 10;
    let mut waiting = loop {
        let mut attempt = inventory.attempt(&sold_out, user(fill));
        if at_once(&mut attempt).await.is_none() {
            break attempt;
        }
        fill += 1;
    };
    assert!(is_pending(&mut waiting).await);
    // Real time from here on, and far less of it than the patience of whoever waits.
    tokio::time::resume();
    hold.release();
    let failed = reason(within_patience(fourth).await);
    assert_eq!(reason(within_patience(behind).await), failed);
    assert_eq!(reason(within_patience(lookup).await), failed);
    assert_eq!(at_once(&mut waiting).await.map(reason), Some(failed));
}

#[tokio::test]
async fn a_stop_after_a_failure_ends() {
    let bench = Bench::start().await;
    let open = bench.sale("open", 5).await;
    let queue = bench.queue();
    bench.outsider().execute_batch(BROKEN_DISK).unwrap();
    reason(bench.inventory().attempt(&open, user(4)).await);
    bench.embedded.close_queue();
    assert!(within_patience(queue.receive()).await.unwrap().is_none(), "the order queue ends");
    bench.embedded.close();
    bench.embedded.close();
    reason(bench.inventory().attempt(&open, user(5)).await);
}
