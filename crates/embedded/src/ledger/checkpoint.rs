//! Keeps the write-ahead log short, off the commit path.
//!
//! A thread with a connection of its own copies the log into the file while sales go on. Because the log can
//! only start anew at a moment when all of it is copied, and a busy writer always adds to it, the writer is
//! asked, right after such a copy, to copy the little that is left between two groups.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use rusqlite::Connection;
use tracing::{debug, error, warn};

use super::{
    commit_queue::CommitQueue,
    failure::{is_failed_sync, leave_log_alone, stop},
    outbox::Outbox,
    schema,
};

/// The log is copied when it holds more pages than this: 64 MiB, at 4 KiB a page.
const LOG_PAGES: i64 = 16_384;
/// How often that is looked at.
const INTERVAL: Duration = Duration::from_millis(250);

/// The checkpointer's thread.
pub(crate) struct Checkpointer {
    tidy: Arc<AtomicBool>,
    stop: SyncSender<()>,
    thread: thread::JoinHandle<()>,
}

impl Checkpointer {
    /// Starts the thread on the ledger at `path`.
    pub(crate) fn start(path: &Path, queue: Arc<CommitQueue>, outbox: Arc<Outbox>) -> rusqlite::Result<Self> {
        let connection = schema::open_for_writing(path)?;
        let tidy = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = mpsc::sync_channel(1);
        let flag = tidy.clone();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                keep_short(&connection, &queue, &outbox, &flag, LOG_PAGES);
            }
            if queue.has_failed() {
                leave_log_alone(&connection);
            }
        });
        Ok(Self { tidy, stop, thread })
    }

    /// Set when the writer should copy what is left.
    pub(crate) fn tidy(&self) -> Arc<AtomicBool> {
        self.tidy.clone()
    }

    pub(crate) fn stop(self) {
        // A full channel means that it was told already.
        let _ = self.stop.try_send(());
        if self.thread.join().is_err() {
            error!("the checkpointer ended in a panic");
        }
    }
}

/// Copies the log into the file when it holds more than `log_pages`, unless the ledger has failed.
pub(super) fn keep_short(
    connection: &Connection,
    queue: &CommitQueue,
    outbox: &Outbox,
    tidy: &AtomicBool,
    log_pages: i64,
) {
    if queue.has_failed() {
        return;
    }
    match copy(connection, log_pages) {
        Ok(copied) if copied > 0 => {
            debug!(pages = copied, "checkpoint");
            tidy.store(true, Ordering::Relaxed);
        }
        Ok(_) => {}
        Err(error) if is_failed_sync(&error) => stop(queue, outbox, Vec::new(), &error.to_string()),
        Err(error) => {
            warn!(%error, "a checkpoint of the ledger failed; its log grows until one succeeds");
        }
    }
}

/// How many pages the log holds, if they were more than `log_pages` and copied; 0 otherwise.
fn copy(connection: &Connection, log_pages: i64) -> rusqlite::Result<i64> {
    // NOOP only counts. The length of the log's file says nothing, because it is written over in place.
    if pages(connection, "PRAGMA wal_checkpoint(NOOP)")? <= log_pages {
        return Ok(0);
    }
    pages(connection, "PRAGMA wal_checkpoint(PASSIVE)")
}

/// Runs a checkpoint; how many pages the log holds.
fn pages(connection: &Connection, checkpoint: &str) -> rusqlite::Result<i64> {
    connection.query_row(checkpoint, [], |row| row.get(1))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::ffi;

    use super::*;

    /// After a failed sync the system may have dropped what an earlier checkpoint copied; to copy again and let go of the log
    /// would lose it.
    #[test]
    fn nothing_is_copied_once_the_ledger_has_failed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let connection = schema::open_for_writing(&path).unwrap();
        connection.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY)").unwrap();
        let (queue, outbox, tidy) = (CommitQueue::new(1), Outbox::new(1, false), AtomicBool::new(false));
        let before = fs::read(&path).unwrap();

        stop(&queue, &outbox, Vec::new(), "a sync failed");
        keep_short(&connection, &queue, &outbox, &tidy, 0);
        leave_log_alone(&connection);
        drop(connection);
        assert!(!tidy.load(Ordering::Relaxed));
        assert_eq!(fs::read(&path).unwrap(), before, "the log stays where it is, also when it is closed");

        let connection = schema::open_for_writing(&path).unwrap();
        keep_short(&connection, &CommitQueue::new(1), &outbox, &tidy, 0);
        assert!(tidy.load(Ordering::Relaxed) && fs::read(&path).unwrap() != before, "it is copied otherwise");
    }

    #[test]
    fn only_a_failed_sync_stops_selling() {
        let error = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        assert!(is_failed_sync(&error(ffi::SQLITE_IOERR_FSYNC)));
        assert!(!is_failed_sync(&error(ffi::SQLITE_FULL)));
        assert!(!is_failed_sync(&error(ffi::SQLITE_BUSY)));
    }
}
