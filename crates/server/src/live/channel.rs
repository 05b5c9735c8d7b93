//! One sale and who watches it, in groups: each group is told at its own moment.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use flashsale_core::sale::SaleStatus;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::SILENCE;
use crate::http::SaleBody;

/// The most viewers that are woken at once.
pub(super) const COHORT: u32 = 500;
/// Beyond so many groups, they grow instead.
const COHORTS_MAX: usize = 256;
/// How old a look may be for a viewer to begin with.
const FRESH: Duration = Duration::from_secs(1);
/// How old a look may be for a sign of life.
const KNOWN: Duration = Duration::from_secs(3);
/// A window opens a moment after its edge, so that whoever looks then sees it open.
const AFTER_EDGE: Duration = Duration::from_millis(1);

/// A sale that is watched.
pub(super) struct Channel(Mutex<State>);

struct State {
    status: SaleStatus,
    looked: Instant,
    /// When the window opens or closes next.
    edge: Option<Instant>,
    /// Counts the changes of what viewers are told.
    version: u64,
    /// The last change that nobody should wait for: the sale opened, was paused, is sold out, …
    urgent: u64,
    cohorts: VecDeque<Cohort>,
    /// The sale is gone, and everybody has been told.
    ended: bool,
}

/// Viewers that are told at the same moment.
struct Cohort {
    tell: watch::Sender<Bytes>,
    version: u64,
    turn: u128,
    told: Instant,
}

impl Channel {
    pub(super) fn new(status: SaleStatus) -> Self {
        let looked = Instant::now();
        let edge = edge_of(&status, looked);
        let (version, urgent, cohorts, ended) = (1, 1, VecDeque::new(), false);
        Self(Mutex::new(State { status, looked, edge, version, urgent, cohorts, ended }))
    }

    /// The state of this instant, where it has been looked at a moment ago.
    pub(super) fn fresh(&self) -> Option<SaleStatus> {
        let state = self.0.lock();
        (state.looked.elapsed() < FRESH && !state.edge_has_come()).then(|| state.status.clone())
    }

    /// Joins a viewer: what he begins with, and where he hears the rest.
    pub(super) fn join(&self) -> (Bytes, watch::Receiver<Bytes>) {
        let mut state = self.0.lock();
        let first = state.encoded();
        let has_room = |cohort: &Cohort| cohort.tell.receiver_count() < COHORT as usize;
        let full = state.cohorts.len() >= COHORTS_MAX;
        if let Some(cohort) = state.cohorts.iter().find(|cohort| has_room(cohort)) {
            return (first, cohort.tell.subscribe());
        }
        if full {
            // They take turns in growing.
            state.cohorts.rotate_left(1);
            return (first, state.cohorts[0].tell.subscribe());
        }
        let (tell, hear) = watch::channel(Bytes::new());
        let version = state.version;
        state.cohorts.push_back(Cohort { tell, version, turn: 0, told: Instant::now() });
        (first, hear)
    }

