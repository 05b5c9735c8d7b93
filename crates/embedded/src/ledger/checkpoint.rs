//! Keeps the write-ahead log short, off the commit path.
//!
//! A thread with a connection of its own copies the log into the file while sales go on. The log can only start anew at
//! a moment when all of it is copied, the file is synced, and nobody reads the log. A busy writer always adds to it, and
//! whoever reads page after page always reads it. So, right after such a copy, which the thread also syncs, readers pause,
//! and the writer is asked to copy and to sync the little that is left between two groups.

use std::{
    fs::OpenOptions,
    io,
    mem::ManuallyDrop,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tracing::{debug, error, warn};

use super::{
    Readers,
    commit_queue::CommitQueue,
    failure::{is_failed_sync, leave_log_alone, stop},
    outbox::Outbox,
    schema,
};

/// The log is copied when it holds more pages than this: 32 MiB, at 4 KiB a page.
const LOG_PAGES: i64 = 8_192;
/// What is left for the writer to copy, while purchases wait.
const REST_PAGES: i64 = 512;
/// How often that is looked at.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long the reads that are under way may take to end, so that the log can start anew; with longer ones it grows on.
const READS: Duration = Duration::from_millis(20);
/// How long readers pause for the writer, which may have nothing to write.
const PAUSE: Duration = Duration::from_millis(50);

/// Syncs the ledger's file past SQLite, which would do it only once all of the log is copied, in the writer's way.
pub(super) type SyncFile = Box<dyn Fn() -> io::Result<()> + Send>;

/// Opens the ledger's file to sync it.
pub(super) fn open_to_sync(path: &Path) -> io::Result<SyncFile> {
    // Never closed: on Unix that would let go of the locks which SQLite holds on the file for this process.
    let file = ManuallyDrop::new(OpenOptions::new().write(true).open(path)?);
    Ok(Box::new(move || file.sync_data()))
}

/// What the checkpointer asks of the writer: to copy, between two groups, what is left of the log.
#[derive(Default)]
pub(crate) struct Tidy {
    asked: Mutex<bool>,
    done: Condvar,
    /// Held by whoever copies, until it is known whether the ledger has failed over it: after a failed sync nobody must copy.
    copying: Mutex<()>,
}

impl Tidy {
    fn ask(&self) {
        *self.asked.lock() = true;
    }

    pub(super) fn is_asked(&self) -> bool {
        *self.asked.lock()
    }

    pub(super) fn done(&self) {
        *self.asked.lock() = false;
        self.done.notify_all();
    }

    /// Waits until it is done, and no longer than `patience`.
    fn wait(&self, patience: Duration) {
        self.done.wait_while_for(&mut self.asked.lock(), |asked| *asked, patience);
    }
}

/// How long the log is, in pages.
#[derive(Clone, Copy)]
pub(super) struct Log {
    pages: i64,
    /// How many of them are in the file, too.
    copied: i64,
}

impl Log {
    /// Runs a checkpoint.
    fn after(connection: &Connection, checkpoint: &str) -> rusqlite::Result<Self> {
        connection.query_row(checkpoint, [], |row| Ok(Self { pages: row.get(1)?, copied: row.get(2)? }))
    }
}

/// The checkpointer's thread.
pub(crate) struct Checkpointer {
    tidy: Arc<Tidy>,
    stop: SyncSender<()>,
    thread: thread::JoinHandle<()>,
}

impl Checkpointer {
    /// Starts the thread on the ledger at `path`.
    pub(crate) fn start(
        path: &Path,
        queue: Arc<CommitQueue>,
        outbox: Arc<Outbox>,
        readers: Arc<Readers>,
        sync: SyncFile,
    ) -> rusqlite::Result<Self> {
        let copier = Copier::open(path, queue, outbox, sync)?;
        let tidy = copier.tidy.clone();
        let (stop, stopped) = mpsc::sync_channel(1);
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if let Some(_pause) = copier.look(LOG_PAGES, REST_PAGES, || readers.pause(READS)) {
                    copier.tidy.wait(PAUSE);
                }
            }
            if copier.queue.has_failed() {
                leave_log_alone(&copier.connection);
            }
        });
        Ok(Self { tidy, stop, thread })
    }

    /// What the writer is asked.
    pub(crate) fn tidy(&self) -> Arc<Tidy> {
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

/// Copies the log for the checkpointer.
pub(super) struct Copier {
    connection: Connection,
    pub(super) queue: Arc<CommitQueue>,
    outbox: Arc<Outbox>,
    pub(super) tidy: Arc<Tidy>,
    sync: SyncFile,
}

impl Copier {
    pub(super) fn open(
        path: &Path,
        queue: Arc<CommitQueue>,
        outbox: Arc<Outbox>,
        sync: SyncFile,
    ) -> rusqlite::Result<Self> {
        Ok(Self { connection: schema::open_for_writing(path)?, queue, outbox, tidy: Arc::default(), sync })
    }

    /// Copies the log when it holds more than `log_pages`, unless all of it is copied, so that the next write starts it anew.
    /// Then it pauses the readers, copies what they kept from being copied if that is more than `rest_pages`, and asks the
    /// writer for what is left; the pause is to last until that is done.
    pub(super) fn look<P>(&self, log_pages: i64, rest_pages: i64, pause: impl FnOnce() -> P) -> Option<P> {
        if !self.keep_short(|log| log.pages > log_pages && log.copied < log.pages) {
            return None;
        }
        let pause = pause();
        self.keep_short(|log| log.pages - log.copied > rest_pages);
        self.tidy.ask();
        Some(pause)
    }

    fn keep_short(&self, too_long: impl Fn(Log) -> bool) -> bool {
        keep_short(&self.connection, &self.queue, &self.outbox, &self.tidy, too_long, &self.sync)
    }
}

/// Copies the log into the file when it is `too_long`, unless the ledger has failed or somebody else copies, and then has it
/// synced; whether it did.
pub(super) fn keep_short(
    connection: &Connection,
    queue: &CommitQueue,
    outbox: &Outbox,
    tidy: &Tidy,
    too_long: impl Fn(Log) -> bool,
    sync: impl FnOnce() -> io::Result<()>,
) -> bool {
    let Some(_copying) = tidy.copying.try_lock() else { return false };
    if queue.has_failed() {
        return false;
    }
    match copy(connection, too_long) {
        Ok(Copied::NotLong) => {}
        Ok(Copied::Nothing) => return true,
        Ok(Copied::Pages) => match sync() {
            Ok(()) => return true,
            Err(error) => stop(queue, outbox, Vec::new(), &format!("its file cannot be synced: {error}")),
        },
        Err(error) if is_failed_sync(&error) => stop(queue, outbox, Vec::new(), &error.to_string()),
        Err(error) => {
            warn!(%error, "a checkpoint of the ledger failed; its log grows until one succeeds");
        }
    }
    false
}

/// What a copy of the log came to.
enum Copied {
    /// It was not too long.
    NotLong,
    /// Readers kept all that is left from being copied.
    Nothing,
    /// Some of it, which is to be synced.
    Pages,
}

fn copy(connection: &Connection, too_long: impl Fn(Log) -> bool) -> rusqlite::Result<Copied> {
    // NOOP only counts. The length of the log's file says nothing, because it is written over in place.
    let before = Log::after(connection, "PRAGMA wal_checkpoint(NOOP)")?;
    if !too_long(before) {
        return Ok(Copied::NotLong);
    }
    let log = Log::after(connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
    debug!(pages = log.pages, copied = log.copied, "checkpoint");
    Ok(if log.copied == before.copied { Copied::Nothing } else { Copied::Pages })
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
        let (queue, outbox, tidy) = (CommitQueue::new(1), Outbox::new(1, false), Tidy::default());
        let before = fs::read(&path).unwrap();

        stop(&queue, &outbox, Vec::new(), "a sync failed");
        assert!(!keep_short(&connection, &queue, &outbox, &tidy, |_| true, || Ok(())));
        leave_log_alone(&connection);
        drop(connection);
        assert_eq!(fs::read(&path).unwrap(), before, "the log stays where it is, also when it is closed");

        let connection = schema::open_for_writing(&path).unwrap();
        assert!(keep_short(&connection, &CommitQueue::new(1), &outbox, &tidy, |_| true, || Ok(())));
        assert_ne!(fs::read(&path).unwrap(), before, "it is copied otherwise");
    }

    /// The writer would sync the rest of the file, and find no fault with it.
    #[test]
    fn a_copy_that_cannot_be_synced_stops_selling() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (queue, outbox) = (Arc::new(CommitQueue::new(1)), Arc::new(Outbox::new(1, false)));
        let sync = Box::new(|| Err(io::Error::other("the disk is gone")));
        let copier = Copier::open(&path, queue.clone(), outbox, sync).unwrap();
        copier.connection.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY)").unwrap();

        assert!(copier.look(0, 0, || ()).is_none());
        assert!(!copier.tidy.is_asked(), "the writer is not to let go of the log");
        let reason = queue.check().unwrap_err().to_string();
        assert!(reason.contains("its file cannot be synced: the disk is gone"), "{reason}");
    }

    /// Else a server with nothing to do would go on syncing and pausing its readers.
    #[test]
    fn what_is_copied_already_is_neither_copied_nor_synced_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let (queue, outbox) = (Arc::new(CommitQueue::new(1)), Arc::new(Outbox::new(1, false)));
        let syncs = Arc::new(Mutex::new(0));
        let counted = syncs.clone();
        let sync = Box::new(move || {
            *counted.lock() += 1;
            Ok(())
        });
        let copier = Copier::open(&path, queue, outbox, sync).unwrap();
        copier.connection.execute_batch("CREATE TABLE rows (id INTEGER PRIMARY KEY)").unwrap();

        assert!(copier.look(0, 0, || ()).is_some());
        assert!(copier.look(0, 0, || ()).is_none(), "nobody is to pause");
        assert_eq!(*syncs.lock(), 1);
    }

    #[test]
    fn only_a_failed_sync_stops_selling() {
        let error = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        assert!(is_failed_sync(&error(ffi::SQLITE_IOERR_FSYNC)));
        assert!(!is_failed_sync(&error(ffi::SQLITE_FULL)));
        assert!(!is_failed_sync(&error(ffi::SQLITE_BUSY)));
    }
}
