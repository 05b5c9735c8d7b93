//! Closed loop: every connection sends its next attempt as soon as it has the reply to the last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Error;
use crate::buyer::{Buyer, Plan};
use crate::tally::Tallies;

/// The pause after a refused connect: without a server the loop would only spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Applies the load for `duration`, and waits for the replies still due. Returns the start of the clock.
pub(crate) async fn run(
    plan: &Arc<Plan>,
    tallies: &Arc<Tallies>,
    connections: usize,
    duration: Duration,
) -> Result<Instant, Error> {
    let buyers = Buyer::gather(plan, tallies, connections).await;
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let mut crowd = JoinSet::new();
    for buyer in buyers {
        crowd.spawn(buy(buyer, Arc::clone(&next), start + duration));
    }
    while let Some(done) = crowd.join_next().await {
        done?;
    }
    Ok(start)
}

async fn buy(mut buyer: Buyer, next: Arc<AtomicU64>, end: Instant) {
    loop {
        let now = Instant::now();
        if now >= end {
            return;
        }
        let reached = buyer.attempt(next.fetch_add(1, Ordering::Relaxed), now).await;
        if !reached {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
