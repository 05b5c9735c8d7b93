//! What an operator sees of sales: how many attempts a second, how they end and how long they take, the stock, the queue.
//!
//! Each replica counts what it decides ([`meter`]). Once a second it shows its counts to all replicas, by what the profile
//! has for that (`Vitals::exchange`), reads theirs, and keeps the sum as a sample of each sale that is busy or
//! watched. So every replica's console shows the same, and history is there before anybody looks.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod meter;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use flashsale_core::{Error, ids::SaleId, inventory::Decision, sale::SaleStatus, service::SaleService};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::debug;

use self::meter::{Meters, Reading};
use crate::{ambient, http::SaleBody, live::Hub, vitals::Vitals};

/// How often a sample is taken.
const BEAT: Duration = Duration::from_secs(1);
/// The most samples of a sale: ten minutes of them.
const SAMPLES: usize = 600;
/// The most sales of which samples are kept.
const SALES: usize = 200;
/// For how long a sale is sampled after anything of it has happened, or anybody has watched it.
const BUSY: Duration = Duration::from_secs(600);

/// What a replica shows of itself.
#[derive(Serialize, Deserialize, Debug, Default, Clone)]
struct Pulse {
    /// Counts and viewers, by sale.
    sales: HashMap<String, Shown>,
    /// Audit rows that wait in its memory.
    audit_rows: u64,
    /// Bytes of audit rows that wait in its files.
    audit_bytes: u64,
}

/// What a replica shows of a sale.
#[derive(Serialize, Deserialize, Debug, Default, Clone)]
struct Shown {
    #[serde(flatten)]
    reading: Reading,
    #[serde(rename = "v", default)]
    viewers: u32,
}

/// One second of a sale, of all replicas, as the console's script takes it: the moment in Unix milliseconds, attempts,
/// accepted, rejected, units available, units reserved and not confirmed, the age of the oldest of them in milliseconds,
/// latencies in microseconds (p50, p95, p99), viewers.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[rustfmt::skip]
pub(crate) struct Sample(
    i64, u64, u64, u64, u32, u32, Option<u64>, Option<u64>, Option<u64>, Option<u64>, u32,
);

/// A sale as the console shows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct View {
    at: i64,
    sale: SaleBody,
    /// Replicas that serve.
    replicas: usize,
    viewers: u32,
    samples: Vec<Sample>,
    audit_backlog_rows: u64,
    audit_backlog_bytes: u64,
}

impl View {
    /// The moment of its last sample, in Unix milliseconds.
    pub(crate) fn last_sample(&self) -> Option<i64> {
        self.samples.last().map(|sample| sample.0)
    }
}

/// The board of a replica.
pub(crate) struct Board {
    meters: Meters,
    sales: SaleService,
    vitals: Arc<dyn Vitals>,
    hub: Arc<Hub>,
    state: Mutex<State>,
    beat: watch::Sender<u64>,
    closed: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Whether purchases could be made a beat ago, or why not. Nobody looks while nobody watches.
    can_sell: Option<Result<(), String>>,
    /// The last pulse of each replica.
    pulses: HashMap<String, Pulse>,
    histories: HashMap<SaleId, History>,
}

/// What is kept of a sale.
struct History {
    samples: VecDeque<Sample>,
    viewers: u32,
    busy_until: Instant,
}

impl Board {
    pub(crate) fn new(sales: SaleService, vitals: Arc<dyn Vitals>, hub: Arc<Hub>) -> Arc<Self> {
        let (meters, state) = (Meters::default(), Mutex::default());
        let (beat, closed) = (watch::Sender::new(0), AtomicBool::new(false));
        Arc::new(Self { meters, sales, vitals, hub, state, beat, closed })
    }

    /// Counts a decision of a sale.
    pub(crate) fn count(&self, sale: &str, decision: &Decision, took: Duration) {
        self.meters.count(sale, decision, took);
    }

    /// Wakes with each sample, and when the server stops.
    pub(crate) fn beats(&self) -> watch::Receiver<u64> {
        self.beat.subscribe()
    }

    /// Whether purchases can be made, or why not; `None` where nobody has looked yet.
    pub(crate) fn can_sell(&self) -> Option<Result<(), String>> {
        self.state.lock().can_sell.clone()
    }

