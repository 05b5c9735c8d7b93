//! The stream that one viewer reads: small, and never more than the newest state ahead.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::body::Bytes;
use futures_util::{Stream, stream};
use rand::RngExt;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::timeout,
};

use super::{SILENCE, channel::Channel, overview::Overview};

/// When a browser comes again after its stream broke off, in milliseconds: anywhen in between, so that a crowd does not
/// come back at once.
const RETRY_MS: std::ops::Range<u32> = 1_000..5_000;

/// Somebody who watches.
pub(crate) struct Viewer {
    first: Option<Bytes>,
    source: Source,
    /// His place among the viewers; free again when the stream ends.
    _permit: OwnedSemaphorePermit,
}

enum Source {
    Sale(watch::Receiver<Bytes>),
    /// What of all sales he has not seen; the sales go with the hub, so that the stream ends then.
    All {
        overview: std::sync::Weak<Overview>,
        hear: watch::Receiver<u64>,
        seen: u64,
    },
}

impl Viewer {
    pub(super) fn of_sale(channel: &Channel, permit: OwnedSemaphorePermit) -> Self {
        let (state, hear) = channel.join();
        Self {
            first: Some([retry().as_bytes(), &state].concat().into()),
            source: Source::Sale(hear),
            _permit: permit,
        }
    }

    pub(super) fn of_all(overview: &Arc<Overview>, permit: OwnedSemaphorePermit) -> Self {
        let source = Source::All { overview: Arc::downgrade(overview), hear: overview.join(), seen: 0 };
        Self { first: Some(retry().into()), source, _permit: permit }
    }

    /// What he reads, until the sale is gone or the server stops.
    pub(crate) fn stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, async |mut viewer| {
            let piece = match viewer.first.take() {
                Some(first) => first,
                None => viewer.source.next().await?,
            };
            Some((Ok(piece), viewer))
        })
    }
}

impl Source {
    async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Sale(hear) => {
                hear.changed().await.ok()?;
                Some(hear.borrow_and_update().clone())
            }
            Self::All { overview, hear, seen } => loop {
                let news = overview.upgrade()?.since(*seen);
                if let Some((piece, last)) = news {
                    *seen = last;
                    return Some(piece);
                }
                match timeout(SILENCE, hear.changed()).await {
                    Ok(changed) => changed.ok()?,
                    // A comment, so that whoever is in between does not take the line for dead.
                    Err(_) => return Some(Bytes::from_static(b": nothing new\n\n")),
                }
            },
        }
    }
}

fn retry() -> String {
    let wait = Duration::from_millis(u64::from(rand::rng().random_range(RETRY_MS)));
    format!("retry: {}\n\n", wait.as_millis())
}
