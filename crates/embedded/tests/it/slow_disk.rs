//! No reply rests on what is not yet durable (ADR 0004), and what waits for the disk is bounded (P8).
//!
//! The disk is made slow by somebody else who holds the ledger's write lock.

use std::time::Duration;

use flashsale_core::{
    Error,
    conformance::{Harness, check_conserved},
    ids::{SaleId, UserId},
    inventory::Decision,
    order::{Confirmation, Ending, OrderStatus},
    sale::SaleChange,
};

use crate::support::{Bench, at_once, id, is_pending, number, reserved, user, within_patience};

/// Of the commit queue, in entries.
const CAPACITY: u32 = 16_384;
/// How long an attempt waits for room in it.
const PATIENCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn nobody_is_told_of_a_purchase_before_it_is_committed() {
    let bench = Bench::start().await;
    let sale = bench.sale("last", 1).await;
    let (inventory, first, second) = (bench.inventory(), user(1), user(2));
    let hold = bench.hold();

    let mut purchase = inventory.attempt(&sale, first.clone());
    assert!(is_pending(&mut purchase).await, "SUCCESS before the commit");
    bench.until_taken();
    // The purchase is decided, and stands before the lock. All of these would rest on it.
    let mut again = inventory.attempt(&sale, first.clone());
    let mut turned_away = inventory.attempt(&sale, second);
    let mut lookup = inventory.purchase(&sale, &first);
    assert!(is_pending(&mut again).await, "ALREADY_PURCHASED before the commit");
    assert!(is_pending(&mut turned_away).await, "SOLD_OUT before the last unit's commit");
    assert!(is_pending(&mut lookup).await, "a lookup that knows of it before the commit");
    assert!(is_pending(&mut purchase).await, "SUCCESS before the commit");
    assert_eq!(number(&bench.outsider(), "SELECT count(*) FROM orders"), 0);

    hold.release();
    let held = reserved(within_patience(purchase).await.unwrap());
    assert_eq!(number(&bench.outsider(), "SELECT count(*) FROM orders"), 1);
    let Ok(Decision::AlreadyPurchased(found)) = within_patience(again).await else {
        panic!("a user got a second unit")
    };
    assert_eq!((found.order_id, found.unit), (held.order_id, held.unit));
    assert_eq!(within_patience(turned_away).await, Ok(Decision::SoldOut));
    assert_eq!(within_patience(lookup).await.unwrap().map(|found| found.order_id), Some(held.order_id));
    check_conserved(&bench, &sale).await;
}

#[tokio::test]
async fn every_purchase_is_in_the_file_by_the_time_its_buyer_is_told() {
    let bench = Bench::start().await;
    let sale = bench.sale("told", 200).await;
    let outsider = bench.outsider();
    let mut look = outsider.prepare("SELECT count(*) FROM orders WHERE id = ?1").unwrap();
    for buyer in 0..200 {
        let held = bench.reserve(&sale, buyer).await;
        let rows: i64 = look.query_row([held.order_id.to_string()], |row| row.get(0)).unwrap();
        assert_eq!(rows, 1, "{held:?}");
    }
}

#[tokio::test]
async fn a_rejection_that_rests_on_what_is_durable_does_not_wait_for_the_disk() {
    let bench = Bench::start().await;
    let (sold_out, busy, upcoming) =
        (bench.sale("sold", 1).await, bench.sale("busy", 9).await, id("upcoming"));
    bench.inventory().create(bench.upcoming_sale("upcoming")).await.unwrap();
    let held = bench.reserve(&sold_out, 1).await;

    let hold = bench.hold();
    let inventory = bench.inventory();
    let mut behind = inventory.attempt(&busy, user(1));
    assert!(is_pending(&mut behind).await);
    bench.until_taken();

    let attempt = async |sale: &SaleId, user: UserId| at_once(&mut inventory.attempt(sale, user)).await;
    assert_eq!(attempt(&sold_out, user(2)).await, Some(Ok(Decision::SoldOut)));
    assert_eq!(attempt(&upcoming, user(2)).await, Some(Ok(Decision::NotActive)));
    let Some(Ok(Decision::AlreadyPurchased(found))) = attempt(&sold_out, user(1)).await else {
        panic!("a durable purchase is not known at once");
    };
    assert_eq!(found.order_id, held.order_id);
    let lookup = at_once(&mut inventory.purchase(&sold_out, &user(1))).await;
    assert_eq!(lookup, Some(Ok(Some(found))));
    let lookup = at_once(&mut inventory.purchase(&sold_out, &user(2))).await;
    assert_eq!(lookup, Some(Ok(None)));

    // A confirmation on its way holds up those who would be told of it, and nobody else.
    let (store, held) = (bench.store(), [held]);
    let mut confirmation = store.confirm(&held);
    assert!(is_pending(&mut confirmation).await, "CONFIRMED before the commit");
    let mut again = inventory.attempt(&sold_out, user(1));
    assert!(is_pending(&mut again).await, "a status before its commit");
    assert_eq!(attempt(&sold_out, user(3)).await, Some(Ok(Decision::SoldOut)));

    hold.release();
    reserved(within_patience(behind).await.unwrap());
    assert_eq!(within_patience(confirmation).await.unwrap(), [Confirmation::Confirmed]);
    let Ok(Decision::AlreadyPurchased(found)) = within_patience(again).await else {
        panic!("a user got a second unit")
    };
    assert_eq!(found.status, OrderStatus::Confirmed);
    // Their rows rode along.
    let figures = bench.store().figures(&sold_out).await.unwrap();
    assert_eq!((figures.attempts_sold_out, figures.attempts_duplicate), (2, 2));
    for sale in [&sold_out, &busy, &upcoming] {
        check_conserved(&bench, sale).await;
    }
}

