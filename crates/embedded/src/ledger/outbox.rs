//! The outbox: reservations that are recorded, and not yet known to be confirmed.
//!
//! The ledger's rows are the outbox; what is kept here is their newest part, in memory, so that the order
//! queue need not read back what was written a moment ago. When it does not fit, it is dropped, and the
//! queue goes through the rows instead.

use std::collections::VecDeque;

use flashsale_core::{clock::Timestamp, ids::SaleId, order::Reservation};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most reservations that are kept in memory (P8).
pub(crate) const CAPACITY: usize = 65_536;

/// The newest part of the outbox.
pub(crate) struct Outbox {
    /// The most reservations that are kept.
    capacity: usize,
    state: Mutex<State>,
    added: Notify,
}

struct State {
    recent: VecDeque<Reservation>,
    /// How many were dropped from the front of `recent` so far: the number of its first one.
    first: u64,
    /// There may be rows which are not in `recent`.
    behind: bool,
}

impl Outbox {
    /// An outbox of which memory knows nothing yet; `behind` where there may be rows of it.
    pub(crate) fn new(capacity: usize, behind: bool) -> Self {
        let state = State { recent: VecDeque::new(), first: 0, behind };
        Self { capacity, state: Mutex::new(state), added: Notify::new() }
    }

    /// Called by the writer after each commit, with the reservations in it.
    pub(crate) fn add(&self, reservations: impl Iterator<Item = Reservation>) {
        let mut reservations = reservations.peekable();
        if reservations.peek().is_none() {
            return;
        }
        let mut state = self.state.lock();
        if !state.behind {
            state.recent.extend(reservations);
        }
        if state.recent.len() > self.capacity {
            state.first += state.recent.len() as u64;
            state.recent.clear();
            state.behind = true;
        }
        drop(state);
        self.added.notify_one();
    }

    /// The oldest that are kept, up to `most`, and the number that makes them [`Outbox::done`].
    pub(crate) fn next(&self, most: usize) -> (u64, Vec<Reservation>) {
        let state = self.state.lock();
        let batch: Vec<_> = state.recent.iter().take(most).cloned().collect();
        (state.first + batch.len() as u64, batch)
    }

    /// Everything before the number `end` is worked off.
    pub(crate) fn done(&self, end: u64) {
        let mut state = self.state.lock();
        while state.first < end && state.recent.pop_front().is_some() {
            state.first += 1;
        }
    }

    /// Whether all rows must be gone through, since some may not be kept. What is added from here on is kept again.
    pub(crate) fn catch_up(&self) -> bool {
        std::mem::take(&mut self.state.lock().behind)
    }

    /// Whether there may be rows that are not kept.
    pub(crate) fn is_behind(&self) -> bool {
        self.state.lock().behind
    }

    /// When the oldest that is kept of a sale was reserved.
    pub(crate) fn oldest_of(&self, sale: &SaleId) -> Option<Timestamp> {
        let state = self.state.lock();
        state.recent.iter().find(|kept| kept.sale_id == *sale).map(|oldest| oldest.reserved_at)
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
