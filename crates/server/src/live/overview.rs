//! All sales and who watches them: each viewer is sent what has changed since he was last sent something.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
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
/// How old an event may be that is sent as it is; the clock in an older one is put right.
const STALE: Duration = Duration::from_secs(1);
/// The most sales that are gone of which those are still told who have not heard it.
const GONE_MAX: usize = 1_000;

/// All sales, watched.
pub(super) struct Overview {
    sales: Mutex<Sales>,
    tell: watch::Sender<u64>,
}

struct Sales {
    version: u64,
    known: HashMap<SaleId, (u64, SaleStatus)>,
    /// The newest event of each sale, by the version that it came with.
    events: BTreeMap<u64, Event>,
    /// Which of them say that a sale is gone.
    gone: BTreeMap<u64, SaleId>,
}

/// An event as it was first told, and when. That a sale is gone has no sale.
struct Event {
    bytes: Bytes,
    told: Instant,
    sale: Option<SaleId>,
}

impl Overview {
    pub(super) fn of(statuses: Vec<SaleStatus>) -> Self {
        let (known, events, gone) = Default::default();
        let sales = Sales { version: 0, known, events, gone };
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
        news.iter().for_each(|(_, event)| piece.extend_from_slice(&sales.by_now(event)));
        Some((piece.into(), last))
    }
}

impl Sales {
    /// An event by the time of now.
    fn by_now(&self, event: &Event) -> Bytes {
        let age = event.told.elapsed();
        let known = event.sale.as_ref().filter(|_| age >= STALE).and_then(|sale| self.known.get(sale));
        let Some((_, status)) = known else { return event.bytes.clone() };
        encode(SaleStatus { now: status.now.after(age), ..status.clone() })
    }

    /// Puts a sale's newest event, or that it is gone, in the place of its last one.
    fn put(&mut self, sale: SaleId, status: Option<SaleStatus>) {
        self.version += 1;
        match self.known.remove(&sale) {
            Some((before, _)) => drop(self.events.remove(&before)),
            // Perhaps it was there before.
            None => self.gone.retain(|version, gone| {
                let stays = *gone != sale;
                if !stays {
                    self.events.remove(version);
                }
                stays
            }),
        }
        let (bytes, there) = match status {
            Some(status) => {
                self.known.insert(sale.clone(), (self.version, status.clone()));
                (encode(status), Some(sale))
            }
            None => {
                let event = format!("event: gone\ndata: {{\"saleId\":\"{sale}\"}}\n\n");
                self.gone.insert(self.version, sale);
                (event.into(), None)
            }
        };
        self.events.insert(self.version, Event { bytes, told: Instant::now(), sale: there });
        if self.gone.len() > GONE_MAX
            && let Some((oldest, _)) = self.gone.pop_first()
        {
            self.events.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use flashsale_core::{
        clock::Timestamp,
        ids::Epoch,
        sale::{NewSale, Window},
    };

    use super::*;

    fn status(sale: &str) -> SaleStatus {
        let at = Timestamp::from_millis;
        let window = Window::new(at(0), at(1_000)).unwrap();
        let sale = NewSale::new(sale.parse().unwrap(), "Sale".to_owned(), 1, window).unwrap();
        SaleStatus { sale: sale.open(Epoch(1)), reserved: 0, confirmed: 0, now: at(1) }
    }

    fn told(overview: &Overview) -> Vec<String> {
        let events = &overview.sales.lock().events;
        events.values().map(|event| String::from_utf8(event.bytes.to_vec()).unwrap()).collect()
    }

    /// Whoever counts down by the clock in it would be late by as much.
    #[test]
    fn whoever_comes_later_is_told_the_time_of_now() {
        let overview = Overview::of(vec![status("quiet")]);
        let first = overview.since(0).unwrap();
        assert!(String::from_utf8_lossy(&first.0).contains("1970-01-01T00:00:00.001Z"));
        for event in overview.sales.lock().events.values_mut() {
            event.told = event.told.checked_sub(Duration::from_secs(10)).unwrap();
        }
        let later = overview.since(0).unwrap();
        assert!(String::from_utf8_lossy(&later.0).contains("1970-01-01T00:00:10."), "{later:?}");
    }

    /// Each sale that was ever deleted while somebody watched was told to everybody who came later.
    #[test]
    fn of_sales_that_are_gone_no_more_is_kept_than_who_watches_may_have_missed() {
        let overview = Overview::of(vec![status("stays")]);
        overview.tell(vec![status("stays"), status("again")]);
        overview.tell(vec![status("stays")]);
        assert!(told(&overview)[1].starts_with("event: gone"), "{:?}", told(&overview));
        overview.tell(vec![status("stays"), status("again")]);
        assert!(told(&overview).iter().all(|event| event.starts_with("event: sale")), "it is there again");
        for number in 0..GONE_MAX + 5 {
            overview.tell(vec![status("stays"), status(&format!("sale-{number}"))]);
            overview.tell(vec![status("stays")]);
        }
        let events = told(&overview);
        assert_eq!(events.len(), 1 + GONE_MAX, "the one that stays, and the last ones that went");
        assert!(events.last().unwrap().contains(&format!("sale-{}", GONE_MAX + 4)));
    }
}
