//! The outbox: reservations that are recorded, and not yet known to be confirmed.
//!
//! The ledger's rows are the outbox; what is kept here is their newest part, in memory, so that the order
//! queue need not read back what was written a moment ago. When it does not fit, it is dropped, and the
//! queue reads the rows instead.

use std::collections::VecDeque;

use flashsale_core::order::Reservation;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most reservations that are kept in memory (P8).
const CAPACITY: usize = 65_536;

/// A reservation with the number of its row.
pub(crate) type Numbered = (i64, Reservation);

/// The newest part of the outbox.
pub(crate) struct Outbox {
    state: Mutex<State>,
    added: Notify,
}

struct State {
    recent: VecDeque<Numbered>,
    /// There are rows which are not in `recent`.
    behind: bool,
}

/// What is next in the outbox.
pub(crate) enum Next {
    /// These.
    Batch(Vec<Numbered>),
    /// Rows that have to be read.
    InTheLedger,
    /// Nothing, for now.
    Nothing,
}

impl Outbox {
    /// An outbox of which memory knows nothing yet; `behind` where there may be rows of it.
    pub(crate) fn new(behind: bool) -> Self {
        Self { state: Mutex::new(State { recent: VecDeque::new(), behind }), added: Notify::new() }
    }

    /// Called by the writer after each commit with reservations.
    /// `first` is the number of the first one's row.
    pub(crate) fn add(&self, first: i64, reservations: Vec<Reservation>) {
        let mut state = self.state.lock();
        if state.recent.len() + reservations.len() > CAPACITY {
            state.recent.clear();
            state.behind = true;
        } else if !state.behind {
            state.recent.extend((first..).zip(reservations));
        }
        drop(state);
        self.added.notify_one();
    }

    /// What comes after the row `cursor`, up to `most`; it stays until it is [`Outbox::done`].
    pub(crate) fn next(&self, cursor: i64, most: usize) -> Next {
        let state = self.state.lock();
        if state.behind {
            return Next::InTheLedger;
        }
        let batch: Vec<_> =
            state.recent.iter().filter(|(seq, _)| *seq > cursor).take(most).cloned().collect();
        if batch.is_empty() { Next::Nothing } else { Next::Batch(batch) }
    }

    /// What is added from here on is kept again. Say so before reading the rows, so that none is missed.
    pub(crate) fn catch_up(&self) {
        self.state.lock().behind = false;
    }

    /// All the rows that there were: they belong before what was added since, and stay until they are
    /// [`Outbox::done`] like any others.
    pub(crate) fn caught_up(&self, rows: &[Numbered]) {
        let mut state = self.state.lock();
        // It overflowed in the meantime: the rows are still in the ledger.
        if state.behind {
            return;
        }
        let Some(&(last, _)) = rows.last() else { return };
        while state.recent.front().is_some_and(|(first, _)| *first <= last) {
            state.recent.pop_front();
        }
        for row in rows.iter().rev() {
            state.recent.push_front(row.clone());
        }
    }

    /// The rows could not all be read.
    pub(crate) fn fall_behind(&self) {
        let mut state = self.state.lock();
        state.recent.clear();
        state.behind = true;
    }

    /// Everything up to the row `seq` is worked off.
    pub(crate) fn done(&self, seq: i64) {
        let mut state = self.state.lock();
        while state.recent.front().is_some_and(|(first, _)| *first <= seq) {
            state.recent.pop_front();
        }
    }

    /// Ends when something is added, or was since the last wait; also on [`Outbox::wake`].
    pub(crate) async fn wait(&self) {
        self.added.notified().await;
    }

    /// Ends a wait.
    pub(crate) fn wake(&self) {
        self.added.notify_one();
    }
}