#[tokio::test]
async fn whatever_changes_a_sale_is_answered_after_its_commit() {
    let bench = Bench::start().await;
    let (inventory, change) = (bench.inventory(), SaleChange { paused: Some(true), ..SaleChange::default() });
    let (paused, reset, empty) =
        (bench.sale("paused", 2).await, bench.sale("reset", 2).await, bench.sale("empty", 2).await);
    let held = bench.reserve(&paused, 1).await;

    let hold = bench.hold();
    let mut releasing = inventory.release(&held, Ending::Cancelled);
    let mut changing = inventory.change(&paused, change);
    let mut resetting = inventory.reset(&reset, None);
    let mut deleting = inventory.delete(&empty);
    assert!(is_pending(&mut releasing).await, "released before the commit");
    assert!(is_pending(&mut changing).await, "changed before the commit");
    assert!(is_pending(&mut resetting).await, "reset before the commit");
    assert!(is_pending(&mut deleting).await, "deleted before the commit");
    // A pause that is not durable yet is nothing to turn people away for.
    let mut turned_away = inventory.attempt(&paused, user(2));
    assert!(is_pending(&mut turned_away).await, "NOT_ACTIVE before the pause is committed");

    hold.release();
    assert_eq!(within_patience(releasing).await, Ok(true));
    assert!(within_patience(changing).await.unwrap().sale.paused);
    assert_eq!(within_patience(resetting).await.unwrap().sale.epoch.0, 2);
    within_patience(deleting).await.unwrap();
    assert_eq!(within_patience(turned_away).await, Ok(Decision::NotActive));
    check_conserved(&bench, &paused).await;
    check_conserved(&bench, &reset).await;
    assert_eq!(number(&bench.outsider(), "SELECT count(*) FROM sales"), 2);
}

#[tokio::test]
async fn a_sale_is_made_after_its_commit_and_nobody_is_answered_about_it_before() {
    let bench = Bench::start().await;
    let (inventory, sale) = (bench.inventory(), id("made"));
    let hold = bench.hold();
    let mut creating = inventory.create(bench.upcoming_sale("made"));
    bench.until_known(&sale, &mut creating).await;
    assert!(is_pending(&mut creating).await, "made before the commit");
    let mut early = inventory.attempt(&sale, user(1));
    assert!(is_pending(&mut early).await, "NOT_ACTIVE before it is sure that there is a sale");

    hold.release();
    within_patience(creating).await.unwrap();
    assert_eq!(within_patience(early).await, Ok(Decision::NotActive));
    assert_eq!(number(&bench.outsider(), "SELECT count(*) FROM sales"), 1);
    check_conserved(&bench, &sale).await;
}

#[tokio::test(start_paused = true)]
async fn at_its_bound_the_ledger_makes_attempts_wait_and_then_turns_them_away_and_drops_nothing() {
    let bench = Bench::start().await;
    let (sold_out, open) = (bench.sale("sold", 1).await, bench.sale("open", 3).await);
    bench.reserve(&sold_out, 1).await;
    let inventory = bench.inventory();
    let hold = bench.hold();
    let mut first = inventory.attempt(&open, user(1));
    assert!(is_pending(&mut first).await);
    bench.until_taken();

    let mut answered = 0;
    let mut one_too_many = loop {
        let mut attempt = inventory.attempt(&sold_out, user(2 + answered));
        match at_once(&mut attempt).await {
            Some(decision) => assert_eq!(decision, Ok(Decision::SoldOut)),
            None => break attempt,
        }
        answered += 1;
    };
    assert_eq!(answered, CAPACITY);
    assert_eq!(bench.embedded.totals().waiting, CAPACITY as usize);

    // Nothing else goes on in this runtime, so its clock jumps to the end of the wait.
    let began = tokio::time::Instant::now();
    assert!(is_pending(&mut one_too_many).await);
    assert_eq!(one_too_many.await, Err(Error::Busy { retry_after: PATIENCE }));
    let waited = began.elapsed();
    assert!((PATIENCE..PATIENCE + Duration::from_millis(10)).contains(&waited), "{waited:?}");
    let busy = inventory.attempt(&open, user(2)).await;
    assert_eq!(busy, Err(Error::Busy { retry_after: PATIENCE }), "a purchase is turned away like anybody");
    assert_eq!(bench.embedded.totals().waiting, CAPACITY as usize);

    tokio::time::resume();
    let mut patient = inventory.attempt(&open, user(3));
    assert!(is_pending(&mut patient).await);
    hold.release();
    assert_eq!(reserved(within_patience(first).await.unwrap()).unit.0, 1);
    assert_eq!(
        reserved(within_patience(patient).await.unwrap()).unit.0,
        2,
        "whoever was turned away took no unit"
    );
    assert_eq!(inventory.purchase(&open, &user(2)).await, Ok(None));

    let figures = bench.store().figures(&sold_out).await.unwrap();
    assert_eq!(
        (figures.attempted, figures.attempts_sold_out),
        (1 + u64::from(answered), u64::from(answered))
    );
    assert_eq!(bench.store().figures(&open).await.unwrap().attempted, 2);
    check_conserved(&bench, &sold_out).await;
    check_conserved(&bench, &open).await;
    assert_eq!(bench.embedded.totals().waiting, 0);
}
