//! Many users in one call: the same decisions as the state machine makes one by one.

use flashsale_core::{
    conformance::{Dice, Harness, check_conserved},
    ids::{OrderId, Place},
    inventory::{Decision, Inventory},
};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::support::{Bench, user};

/// Crowds with repetitions, of sales that they sell out, against the model that takes them one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_decided_as_one_after_the_other() {
    let bench = Bench::start().await;
    for seed in 1..=6_u64 {
        let mut dice = Dice::new(seed);
        let sale = bench.open(&format!("crowd-{seed}"), 1 + dice.roll(400)).await;
        let status = bench.inventory().status(&sale).await.expect("a status");
        let mut model = Inventory::new(status.sale, Place(1));
        for round in 0..6 {
            let numbers: Vec<u32> = (0..dice.roll(300)).map(|_| dice.roll(600)).collect();
            // Polled in this order, so that they gather in this order.
            let attempts = numbers.iter().map(|number| {
                let (inventory, sale) = (bench.inventory(), sale.clone());
                async move { inventory.attempt(&sale, user(*number)).await.expect("a decision") }
            });
            let decisions = join_all(attempts).await;
            for (number, decision) in numbers.iter().zip(&decisions) {
                let minted = match decision {
                    Decision::Reserved(held) => held.order_id,
                    _ => OrderId(Uuid::nil()),
                };
                let expected = model.attempt(&user(*number), status.now, || minted).decision;
                let same = match (decision, &expected) {
                    (Decision::Reserved(left), Decision::Reserved(right)) => {
                        (&left.user_id, left.unit, left.epoch) == (&right.user_id, right.unit, right.epoch)
                    }
                    (left, right) => left == right,
                };
                assert!(same, "seed {seed}, round {round}, user {number}: {decision:?} ≠ {expected:?}");
            }
        }
        check_conserved(&bench, &sale).await;
    }
    let totals = bench.cluster.totals();
    assert!(totals.decided > 8 * totals.calls, "many users a call: {totals:?}");
}