    /// Takes no more samples; whoever watches is woken.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.beat.send_modify(|beat| *beat += 1);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Sees to it that a sale is sampled for now.
    pub(crate) fn follow(&self, sale: &SaleId) {
        self.state.lock().history(sale);
    }

    /// A sale as it stands, with the samples that were taken after a moment in Unix milliseconds.
    pub(crate) fn view(&self, status: SaleStatus, after: i64) -> View {
        let state = self.state.lock();
        let history = state.histories.get(&status.sale.id);
        let samples = history.map_or_else(Vec::new, |history| {
            history.samples.iter().filter(|sample| sample.0 > after).copied().collect()
        });
        View {
            at: status.now.as_millis(),
            // Before the first second is over, this one at least.
            replicas: state.pulses.len().max(1),
            viewers: history.map_or(0, |history| history.viewers),
            audit_backlog_rows: state
                .pulses
                .values()
                .fold(0, |sum, pulse| sum.saturating_add(pulse.audit_rows)),
            audit_backlog_bytes: state
                .pulses
                .values()
                .fold(0, |sum, pulse| sum.saturating_add(pulse.audit_bytes)),
            samples,
            sale: SaleBody::figures(status),
        }
    }

    /// Takes samples, until the server stops.
    pub(crate) async fn run(self: Arc<Self>) {
        let replica = ambient::replica_name();
        let mut seen = Activity::default();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = Instant::now();
        while !self.is_closed() {
            beat.tick().await;
            let pulses = self.exchange(&replica, self.pulse(&mut seen)).await;
            let took = std::mem::replace(&mut last, Instant::now()).elapsed();
            let news = self.state.lock().take(pulses, &replica);
            self.sample(news, took).await;
            let can_sell = match self.beat.receiver_count() {
                0 => None,
                _ => Some(self.vitals.ready().await.map_err(|error| error.to_string())),
            };
            self.state.lock().can_sell = can_sell;
            self.beat.send_modify(|beat| *beat += 1);
        }
    }

    /// What this replica shows.
    fn pulse(&self, seen: &mut Activity) -> Pulse {
        let (mut sales, quiet) = seen.divide(self.meters.read());
        self.meters.forget(&quiet);
        for (sale, viewers) in self.hub.viewers_by_sale().into_iter().take(SALES) {
            sales.entry(sale.to_string()).or_default().viewers = viewers;
        }
        let (audit_rows, audit_bytes) = self.vitals.audit_backlog();
        Pulse { sales, audit_rows, audit_bytes }
    }

    /// Shows the own pulse to all replicas, and reads theirs.
    async fn exchange(&self, replica: &str, own: Pulse) -> HashMap<String, Pulse> {
        let text = serde_json::to_string(&own).expect("a pulse is plain text and numbers");
        let shown = self.vitals.exchange(replica, text).await;
        let read = |(name, text): (String, String)| match serde_json::from_str(&text) {
            Ok(pulse) => Some((name, pulse)),
            Err(error) => {
                // A replica of another version, perhaps.
                debug!(replica = name, %error, "the figures of a replica cannot be read");
                None
            }
        };
        let mut pulses: HashMap<String, Pulse> = shown.into_iter().filter_map(read).collect();
        pulses.insert(replica.to_owned(), own);
        pulses
    }

    async fn sample(&self, mut news: HashMap<SaleId, News>, took: Duration) {
        let sales: Vec<SaleId> = {
            let mut state = self.state.lock();
            for sale in news.keys() {
                state.history(sale);
            }
            state.forget_the_idle();
            state.histories.keys().cloned().collect()
        };
        for sale in sales {
            let status = match self.sales.status(sale.as_str()).await {
                Ok(status) => status,
                Err(Error::UnknownSale(_)) => {
                    self.state.lock().histories.remove(&sale);
                    continue;
                }
                // Nothing is known of this second.
                Err(_) => continue,
            };
            let lag = match status.reserved {
                0 => Some(0),
                _ => self.vitals.waiting_since(&sale).await.map(|since| {
                    status.now.as_millis().saturating_sub(since.as_millis()).max(0).cast_unsigned()
                }),
            };
            let news = news.remove(&sale).unwrap_or_default();
            let mut state = self.state.lock();
            if let Some(history) = state.histories.get_mut(&sale) {
                history.viewers = news.viewers;
                history.push(sample(&status, &news, lag, took));
            }
        }
    }
}

