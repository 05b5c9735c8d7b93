//! What people watch: the newest state of a sale, told to everybody who looks at it.
//!
//! One task ([`Hub::run`]) looks at the sales that are watched, encodes what has changed once, and hands the same
//! bytes to all their viewers. It works the same on every profile, since it asks as anybody asks, and it
//! costs nothing while nobody watches. A viewer only ever holds the newest state: whoever reads slowly misses what lies
//! between, and nobody waits for him.
//!
//! - [`channel`]: one sale, and who watches it.
//! - [`overview`]: all sales, and who watches them.
//! - [`viewer`]: the stream that one viewer reads.

mod channel;
mod overview;
mod viewer;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use flashsale_core::{Error, Result, ids::SaleId, service::SaleService};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

pub(crate) use self::viewer::Viewer;
use self::{channel::Channel, overview::Overview};

/// How often a watched sale is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How often viewers are told of changes when they are many: in groups, one after the other, so that a crowd of them
/// does not wake at once.
const BEAT: Duration = Duration::from_millis(20);
/// The most events a second to all viewers together; beyond it, each is told less often.
const EVENTS_A_SECOND: u32 = 10_000;
/// The same while units go faster than anybody can read: those who buy come first.
const EVENTS_A_SECOND_IN_A_RUSH: u32 = 5_000;
/// How many units a second are a rush.
const RUSH: u32 = 2_000;
/// When a viewer is told that nothing has changed: a sign of life, and the time.
const SILENCE: Duration = Duration::from_secs(15);
/// Sales that are looked at side by side.
const LOOKS_AT_ONCE: usize = 32;
/// When somebody for whom there is no room should come again.
const FULL: Duration = Duration::from_secs(5);

/// Everybody who watches, and what they watch.
pub(crate) struct Hub {
    sales: SaleService,
    watched: Mutex<Watched>,
    room: Arc<Semaphore>,
    viewers_max: u32,
    /// Told of each new viewer.
    somebody: Notify,
}

type Channels = Vec<(SaleId, Arc<Channel>)>;

/// What is watched.
struct Watched {
    channels: HashMap<SaleId, Arc<Channel>>,
    overview: Option<Arc<Overview>>,
    closed: bool,
}

impl Hub {
    /// A hub for at most `viewers_max` viewers.
    pub(crate) fn new(sales: SaleService, viewers_max: u32) -> Arc<Self> {
        let watched = Watched { channels: HashMap::new(), overview: None, closed: false };
        Arc::new(Self {
            sales,
            watched: Mutex::new(watched),
            room: Arc::new(Semaphore::new(viewers_max as usize)),
            viewers_max,
            somebody: Notify::new(),
        })
    }

    /// Watches one sale.
    pub(crate) async fn watch(&self, sale: &str) -> Result<Viewer> {
        let sale: SaleId = sale.parse()?;
        let permit = self.enter()?;
        // Also what is watched already is asked for anew where the last look is old: nobody begins with a stale state.
        let known = self.watched.lock().channels.get(&sale).and_then(|channel| channel.fresh());
        let status = match known {
            Some(status) => status,
            None => self.sales.status(sale.as_str()).await?,
        };
        let viewer = {
            let mut watched = self.watched.lock();
            if watched.closed {
                return Err(closing());
            }
            let channel = watched.channels.entry(sale).or_insert_with(|| Arc::new(Channel::new(status)));
            Viewer::of_sale(channel, permit)
        };
        self.somebody.notify_one();
        Ok(viewer)
    }

    /// Watches all sales.
    pub(crate) async fn watch_all(&self) -> Result<Viewer> {
        let permit = self.enter()?;
        let known = self.watched.lock().overview.clone();
        if known.is_none() {
            let made = Overview::of(self.sales.statuses().await?);
            self.watched.lock().overview.get_or_insert_with(|| Arc::new(made));
        }
        let viewer = {
            let watched = self.watched.lock();
            let overview = watched.overview.as_ref().filter(|_| !watched.closed).ok_or_else(closing)?;
            Viewer::of_all(overview, permit)
        };
        self.somebody.notify_one();
        Ok(viewer)
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().map_err(|_| Error::Unavailable {
            reason: format!(
                "as many watch already as may ({}); ask for the status instead",
                self.viewers_max
            ),
            retry_after: FULL,
        })
    }

    /// Everybody who watches.
    pub(crate) fn viewers(&self) -> u32 {
        let free = u32::try_from(self.room.available_permits()).unwrap_or(u32::MAX);
        self.viewers_max.saturating_sub(free)
    }

