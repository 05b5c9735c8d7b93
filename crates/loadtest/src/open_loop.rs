//! Open loop: attempts start by the clock, whatever the server does.
//!
//! A pacer thread releases one permit for each attempt that is due; buyers, each with its connection, wait for
//! permits and take the next attempt. No reply is ever waited for before an attempt is released. When permits lie
//! unclaimed, every buyer is busy, and the pacer hires more, up to the bound; beyond it attempts wait, and the wait is
//! part of their latency.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Error;
use crate::buyer::{Buyer, Plan};
use crate::interrupt::{Applied, see_through, unless};
use crate::schedule::Schedule;
use crate::tally::Tallies;

/// Connections that are open before the clock starts.
const OPENED_AHEAD: usize = 32;
/// The most buyers hired at one tick, so that a stall does not bring a storm of connects upon the server: 16 made of a stall of
/// 10 ms one of 100.
const HIRED_PER_TICK: usize = 2;
/// The shortest time between two releases: finer would cost CPU that the server under test needs, coarser would
/// count our own delay as the server's. Tokio's timer has whole milliseconds only, hence the thread.
const TICK: Duration = Duration::from_micros(500);

/// The longest sleep of the pacer, so that at a low rate it still notices soon that the run was dropped.
const NAP: Duration = Duration::from_millis(100);

/// What the pacer and the buyers share.
struct Floor {
    schedule: Schedule,
    start: Instant,
    /// A permit for each attempt that is due and not yet taken.
    due: Semaphore,
    /// The next attempt. Attempts are numbers, so that the queue of those that wait takes no memory.
    next: AtomicU64,
    plan: Arc<Plan>,
    tallies: Arc<Tallies>,
}

/// Applies the load until its last attempt is answered or given up, or until `stop`; then only those under way are
/// waited for.
pub(crate) async fn run(
    plan: &Arc<Plan>,
    tallies: &Arc<Tallies>,
    schedule: Schedule,
    max_connections: usize,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Applied, Error> {
    let ahead =
        OPENED_AHEAD.min(max_connections).min(usize::try_from(schedule.total()).unwrap_or(usize::MAX));
    let gathering = Buyer::gather(plan, tallies, ahead);
    let Some(buyers) = unless(stop.as_mut(), gathering).await else { return Ok(Applied::never()) };
    let start = Instant::now();
    let floor = Arc::new(Floor {
        schedule,
        start,
        due: Semaphore::new(0),
        next: AtomicU64::new(0),
        plan: Arc::clone(plan),
        tallies: Arc::clone(tallies),
    });
    let mut crowd = JoinSet::new();
    for buyer in buyers {
        crowd.spawn(buy(Arc::clone(&floor), buyer));
    }
    let _stop = StopPacer(Arc::clone(&floor));
    let shared = Arc::clone(&floor);
    let pacer = tokio::task::spawn_blocking(move || pace(&shared, crowd, max_connections));
    let load = async {
        let mut crowd = pacer.await?;
        while let Some(done) = crowd.join_next().await {
            done?;
        }
        Ok(())
    };
    // Closed, it ends the pacer, and each buyer after the attempt at hand.
    see_through(start, load, stop, || floor.due.close()).await
}

/// Ends the pacer's thread when the run is dropped half-way.
struct StopPacer(Arc<Floor>);

impl Drop for StopPacer {
    fn drop(&mut self) {
        self.0.due.close();
    }
}

/// Releases the attempts on time and hires buyers; returns when all are released and more hands would not help.
fn pace(floor: &Arc<Floor>, mut crowd: JoinSet<()>, max_connections: usize) -> JoinSet<()> {
    let total = floor.schedule.total();
    let mut released = 0;
    while !floor.due.is_closed() {
        let due = floor.schedule.due(floor.start.elapsed());
        // What a buyer waits for goes straight to it; what stays available has nobody.
        floor.due.add_permits((due - released) as usize);
        released = due;
        let waiting = floor.due.available_permits();
        for _ in 0..waiting.min(HIRED_PER_TICK).min(max_connections - crowd.len()) {
            let buyer = Buyer::new(&floor.plan, &floor.tallies, crowd.len());
            crowd.spawn(buy(Arc::clone(floor), buyer));
        }
        if released == total && (waiting == 0 || crowd.len() == max_connections) {
            break;
        }
        let next = if released < total { floor.schedule.intended(released) } else { Duration::ZERO };
        thread::sleep(next.saturating_sub(floor.start.elapsed()).clamp(TICK, NAP));
    }
    // One more for each buyer: it finds no attempt left and goes home.
    floor.due.add_permits(crowd.len());
    crowd
}

/// A buyer's day: takes attempts until none is left.
async fn buy(floor: Arc<Floor>, mut buyer: Buyer) {
    while let Ok(permit) = floor.due.acquire().await {
        permit.forget();
        let attempt = floor.next.fetch_add(1, Ordering::Relaxed);
        if attempt >= floor.schedule.total() {
            return;
        }
        let intended = floor.start + floor.schedule.intended(attempt);
        // Else a server that hangs would hold the run for a time-out per attempt, one after the other.
        if intended.elapsed() > floor.plan.timeout() {
            buyer.give_up();
        } else {
            buyer.attempt(attempt, intended).await;
        }
    }
}