    pub(super) fn viewers(&self) -> u32 {
        let count: usize = self.0.lock().cohorts.iter().map(|cohort| cohort.tell.receiver_count()).sum();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Takes note of the newest state; how many units have gone since the last one.
    pub(super) fn look(&self, status: SaleStatus) -> u32 {
        let mut state = self.0.lock();
        let gone = status.sold().saturating_sub(state.status.sold());
        if shown(&status) != shown(&state.status) {
            state.version += 1;
            if matters(&status) != matters(&state.status) {
                state.urgent = state.version;
            }
        }
        state.looked = Instant::now();
        state.edge = edge_of(&status, state.looked);
        state.status = status;
        gone
    }

    pub(super) fn edge_has_come(&self) -> bool {
        self.0.lock().edge_has_come()
    }

    /// Until the next look nothing is known of when the sale opens or closes.
    pub(super) fn forget_edge(&self) {
        self.0.lock().edge = None;
    }

    pub(super) fn until_edge(&self) -> Option<Duration> {
        self.0.lock().edge.map(|edge| edge.saturating_duration_since(Instant::now()))
    }

    /// Tells those whose turn it is; whoever has heard everything is told nothing, until his silence is long. What could
    /// not be looked at for a while is not told as if it were new: that silence says that something is away.
    pub(super) fn tell(&self, elapsed: Duration, pace: Duration) {
        let mut state = self.0.lock();
        if state.ended {
            return;
        }
        let (version, urgent) = (state.version, state.urgent);
        let is_known = state.looked.elapsed() < KNOWN;
        let mut encoded = None;
        let mut cohorts = std::mem::take(&mut state.cohorts);
        for (number, cohort) in cohorts.iter_mut().enumerate() {
            let turn = turn(number, elapsed, pace);
            let is_behind = cohort.version != version;
            let is_due = is_behind && (cohort.version < urgent || cohort.turn != turn);
            // A turn that is not used is over: or a change after a quiet time would wake everybody at once.
            cohort.turn = turn;
            if is_due || (is_known && cohort.told.elapsed() >= SILENCE) {
                let bytes: &Bytes = encoded.get_or_insert_with(|| state.encoded());
                cohort.tell.send_replace(bytes.clone());
                (cohort.version, cohort.told) = (version, Instant::now());
            }
        }
        cohorts.retain(|cohort| cohort.tell.receiver_count() > 0);
        state.cohorts = cohorts;
    }

    /// The sale is gone: everybody hears it, and then nothing more.
    pub(super) fn end(&self) {
        let mut state = self.0.lock();
        state.ended = true;
        for cohort in &state.cohorts {
            cohort.tell.send_replace(Bytes::from_static(b"event: gone\ndata: {}\n\n"));
        }
    }
}

impl State {
    fn edge_has_come(&self) -> bool {
        self.edge.is_some_and(|edge| edge <= Instant::now())
    }

    /// The state as an event, by the time of now.
    fn encoded(&self) -> Bytes {
        let mut status = self.status.clone();
        status.now = status.now.after(self.looked.elapsed());
        encode(status)
    }
}

/// A state as an event.
pub(super) fn encode(status: SaleStatus) -> Bytes {
    let mut event = b"event: sale\ndata: ".to_vec();
    serde_json::to_writer(&mut event, &SaleBody::figures(status))
        .expect("a status is plain text and numbers");
    event.extend_from_slice(b"\n\n");
    event.into()
}

/// Which turn a group has: they come one after the other, spread over the pace whatever their number.
fn turn(number: usize, elapsed: Duration, pace: Duration) -> u128 {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    let offset = pace.mul_f64((number as f64 * GOLDEN).fract());
    (elapsed + offset).as_micros() / pace.as_micros().max(1)
}

/// What viewers are told of, but the time.
pub(super) fn shown(status: &SaleStatus) -> impl PartialEq + use<'_> {
    (&status.sale, status.reserved, status.confirmed, status.phase())
}

/// What nobody should wait for.
fn matters(status: &SaleStatus) -> impl PartialEq + use<> {
    let sale = &status.sale;
    (status.phase(), sale.paused, status.available() == 0, sale.epoch, sale.total_stock, sale.window)
}

/// When the sale's window opens or closes next.
fn edge_of(status: &SaleStatus, looked: Instant) -> Option<Instant> {
    let window = status.sale.window;
    let edges = [window.starts_at(), window.ends_at()];
    let next = edges.into_iter().find(|edge| *edge > status.now)?;
    let left = next.as_millis().saturating_sub(status.now.as_millis());
    looked.checked_add(Duration::from_millis(u64::try_from(left).ok()?) + AFTER_EDGE)
}

#[cfg(test)]
mod tests {
    use flashsale_core::{
        clock::Timestamp,
        ids::Epoch,
        sale::{NewSale, Window},
    };

    use super::*;

    const NOW: i64 = 1_771_815_600_000;
    const PACE: Duration = Duration::from_millis(1_000);

    fn status(reserved: u32) -> SaleStatus {
        let at = Timestamp::from_millis;
        let window = Window::new(at(NOW - 1_000), at(NOW + 60_000)).unwrap();
        let sale = NewSale::new("sale_1".parse().unwrap(), "Sale".to_owned(), 100, window).unwrap();
        SaleStatus { sale: sale.open(Epoch(1)), reserved, confirmed: 0, now: at(NOW) }
    }

    fn heard(hear: &mut watch::Receiver<Bytes>) -> Option<String> {
        let news = hear.has_changed().unwrap();
        news.then(|| String::from_utf8(hear.borrow_and_update().to_vec()).unwrap())
    }

