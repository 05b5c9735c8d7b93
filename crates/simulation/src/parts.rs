//! What the simulated program is given instead of the world: clock, order ids, and an order queue that is as unruly as a
//! queue may be.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use async_trait::async_trait;
use flashsale_core::{
    Result,
    clock::Timestamp,
    ids::OrderId,
    order::Reservation,
    ports::{Clock, Delivery, OrderIds, OrderQueue},
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The clock on the wall. What sleeps goes by Tokio's, which stands still until it is advanced.
pub(crate) struct WallClock(pub(crate) AtomicI64);

impl WallClock {
    pub(crate) fn add(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

#[async_trait]
impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Ids that count.
#[derive(Default)]
pub(crate) struct CountingIds(AtomicU64);

impl OrderIds for CountingIds {
    fn mint(&self, _: Timestamp) -> OrderId {
        OrderId(uuid::Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1))
    }
}

/// Set when a future should be asked again.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn raised() -> Arc<Self> {
        Arc::new(Self(AtomicBool::new(true)))
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn lower(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(self.clone())
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A delivery that was handed out before.
const REPEATED: u64 = u64::MAX;
/// How many old deliveries are kept.
const OLD_MAX: usize = 24;

/// What makes the queue unruly; it outlives the process, as messages do.
#[derive(Default)]
pub(crate) struct Unruly {
    old: Mutex<Vec<Vec<Reservation>>>,
    /// Which of them is delivered next.
    again: Mutex<Option<usize>>,
    /// Whether the next delivery is held back.
    slow: AtomicBool,
    nudge: Notify,
    let_go: Notify,
    /// How often an old batch was delivered.
    pub(crate) repeated: AtomicU64,
    pub(crate) held: AtomicBool,
}

impl Unruly {
    pub(crate) fn old(&self) -> usize {
        self.old.lock().len()
    }

    /// Delivers an old batch once more.
    pub(crate) fn repeat(&self, index: usize) {
        *self.again.lock() = Some(index);
        self.nudge.notify_one();
    }

    /// Holds the next delivery back.
    pub(crate) fn hold_next(&self) {
        self.slow.store(true, Ordering::Relaxed);
    }

    /// Lets go what is held back.
    pub(crate) fn let_go(&self) {
        self.slow.store(false, Ordering::Relaxed);
        if self.held.swap(false, Ordering::Relaxed) {
            self.let_go.notify_one();
        }
    }
}

/// An order queue that repeats and delays.
pub(crate) struct UnrulyQueue {
    pub(crate) inner: Arc<dyn OrderQueue>,
    pub(crate) unruly: Arc<Unruly>,
}

#[async_trait]
impl OrderQueue for UnrulyQueue {
    async fn receive(&self) -> Result<Option<Delivery>> {
        loop {
            let again = self.unruly.again.lock().take();
            if let Some(reservations) = again.and_then(|index| self.unruly.old.lock().get(index).cloned()) {
                self.unruly.repeated.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(Delivery { reservations, tag: REPEATED }));
            }
            let delivery = tokio::select! {
                biased;
                () = self.unruly.nudge.notified() => continue,
                delivery = self.inner.receive() => delivery?,
            };
            let Some(delivery) = delivery else { return Ok(None) };
            if self.unruly.slow.swap(false, Ordering::Relaxed) {
                self.unruly.held.store(true, Ordering::Relaxed);
                self.unruly.let_go.notified().await;
            }
            let mut old = self.unruly.old.lock();
            if old.len() < OLD_MAX {
                old.push(delivery.reservations.clone());
            }
            return Ok(Some(delivery));
        }
    }

    async fn acknowledge(&self, delivery: &Delivery) -> Result<()> {
        if delivery.tag == REPEATED {
            return Ok(());
        }
        self.inner.acknowledge(delivery).await
    }

    async fn reject(&self, reservation: &Reservation, reason: &str) -> Result<()> {
        self.inner.reject(reservation, reason).await
    }
}
