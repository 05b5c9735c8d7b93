//! A load that is told to stop before its time.

use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use crate::Error;

/// A load that was applied, or a part of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied {
    /// The start of the clock.
    pub(crate) start: Instant,
    /// When it was told to stop, if it was.
    pub(crate) stopped: Option<Instant>,
}

impl Applied {
    /// A load that was stopped before its first attempt.
    pub(crate) fn never() -> Self {
        let now = Instant::now();
        Self { start: now, stopped: Some(now) }
    }

    /// For how long attempts were to start, of a load that was meant to last for `duration`.
    pub(crate) fn lasted(&self, duration: Duration) -> Duration {
        self.stopped.map_or(duration, |stopped| (stopped - self.start).min(duration))
    }
}

/// What comes of `work`, or `None` if `stop` comes first; `stop` must not be polled again then.
pub(crate) async fn unless<T>(
    stop: Pin<&mut impl Future<Output = ()>>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = stop => None,
    }
}

/// Waits for the load to end. When `stop` comes first, calls `halt`, and waits for what is under way.
pub(crate) async fn see_through(
    start: Instant,
    load: impl Future<Output = Result<(), Error>>,
    stop: Pin<&mut impl Future<Output = ()>>,
    halt: impl FnOnce(),
) -> Result<Applied, Error> {
    let mut load = pin!(load);
    if let Some(done) = unless(stop, load.as_mut()).await {
        return done.map(|()| Applied { start, stopped: None });
    }
    let stopped = Some(Instant::now());
    halt();
    load.await.map(|()| Applied { start, stopped })
}
