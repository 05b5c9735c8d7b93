//! Keeps the write-ahead log short, off the commit path.
//!
//! A thread with a connection of its own copies the log into the file while sales go on. Because the log can
//! only start anew at a moment when all of it is copied, and a busy writer always adds to it, the writer is
//! asked, right after such a copy, to copy the little that is left between two groups.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use rusqlite::Connection;
use tracing::{debug, warn};

use super::schema;

/// The log is copied when it is longer than this.
const LOG_BYTES: u64 = 32 << 20;
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
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let (log, flag) = (PathBuf::from(log), tidy.clone());
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if log.metadata().is_ok_and(|log| log.len() > LOG_BYTES) {
                    checkpoint(&connection);
                    flag.store(true, Ordering::Relaxed);
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
            tracing::error!("the checkpointer ended in a panic");
        }
    }
}

fn checkpoint(connection: &Connection) {
    let outcome = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    match outcome {
        Ok((pages, copied)) => debug!(pages, copied, "checkpoint"),
        Err(error) => warn!(%error, "a checkpoint of the ledger failed; its log grows until one succeeds"),
    }
}