    #[test]
    fn a_sale_that_is_gone_stays_gone() {
        let channel = Channel::new(status(0));
        let (_, mut hear) = channel.join();
        // The last look before it was deleted has news that nobody has been told yet.
        channel.look(status(1));
        channel.end();
        channel.tell(Duration::from_secs(1), Duration::from_millis(200));
        assert!(heard(&mut hear).unwrap().starts_with("event: gone"));
    }

    #[test]
    fn whoever_reads_slowly_hears_the_newest_state_only() {
        let channel = Channel::new(status(0));
        let (first, mut hear) = channel.join();
        assert!(String::from_utf8(first.to_vec()).unwrap().contains("\"remainingStock\":100"));
        for reserved in 1..=50 {
            channel.look(status(reserved));
            channel.tell(PACE * reserved, PACE);
        }
        let told = heard(&mut hear).unwrap();
        assert!(told.starts_with("event: sale\ndata: {") && told.ends_with("}\n\n"), "{told}");
        assert!(told.contains("\"remainingStock\":50"), "{told}");
        assert_eq!(heard(&mut hear), None);
    }

    #[test]
    fn a_group_is_told_once_a_turn_and_not_at_all_when_nothing_has_changed() {
        let channel = Channel::new(status(0));
        let (_, mut hear) = channel.join();
        channel.tell(PACE, PACE);
        assert_eq!(heard(&mut hear), None);
        channel.look(status(1));
        channel.tell(2 * PACE, PACE);
        assert!(heard(&mut hear).is_some());
        channel.look(status(2));
        channel.tell(2 * PACE + PACE / 2, PACE);
        assert_eq!(heard(&mut hear), None);
        channel.tell(3 * PACE, PACE);
        assert!(heard(&mut hear).unwrap().contains("\"remainingStock\":98"));
    }

    /// Or a sale that cannot be looked at when it opens would be looked at without a pause.
    #[test]
    fn an_edge_at_which_nothing_could_be_seen_is_over() {
        let channel = Channel::new(status(0));
        channel.0.lock().edge = Some(Instant::now());
        assert!(channel.edge_has_come());
        channel.forget_edge();
        assert!(!channel.edge_has_come() && channel.until_edge().is_none());
        channel.look(status(1));
        assert!(channel.until_edge().is_some(), "the next look knows it again");
    }

    #[test]
    fn nobody_waits_for_what_matters() {
        let channel = Channel::new(status(0));
        let (_, mut hear) = channel.join();
        channel.look(status(1));
        channel.tell(PACE, PACE);
        heard(&mut hear).unwrap();
        channel.look(status(100));
        channel.tell(PACE, PACE);
        assert!(heard(&mut hear).unwrap().contains("\"remainingStock\":0"));
        let mut paused = status(100);
        paused.sale.paused = true;
        channel.look(paused);
        channel.tell(PACE, PACE);
        assert!(heard(&mut hear).unwrap().contains("\"paused\":true"));
    }

    #[test]
    fn a_crowd_comes_in_groups_that_do_not_wake_at_once() {
        let channel = Channel::new(status(0));
        let mut viewers: Vec<_> = (0..10 * COHORT).map(|_| channel.join().1).collect();
        assert_eq!(channel.viewers(), 10 * COHORT);
        channel.tell(PACE, PACE);
        let mut most = 0;
        for step in 1..=50_u32 {
            channel.look(status(step));
            channel.tell(PACE + PACE * step / 50, PACE);
            most = most.max(viewers.iter_mut().filter_map(heard).count());
        }
        assert!(most <= 2 * COHORT as usize, "{most} at once");
    }

    #[test]
    fn those_who_leave_make_room() {
        let channel = Channel::new(status(0));
        let viewers: Vec<_> = (0..2 * COHORT).map(|_| channel.join().1).collect();
        drop(viewers);
        channel.tell(PACE, PACE);
        assert_eq!((channel.viewers(), channel.0.lock().cohorts.len()), (0, 0));
    }

    #[test]
    fn the_next_edge_is_the_start_then_the_end_then_none() {
        let here = Instant::now();
        let left = |now| {
            let status = SaleStatus { now: Timestamp::from_millis(now), ..status(0) };
            edge_of(&status, here).map(|edge| edge.duration_since(here).as_millis())
        };
        assert_eq!(left(NOW - 3_000), Some(2_001));
        assert_eq!(left(NOW), Some(60_001));
        assert_eq!(left(NOW + 60_000), None);
    }
}
