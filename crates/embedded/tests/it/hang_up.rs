//! Whoever hangs up before the reply: their future is dropped, and what they had set going must go on.

use flashsale_core::{
    Error,
    conformance::{Harness, check_conserved},
    ids::Epoch,
    inventory::Decision,
    order::Ending,
};

use crate::support::{Bench, id, is_pending, number, user, within_patience};

#[tokio::test]
async fn a_buyer_who_hangs_up_during_the_commit_holds_the_unit() {
    let bench = Bench::start().await;
    let sale = bench.sale("hung", 2).await;
    let inventory = bench.inventory();
    let hold = bench.hold();
    let mut attempt = inventory.attempt(&sale, user(1));
    assert!(is_pending(&mut attempt).await);
    drop(attempt);
    hold.release();
    let Ok(Decision::AlreadyPurchased(purchase)) = inventory.attempt(&sale, user(1)).await else {
        panic!("the retry does not find the purchase");
    };
    assert_eq!(purchase.unit.0, 1);
    check_conserved(&bench, &sale).await;
}

/// Once, the sale was then in the ledger but not in memory, and its number was given again: the next sale
/// that was made collided with it, and the ledger stopped all selling.
#[tokio::test]
async fn an_operator_who_hangs_up_while_a_sale_is_made_leaves_the_sale_and_stops_nothing() {
    let bench = Bench::start().await;
    let other = bench.sale("other", 2).await;
    let inventory = bench.inventory();
    let hold = bench.hold();
    let mut creating = inventory.create(bench.new_sale("hung", 2));
    bench.until_known(&id("hung"), &mut creating).await;
    drop(creating);
    hold.release();

    let again = inventory.create(bench.new_sale("hung", 2)).await;
    assert_eq!(again.map(drop), Err(Error::SaleExists(id("hung"))));
    let next = bench.sale("next", 2).await;
    for sale in [&other, &id("hung"), &next] {
        bench.reserve(sale, 1).await;
        check_conserved(&bench, sale).await;
    }
    let bench = bench.restart();
    assert_eq!(bench.embedded.found().sales, 3);
}

/// Once, the sale was then listed for ever, and its id could not be used again.
#[tokio::test]
async fn an_operator_who_hangs_up_while_a_sale_is_deleted_leaves_it_deleted() {
    let bench = Bench::start().await;
    let sale = bench.sale("hung", 2).await;
    let inventory = bench.inventory();
    let hold = bench.hold();
    let mut deleting = inventory.delete(&sale);
    assert!(is_pending(&mut deleting).await);
    drop(deleting);
    assert_eq!(inventory.attempt(&sale, user(1)).await, Err(Error::UnknownSale(sale.clone())));
    // Whoever makes it anew waits for the end of its first life.
    let mut creating = inventory.create(bench.new_sale("hung", 3));
    assert!(is_pending(&mut creating).await);
    hold.release();
    let status = within_patience(creating).await.unwrap();
    assert_eq!((status.sale.epoch, status.sale.total_stock), (Epoch(2), 3));
    assert_eq!(inventory.statuses().await.unwrap().len(), 1);
    bench.reserve(&sale, 1).await;
    check_conserved(&bench, &sale).await;
    assert_eq!(number(&bench.outsider(), "SELECT count(*) FROM retired_sales"), 0);
}

#[tokio::test]
async fn whoever_hangs_up_during_a_release_or_a_confirmation_has_had_it_done() {
    let bench = Bench::start().await;
    let sale = bench.sale("hung", 2).await;
    let (first, second) = (bench.reserve(&sale, 1).await, [bench.reserve(&sale, 2).await]);
    let (inventory, store) = (bench.inventory(), bench.store());
    let hold = bench.hold();
    let mut releasing = inventory.release(&first, Ending::Cancelled);
    let mut confirming = store.confirm(&second);
    assert!(is_pending(&mut releasing).await);
    assert!(is_pending(&mut confirming).await);
    drop((releasing, confirming));
    hold.release();
    let status = inventory.status(&sale).await.unwrap();
    assert_eq!((status.available(), status.reserved, status.confirmed), (1, 0, 1));
    check_conserved(&bench, &sale).await;
}
