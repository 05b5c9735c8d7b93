//! The bounded queue between decisions and the ledger's writer.
//!
//! Deciders append while they hold their sale's lock, so that ledger order is decision order. The writer
//! takes all that waits at once. It is woken only when it sleeps: at once for an entry that somebody waits
//! for, and after a short linger for audit rows alone, so that rejections are written in large groups.

use std::{mem, pin::pin, time::Duration};

use flashsale_core::{Error, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::{Notify, futures::Notified};

use super::{Totals, record::Entry};

/// The most entries that wait. At the bound, deciders wait for room instead (P8).
pub(crate) const CAPACITY: usize = 16_384;
/// Audit rows that nobody waits for are written when there are this many…
const ENOUGH: usize = 4_096;
/// …or after this long, whichever comes first.
const LINGER: Duration = Duration::from_millis(10);
/// How long a decider waits for room before it says that the system is at its limit.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// The queue.
pub(crate) struct CommitQueue {
    /// The most entries that wait.
    capacity: usize,
    state: Mutex<State>,
    work: Condvar,
    room: Notify,
    commit: Notify,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    /// Somebody waits for an entry.
    urgent: bool,
    writer: WriterIs,
    closed: bool,
    /// Another process holds the ledger, and has for long.
    held: bool,
    /// Why nothing can be recorded any more.
    failed: Option<String>,
    commits: u64,
    /// Entries since the start: those that were ever appended, and those of them that are durable.
    appended: u64,
    committed: u64,
}

#[derive(Default, PartialEq, Eq)]
enum WriterIs {
    #[default]
    Busy,
    /// Asleep until there is anything.
    Idle,
    /// Asleep with audit rows at hand, until there is something urgent or enough.
    Lingering,
}

/// The queue, locked, with room for at least one entry.
pub(crate) struct Room<'a> {
    state: MutexGuard<'a, State>,
    work: &'a Condvar,
}

/// What a decider finds.
pub(crate) enum Entrance<'a> {
    Open(Room<'a>),
    Full,
}

impl CommitQueue {
    /// An empty queue of at most `capacity` entries.
    pub(crate) fn new(capacity: usize) -> Self {
        let (state, work, room, commit) = Default::default();
        Self { capacity, state, work, room, commit }
    }

    /// Locks the queue, to append.
    ///
    /// # Errors
    /// When nothing can be recorded any more.
    pub(crate) fn enter(&self) -> Result<Entrance<'_>> {
        let state = self.state.lock();
        check(&state)?;
        if state.entries.len() >= self.capacity {
            return Ok(Entrance::Full);
        }
        Ok(Entrance::Open(Room { state, work: &self.work }))
    }

    /// Whether anything can be recorded.
    pub(crate) fn check(&self) -> Result<()> {
        check(&self.state.lock())
    }

    /// Wakes after the next time that entries were taken. Enable it before looking whether there is room.
    pub(crate) fn room(&self) -> Notified<'_> {
        self.room.notified()
    }

    /// Wakes after the next commit, or when there will be none. Enable it before looking at what is durable.
    pub(crate) fn next_commit(&self) -> Notified<'_> {
        self.commit.notified()
    }

    /// Waits for entries and takes them all, into `group`, which is empty; `false` once the queue is closed
    /// and empty.
    pub(crate) fn take(&self, group: &mut Vec<Entry>) -> bool {
        debug_assert!(group.is_empty());
        let mut state = self.state.lock();
        while !state.ripe() {
            if state.entries.is_empty() {
                state.writer = WriterIs::Idle;
                self.work.wait(&mut state);
            } else {
                state.writer = WriterIs::Lingering;
                if self.work.wait_for(&mut state, LINGER).timed_out() {
                    break;
                }
            }
        }
        self.hand_over(state, group)
    }

    /// What [`CommitQueue::take`] would do now, without waiting: `None` where it would wait. `lingered` when it has
    /// waited for more audit rows long enough.
    #[cfg(feature = "stepped")]
    pub(crate) fn try_take(&self, group: &mut Vec<Entry>, lingered: bool) -> Option<bool> {
        let state = self.state.lock();
        let ready = state.ripe() || lingered && !state.entries.is_empty();
        ready.then(|| self.hand_over(state, group))
    }

    fn hand_over(&self, mut state: MutexGuard<'_, State>, group: &mut Vec<Entry>) -> bool {
        state.writer = WriterIs::Busy;
        state.urgent = false;
        mem::swap(&mut state.entries, group);
        drop(state);
        self.room.notify_waiters();
        !group.is_empty()
    }

    /// Waits until everything that was appended before is durable.
    ///
    /// # Errors
    /// When it cannot be made so any more.
    pub(crate) async fn flush(&self) -> Result<()> {
        let target = {
            let mut state = self.state.lock();
            state.urgent |= !state.entries.is_empty();
            state.wake(&self.work);
            state.appended
        };
        loop {
            let mut commit = pin!(self.next_commit());
            commit.as_mut().enable();
            {
                let state = self.state.lock();
                if state.committed >= target {
                    return Ok(());
                }
                if let Some(reason) = &state.failed {
                    return Err(failure(reason));
                }
                if state.held {
                    return Err(held());
                }
            }
            commit.await;
        }
    }

    /// Another process holds the ledger, so that `group` and all that waits are not written for now. Whoever waits for the
    /// outcome of an attempt is told to ask again, and nothing more is taken until [`CommitQueue::go_on`]. Entries stay:
    /// what they record is decided. Who changes a sale goes on waiting, since that is done and cannot be taken back.
    pub(crate) fn hold_up(&self, group: &mut [Entry]) {
        let mut state = self.state.lock();
        state.held = true;
        let replies: Vec<_> =
            group.iter_mut().chain(&mut state.entries).filter_map(Entry::take_attempts_reply).collect();
        drop(state);
        self.room.notify_waiters();
        self.commit.notify_waiters();
        for reply in replies {
            let _ = reply.send(Err(held()));
        }
    }

    /// The ledger can be written again.
    pub(crate) fn go_on(&self) {
        self.state.lock().held = false;
    }

    /// A group of `entries` is durable, and memory says so.
    pub(crate) fn count_commit(&self, entries: usize) {
        let mut state = self.state.lock();
        state.commits += 1;
        state.committed += entries as u64;
        drop(state);
        self.commit.notify_waiters();
    }

    /// Nothing can be recorded any more; returns what still waits, and what it and everybody else is told. The first reason
    /// stays.
    pub(crate) fn fail(&self, reason: &str) -> (Vec<Entry>, Error) {
        let mut state = self.state.lock();
        let failure = failure(state.failed.get_or_insert_with(|| reason.to_owned()));
        let left = mem::take(&mut state.entries);
        drop(state);
        self.work.notify_one();
        self.room.notify_waiters();
        self.commit.notify_waiters();
        (left, failure)
    }

    /// Whether nothing can be recorded any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.state.lock().failed.is_some()
    }

    /// Takes nothing more; what waits is still written.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
        self.room.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    pub(crate) fn totals(&self) -> Totals {
        let state = self.state.lock();
        Totals { commits: state.commits, entries: state.committed, waiting: state.entries.len() }
    }
}