/// One second of a sale.
fn sample(status: &SaleStatus, news: &News, lag: Option<u64>, took: Duration) -> Sample {
    let a_second = |count: u64| (count as f64 / took.as_secs_f64().max(0.001)).round() as u64;
    let Reading { accepted, rejected, .. } = news.reading;
    let latency = |share| news.reading.latency(share);
    Sample(
        status.now.as_millis(),
        a_second(accepted.saturating_add(rejected)),
        a_second(accepted),
        a_second(rejected),
        status.available(),
        status.reserved,
        lag,
        latency(0.50),
        latency(0.95),
        latency(0.99),
        news.viewers,
    )
}

/// What has come of a sale since the last sample, at all replicas.
#[derive(Default)]
struct News {
    reading: Reading,
    viewers: u32,
}

impl State {
    /// What is kept of a sale, from now on.
    fn history(&mut self, sale: &SaleId) -> &mut History {
        let busy_until = Instant::now() + BUSY;
        let history = self.histories.entry(sale.clone()).or_insert_with(|| History {
            samples: VecDeque::new(),
            viewers: 0,
            busy_until,
        });
        history.busy_until = busy_until;
        history
    }

    fn forget_the_idle(&mut self) {
        let now = Instant::now();
        self.histories.retain(|_, history| history.busy_until > now);
        while self.histories.len() > SALES {
            let idlest = self.histories.iter().min_by_key(|(_, history)| history.busy_until);
            let Some(idlest) = idlest.map(|(sale, _)| sale.clone()) else { return };
            self.histories.remove(&idlest);
        }
    }

    /// Takes the pulses for the present ones; what is new in them, by sale. What another replica has counted before it
    /// was first seen is not; a sale that it did not show a moment ago begins with nothing (`Activity`).
    fn take(&mut self, pulses: HashMap<String, Pulse>, own: &str) -> HashMap<SaleId, News> {
        let mut news: HashMap<SaleId, News> = HashMap::new();
        for (name, pulse) in &pulses {
            let before = self.pulses.get(name);
            for (sale, shown) in &pulse.sales {
                let Ok(sale_id) = sale.parse::<SaleId>() else { continue };
                let known = before.and_then(|before| before.sales.get(sale)).map(|shown| &shown.reading);
                let new = match before {
                    None if name != own => Reading::default(),
                    _ => shown.reading.since(known),
                };
                let sum = news.entry(sale_id).or_default();
                sum.reading.add(&new);
                sum.viewers = sum.viewers.saturating_add(shown.viewers);
            }
        }
        self.pulses = pulses;
        news.retain(|_, news| news.reading.accepted > 0 || news.reading.rejected > 0 || news.viewers > 0);
        news
    }
}

impl History {
    fn push(&mut self, sample: Sample) {
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }
}

/// When each sale was last busy at this replica.
#[derive(Default)]
struct Activity(HashMap<Box<str>, (u64, Instant)>);

