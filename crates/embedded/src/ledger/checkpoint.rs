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

use super::schema;

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
    pub(crate) fn start(path: &Path) -> rusqlite::Result<Self> {
        let connection = schema::open_for_writing(path)?;
        let tidy = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = mpsc::sync_channel(1);
        let flag = tidy.clone();
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = keep_short(&connection, &flag, LOG_PAGES) {
                    warn!(%error, "a checkpoint of the ledger failed; its log grows until one succeeds");
                }
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

/// Copies the log into the file when it holds more than `log_pages`.
pub(super) fn keep_short(connection: &Connection, tidy: &AtomicBool, log_pages: i64) -> rusqlite::Result<()> {
    // NOOP only counts. The length of the log's file says nothing, because it is written over in place.
    let in_the_log = pages(connection, "PRAGMA wal_checkpoint(NOOP)")?;
    if in_the_log > log_pages {
        let copied = pages(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        debug!(pages = copied, "checkpoint");
        tidy.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Runs a checkpoint; how many pages the log holds.
fn pages(connection: &Connection, checkpoint: &str) -> rusqlite::Result<i64> {
    connection.query_row(checkpoint, [], |row| row.get(1))
}