    /// How many watch each sale.
    pub(crate) fn viewers_by_sale(&self) -> Vec<(SaleId, u32)> {
        let watched = self.watched.lock();
        watched.channels.iter().map(|(sale, channel)| (sale.clone(), channel.viewers())).collect()
    }

    /// Ends all streams; nobody can watch any more.
    pub(crate) fn close(&self) {
        let mut watched = self.watched.lock();
        watched.closed = true;
        watched.channels.clear();
        watched.overview = None;
        self.somebody.notify_one();
    }

    /// Looks and tells, until the hub is closed.
    pub(crate) async fn run(self: Arc<Self>) {
        let origin = Instant::now();
        let (mut looked, mut looked_at_all) = (None::<Instant>, None::<Instant>);
        let mut rush = false;
        loop {
            let somebody = self.somebody.notified();
            let (channels, overview) = {
                let mut watched = self.watched.lock();
                if watched.closed {
                    return;
                }
                watched.forget_the_unwatched()
            };
            if channels.is_empty() && overview.is_none() {
                somebody.await;
                continue;
            }
            let viewers = self.viewers();
            let pace = pace(viewers, rush);
            let due =
                |last: Option<Instant>, every: Duration| last.is_none_or(|last| last.elapsed() >= every);
            // A sale that opens or closes by the clock is looked at when it does.
            if due(looked, LOOK) || channels.iter().any(|(_, channel)| channel.edge_has_come()) {
                let before = looked.replace(Instant::now());
                let gone = self.look(&channels).await;
                rush = before.is_some_and(|before| is_rush(gone, before.elapsed()));
            }
            if let Some(overview) = overview
                && due(looked_at_all, pace.max(overview.patience()))
            {
                looked_at_all = Some(Instant::now());
                if let Ok(statuses) = self.sales.statuses().await {
                    overview.tell(statuses);
                }
            }
            for (_, channel) in &channels {
                channel.tell(origin.elapsed(), pace);
            }
            let edges = channels.iter().filter_map(|(_, channel)| channel.until_edge());
            let beat = if viewers > channel::COHORT { BEAT } else { LOOK };
            sleep(edges.fold(beat, Duration::min)).await;
        }
    }

    /// Looks at all of them; how many units have gone since the last look.
    async fn look(&self, channels: &[(SaleId, Arc<Channel>)]) -> u32 {
        let gone = AtomicU32::new(0);
        stream::iter(channels)
            .for_each_concurrent(LOOKS_AT_ONCE, async |(sale, channel)| {
                match self.sales.status(sale.as_str()).await {
                    Ok(status) => {
                        gone.fetch_add(channel.look(status), Ordering::Relaxed);
                    }
                    Err(Error::UnknownSale(_)) => {
                        // In this order: whoever comes now begins a channel that is looked at again.
                        self.watched.lock().channels.remove(sale);
                        channel.end();
                    }
                    // Nothing is known right now; the silence tells viewers so. It is looked at again in its time, also
                    // when it opens or closes right now.
                    Err(_) => channel.forget_edge(),
                }
            })
            .await;
        gone.into_inner()
    }
}

impl Watched {
    /// What is watched by anybody; the rest is forgotten.
    fn forget_the_unwatched(&mut self) -> (Channels, Option<Arc<Overview>>) {
        self.channels.retain(|_, channel| channel.viewers() > 0);
        if self.overview.as_ref().is_some_and(|overview| overview.viewers() == 0) {
            self.overview = None;
        }
        let channels = self.channels.iter().map(|(sale, channel)| (sale.clone(), channel.clone()));
        (channels.collect(), self.overview.clone())
    }
}

/// How often each viewer is told of changes, when there are so many.
fn pace(viewers: u32, rush: bool) -> Duration {
    let events = if rush { EVENTS_A_SECOND_IN_A_RUSH } else { EVENTS_A_SECOND };
    (Duration::from_secs(1) * viewers / events).max(LOOK)
}

fn is_rush(units: u32, within: Duration) -> bool {
    f64::from(units) >= f64::from(RUSH) * within.as_secs_f64()
}

fn closing() -> Error {
    Error::unavailable("The server is stopping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_told_less_often_and_never_more_than_five_times_a_second() {
        assert_eq!(pace(1, true), LOOK);
        assert_eq!(pace(2_000, false), LOOK);
        assert_eq!(pace(10_000, false), Duration::from_secs(1));
        assert_eq!(pace(10_000, true), Duration::from_secs(2));
        assert_eq!(pace(50_000, false), Duration::from_secs(5));
        assert!(is_rush(400, LOOK) && !is_rush(399, LOOK));
    }
}
