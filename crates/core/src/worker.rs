//! The order worker: takes reservations from the order queue and has them confirmed, in batches.
//!
//! At least once from the queue, at most once into the store: the store's answer to a reservation that it
//! has seen before is "already confirmed", so a batch may be delivered, and tried, any number of times.

use std::{sync::Arc, time::Duration};

use tracing::{error, info, warn};

use crate::{
    error::{Error, Result},
    order::{Confirmation, Reservation},
    ports::{Clock, OrderQueue, OrderStore},
};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs until its queue is closed and drained.
pub struct OrderWorker {
    queue: Arc<dyn OrderQueue>,
    store: Arc<dyn OrderStore>,
    clock: Arc<dyn Clock>,
}

/// What a worker has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Orders that it confirmed.
    pub confirmed: u64,
    /// Reservations that were confirmed before.
    pub repeated: u64,
    /// Reservations of older epochs, deleted sales or ended orders.
    pub stale: u64,
    /// Reservations that the store refused for good.
    pub rejected: u64,
}

impl OrderWorker {
    /// A worker between `queue` and `store`.
    pub fn new(queue: Arc<dyn OrderQueue>, store: Arc<dyn OrderStore>, clock: Arc<dyn Clock>) -> Self {
        Self { queue, store, clock }
    }

    /// Works until the queue is closed and drained, and says what was done.
    ///
    /// A part that is away is waited for, with growing pauses.
    pub async fn run(self) -> Work {
        let mut work = Work::default();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.work_once(&mut work).await {
                Ok(true) => pause = FIRST_PAUSE,
                Ok(false) => break,
                Err(error) => {
                    warn!(%error, pause_ms = pause.as_millis(), "the order worker cannot go on yet");
                    self.clock.sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        info!(
            confirmed = work.confirmed,
            repeated = work.repeated,
            stale = work.stale,
            rejected = work.rejected,
            "the order worker is done"
        );
        work
    }

    /// One batch; `false` once there will be no more.
    async fn work_once(&self, work: &mut Work) -> Result<bool> {
        let Some(delivery) = self.queue.receive().await? else { return Ok(false) };
        self.confirm(&delivery.reservations, work).await?;
        self.queue.acknowledge(&delivery).await?;
        Ok(true)
    }

    /// Confirms a batch. Where the store refuses it for good, halves it until the culprit stands alone.
    async fn confirm(&self, batch: &[Reservation], work: &mut Work) -> Result<()> {
        let mut waiting = vec![batch];
        while let Some(part) = waiting.pop() {
            match (self.store.confirm(part).await, part) {
                (Ok(confirmations), _) => work.count(&confirmations),
                (Err(Error::Refused(reason)), [culprit]) => {
                    error!(order = %culprit.order_id, sale = %culprit.sale_id, reason, "an order is refused for good");
                    self.queue.reject(culprit, &reason).await?;
                    work.rejected += 1;
                }
                (Err(Error::Refused(_)), part) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    waiting.extend([second, first]);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Work {
    fn count(&mut self, confirmations: &[Confirmation]) {
        for confirmation in confirmations {
            match confirmation {
                Confirmation::Confirmed => self.confirmed += 1,
                Confirmation::AlreadyConfirmed => self.repeated += 1,
                Confirmation::Stale => self.stale += 1,
            }
        }
    }
}
