//! All sales and who watches them: each viewer is sent what has changed since he was last sent something.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use axum::body::Bytes;
use flashsale_core::{ids::SaleId, sale::SaleStatus};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::channel::{encode, shown};

/// What looking at one sale may cost, so that many sales are looked at less often.
const A_SALE: Duration = Duration::from_micros(500);
/// The most sales in one piece of a stream.
const PIECE: usize = 64;

/// All sales, watched.
pub(super) struct Overview {
    sales: Mutex<Sales>,
    tell: watch::Sender<u64>,
}

struct Sales {
    version: u64,
    known: HashMap<SaleId, (u64, SaleStatus)>,
    /// The newest event of each sale, by the version that it came with.
    events: BTreeMap<u64, Bytes>,
}

impl Overview {
    pub(super) fn of(statuses: Vec<SaleStatus>) -> Self {
        let sales = Sales { version: 0, known: HashMap::new(), events: BTreeMap::new() };
        let overview = Self { sales: Mutex::new(sales), tell: watch::Sender::new(0) };
        overview.tell(statuses);
        overview
    }

    pub(super) fn viewers(&self) -> usize {
        self.tell.receiver_count()
    }

    pub(super) fn join(&self) -> watch::Receiver<u64> {
        self.tell.subscribe()
    }

    /// How long the sales are left alone, by their number.
    pub(super) fn patience(&self) -> Duration {
        A_SALE * u32::try_from(self.sales.lock().known.len()).unwrap_or(u32::MAX)
    }

    /// Takes note of the newest states, and tells who watches.
    pub(super) fn tell(&self, statuses: Vec<SaleStatus>) {
        let mut sales = self.sales.lock();
        let before = sales.version;
        let mut gone: HashMap<SaleId, u64> =
            sales.known.iter().map(|(sale, (version, _))| (sale.clone(), *version)).collect();
        for status in statuses {
            gone.remove(&status.sale.id);
            let known = sales.known.get(&status.sale.id);
            if known.is_none_or(|(_, known)| shown(known) != shown(&status)) {
                sales.put(status.sale.id.clone(), Some(status));
            }
        }
        for sale in gone.into_keys() {
            sales.put(sale, None);
        }
        if sales.version != before {
            self.tell.send_replace(sales.version);
        }
    }

    /// What has come since `seen`, a piece of it, and how far that is; `None` when there is nothing.
    pub(super) fn since(&self, seen: u64) -> Option<(Bytes, u64)> {
        let sales = self.sales.lock();
        let news: Vec<_> = sales.events.range(seen + 1..).take(PIECE).collect();
        let last = *news.last()?.0;
        let mut piece = Vec::new();
        news.iter().for_each(|(_, event)| piece.extend_from_slice(event));
        Some((piece.into(), last))
    }
}

impl Sales {
    /// Puts a sale's newest event, or that it is gone, in the place of its last one.
    fn put(&mut self, sale: SaleId, status: Option<SaleStatus>) {
        self.version += 1;
        if let Some((before, _)) = self.known.remove(&sale) {
            self.events.remove(&before);
        }
        let event = match status {
            Some(status) => {
                self.known.insert(sale, (self.version, status.clone()));
                encode(status)
            }
            None => format!("event: gone\ndata: {{\"saleId\":\"{sale}\"}}\n\n").into(),
        };
        self.events.insert(self.version, event);
    }
}
