//! Closed loop: every connection sends its next attempt as soon as it has the reply to the last.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::Error;
use crate::buyer::{Buyer, Plan};
use crate::interrupt::{Applied, see_through, unless};
use crate::tally::Tallies;

/// The pause after a refused connect: without a server the loop would only spin.
const PAUSE: Duration = Duration::from_millis(50);

/// What the buyers share.
struct Floor {
    /// The next attempt.
    next: AtomicU64,
    end: Instant,
    /// Whether it was told to stop before the end.
    stopped: AtomicBool,
}

/// Applies the load for `duration` or until `stop`, and waits for the replies still due.
pub(crate) async fn run(
    plan: &Arc<Plan>,
    tallies: &Arc<Tallies>,
    connections: usize,
    duration: Duration,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Applied, Error> {
    let gathering = Buyer::gather(plan, tallies, connections);
    let Some(buyers) = unless(stop.as_mut(), gathering).await else { return Ok(Applied::never()) };
    let start = Instant::now();
    let floor =
        Arc::new(Floor { next: AtomicU64::new(0), end: start + duration, stopped: AtomicBool::new(false) });
    let mut crowd = JoinSet::new();
    for buyer in buyers {
        crowd.spawn(buy(buyer, Arc::clone(&floor)));
    }
    let load = async {
        while let Some(done) = crowd.join_next().await {
            done?;
        }
        Ok(())
    };
    see_through(start, load, stop, || floor.stopped.store(true, Ordering::Relaxed)).await
}

async fn buy(mut buyer: Buyer, floor: Arc<Floor>) {
    loop {
        let now = Instant::now();
        if now >= floor.end || floor.stopped.load(Ordering::Relaxed) {
            return;
        }
        let reached = buyer.attempt(floor.next.fetch_add(1, Ordering::Relaxed), now).await;
        if !reached {
            tokio::time::sleep(PAUSE).await;
        }
    }
}
