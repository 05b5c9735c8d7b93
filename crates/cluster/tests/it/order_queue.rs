//! The order queue goes away under those who sell. What they reserve meanwhile is held, told, and not forgotten.

use flashsale_core::conformance::{Harness, check_conserved};

use crate::support::{Bench, wait};

/// Nobody confirms the message, and nobody can say that it will not arrive: the unit stays the buyer's, the entry stays in
/// the outbox, and once there is a queue again the order is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reserved_while_the_order_queue_is_gone_is_stored_when_it_is_back() {
    let bench = Bench::start().await;
    let sale = bench.open("gone", 5).await;
    let channel = bench.channel().await;
    channel.queue_delete(bench.name("purchase_queue"), Default::default()).await.expect("it is deleted");
    let held = bench.reserve(&sale, 1).await;
    let (queue, store) = (bench.queue(), bench.store());
    let stored = async || {
        // Until the queue is made again, there is nothing to receive from.
        let Ok(Some(delivery)) = queue.receive().await else { return false };
        store.confirm(&delivery.reservations).await.expect("they are stored");
        queue.acknowledge(&delivery).await.expect("acknowledged");
        delivery.reservations.iter().any(|one| one.order_id == held.order_id)
    };
    wait("the order", stored).await;
    let orders = store.orders(&sale, 0, 10).await.expect("orders").rows;
    assert_eq!(orders.iter().map(|order| order.id).collect::<Vec<_>>(), [held.order_id]);
    check_conserved(&bench, &sale).await;
}