impl Activity {
    /// The sales that have been busy of late, those of last where they are too many; and the others, whose meters begin
    /// anew when they are busy again. So whoever sees a sale for the first time may take its reading for what is new.
    fn divide(&mut self, readings: Vec<(Box<str>, Reading)>) -> (HashMap<String, Shown>, Vec<Box<str>>) {
        let now = Instant::now();
        let mut all: Vec<(Instant, Box<str>, Reading)> = Vec::with_capacity(readings.len());
        for (sale, reading) in readings {
            let count = reading.accepted + reading.rejected;
            let seen = self.0.entry(sale.clone()).or_insert((0, now));
            if seen.0 != count {
                *seen = (count, now);
            }
            all.push((seen.1, sale, reading));
        }
        all.sort_by_key(|(when, ..)| std::cmp::Reverse(*when));
        let is_busy = |(when, ..): &(Instant, _, _)| now.duration_since(*when) < BUSY;
        let busy = all.iter().take(SALES).take_while(|one| is_busy(one)).count();
        let quiet: Vec<Box<str>> = all.split_off(busy).into_iter().map(|(_, sale, _)| sale).collect();
        for sale in &quiet {
            self.0.remove(sale);
        }
        let shown = |(_, sale, reading): (_, Box<str>, _)| (sale.into(), Shown { reading, viewers: 0 });
        (all.into_iter().map(shown).collect(), quiet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(sales: &[(&str, u64, u32)]) -> Pulse {
        let shown = |accepted, viewers| {
            let reading = Reading { accepted, rejected: 0, latencies: vec![accepted] };
            Shown { reading, viewers }
        };
        let sales =
            sales.iter().map(|&(sale, accepted, viewers)| (sale.to_owned(), shown(accepted, viewers)));
        Pulse { sales: sales.collect(), ..Pulse::default() }
    }

    /// What is new, by sale: accepted and viewers.
    fn news(state: &mut State, pulses: &[(&str, Pulse)]) -> Vec<(String, u64, u32)> {
        let pulses = pulses.iter().map(|(name, pulse)| ((*name).to_owned(), pulse.clone())).collect();
        let news = state.take(pulses, "own");
        let mut news: Vec<_> = news
            .into_iter()
            .map(|(sale, news)| (sale.to_string(), news.reading.accepted, news.viewers))
            .collect();
        news.sort();
        news
    }

    #[test]
    fn what_all_replicas_have_counted_since_is_summed() {
        let mut state = State::default();
        // What another one counted before it was first seen is not new; the own is.
        let first = news(&mut state, &[("own", pulse(&[("a", 5, 1)])), ("other", pulse(&[("a", 1_000, 2)]))]);
        assert_eq!(first, [("a".to_owned(), 5, 3)]);
        let second =
            news(&mut state, &[("own", pulse(&[("a", 7, 1)])), ("other", pulse(&[("a", 1_010, 0)]))]);
        assert_eq!(second, [("a".to_owned(), 12, 1)]);
    }

    #[test]
    fn what_is_not_shown_any_more_begins_anew_so_that_nothing_old_is_taken_for_new() {
        let reading = |accepted| Reading { accepted, ..Reading::default() };
        let mut activity = Activity::default();
        let sales = |count| (0..count).map(|number| (format!("sale_{number}").into(), reading(1))).collect();
        let (shown, quiet) = activity.divide(sales(SALES + 3));
        assert_eq!((shown.len(), quiet.len(), activity.0.len()), (SALES, 3, SALES));
        // Long ago, as far as the clock of this machine goes back.
        let long_ago = Instant::now().checked_sub(BUSY);
        let Some(long_ago) = long_ago else { return };
        activity.0.insert("old".into(), (5, long_ago));
        let (shown, quiet) = activity.divide(vec![("old".into(), reading(5)), ("new".into(), reading(1))]);
        assert!(shown.len() == 1 && shown.contains_key("new"), "{shown:?}");
        assert_eq!(quiet, [Box::from("old")]);
        let meters = Meters::default();
        meters.count("old", &Decision::SoldOut, Duration::ZERO);
        meters.forget(&quiet);
        assert!(meters.read().is_empty());
        // To whoever did not see it a moment ago, all of it is new.
        let mut state = State::default();
        news(&mut state, &[("own", pulse(&[])), ("other", pulse(&[]))]);
        let back = news(&mut state, &[("own", pulse(&[])), ("other", pulse(&[("a", 3, 0)]))]);
        assert_eq!(back, [("a".to_owned(), 3, 0)]);
    }

    #[test]
    fn a_replica_that_is_gone_counts_no_more_and_one_that_comes_begins_anew() {
        let mut state = State::default();
        news(&mut state, &[("own", pulse(&[])), ("other", pulse(&[("a", 5, 9)]))]);
        assert_eq!(news(&mut state, &[("own", pulse(&[]))]), []);
        assert_eq!(state.pulses.len(), 1);
        let back = news(&mut state, &[("own", pulse(&[])), ("other", pulse(&[("a", 500, 9)]))]);
        assert_eq!(back, [("a".to_owned(), 0, 9)]);
    }

    #[test]
    fn samples_and_sales_are_bounded() {
        let mut state = State::default();
        for number in 0..2 * SALES {
            state.history(&format!("sale_{number}").parse().unwrap());
        }
        state.forget_the_idle();
        assert_eq!(state.histories.len(), SALES);
        let history = state.history(&"sale_1".parse().unwrap());
        for at in 0..2 * SAMPLES as i64 {
            history.push(Sample(at, 0, 0, 0, 0, 0, None, None, None, None, 0));
        }
        assert_eq!((history.samples.len(), history.samples[0].0), (SAMPLES, SAMPLES as i64));
    }
}