impl State {
    /// Whether the writer should take what there is (which, once closed, may be nothing).
    fn ripe(&self) -> bool {
        self.closed || self.failed.is_some() || self.urgent || self.entries.len() >= ENOUGH
    }

    /// Wakes the writer, where it sleeps and should not.
    fn wake(&mut self, work: &Condvar) {
        let wake = match self.writer {
            WriterIs::Busy => false,
            WriterIs::Idle => !self.entries.is_empty(),
            WriterIs::Lingering => self.ripe(),
        };
        if wake {
            self.writer = WriterIs::Busy;
            work.notify_one();
        }
    }
}

fn check(state: &State) -> Result<()> {
    match &state.failed {
        Some(reason) => Err(failure(reason)),
        None if state.closed => Err(Error::unavailable("the server is shutting down")),
        None if state.held => Err(held()),
        None => Ok(()),
    }
}

/// What everybody is told while another process holds the ledger.
fn held() -> Error {
    Error::Unavailable {
        reason: "another process holds the ledger, so nothing can be recorded right now; please ask again"
            .to_owned(),
        retry_after: PATIENCE,
    }
}

/// What everybody is told once the ledger has failed.
fn failure(reason: &str) -> Error {
    Error::unavailable(format!("selling has stopped, because the ledger cannot record it: {reason}"))
}

impl Room<'_> {
    /// Appends an entry.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.state.urgent |= entry.reply.is_some();
        self.state.appended += 1;
        self.state.entries.push(entry);
        self.state.wake(self.work);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flashsale_core::{
        clock::Timestamp,
        ids::{Epoch, Place},
        inventory::Inventory,
        sale::{NewSale, Window},
    };
    use tokio::sync::oneshot::{self, error::TryRecvError};

    use super::*;
    use crate::{
        ledger::record::{Outcome, Record},
        sales::SaleCell,
    };

    /// An entry that somebody waits for, and where he does.
    fn awaited(record: Record) -> (Entry, oneshot::Receiver<Result<()>>) {
        let at = Timestamp::from_millis;
        let window = Window::new(at(0), at(1)).unwrap();
        let sale = NewSale::new("sale_1".parse().unwrap(), "Sale".to_owned(), 1, window).unwrap();
        let cell = Arc::new(SaleCell::new(1, Inventory::new(sale.open(Epoch(1)), Place(1))));
        let (reply, commit) = oneshot::channel();
        (Entry { cell, place: Place(2), epoch: Epoch(1), at: at(0), record, reply: Some(reply) }, commit)
    }

    fn attempt() -> (Entry, oneshot::Receiver<Result<()>>) {
        awaited(Record::Attempt("user".parse().unwrap(), Outcome::SoldOut))
    }

    fn push(queue: &CommitQueue, entry: Entry) {
        let Ok(Entrance::Open(mut room)) = queue.enter() else { panic!("there is room") };
        room.push(entry);
    }

    /// They waited for as long as another process held the ledger, and readiness said that all was well.
    #[test]
    fn while_the_ledger_is_held_attempts_are_told_to_come_again_and_nothing_is_lost() {
        let queue = CommitQueue::new(4);
        let ((taken, mut first), (waiting, mut second)) = (attempt(), attempt());
        let (changing, mut changed) = awaited(Record::Reset);
        push(&queue, waiting);
        push(&queue, changing);
        let mut group = vec![taken];

        queue.hold_up(&mut group);
        for commit in [&mut first, &mut second] {
            let told = commit.try_recv().expect("an answer").unwrap_err();
            assert!(matches!(told, Error::Unavailable { retry_after: PATIENCE, .. }), "{told:?}");
        }
        assert_eq!(
            changed.try_recv(),
            Err(TryRecvError::Empty),
            "a change cannot be taken back, so it waits"
        );
        assert!(queue.check().is_err(), "it is not ready");
        assert!(queue.enter().is_err(), "and decides nothing");
        assert_eq!((group.len(), queue.totals().waiting), (1, 2), "what is decided is to be recorded");

        queue.go_on();
        assert_eq!(queue.check(), Ok(()));
        assert!(queue.take(&mut Vec::new()), "what waits is taken");
    }
}
