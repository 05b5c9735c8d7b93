//! The ledger: SQLite, written by one thread in groups, read by anybody on connections of their own.
//!
//! ```text
//! decisions ──append──▶ commit_queue ──take all──▶ writer ──one transaction──▶ flashsale.db
//!     ▲                                              │
//!     └──────────── replies, after the commit ───────┘
//! ```
//! `record` is what is appended, `outbox` what is reserved and still to be confirmed, `schema` the file's form, `recovery` the way back from file to memory,
//! `checkpoint` keeps the write-ahead log short, off the commit path, and `readers` serves everybody else.

mod checkpoint;
pub(crate) mod commit_queue;
mod failure;
mod outbox;
mod readers;
pub(crate) mod record;
mod recovery;
mod schema;
#[cfg(feature = "stepped")]
pub(crate) mod stepped;
pub(crate) mod writer;

use std::{path::Path, sync::Arc, thread};

use parking_lot::Mutex;

pub(crate) use commit_queue::CommitQueue;
pub(crate) use failure::leave_log_alone;
pub(crate) use readers::Readers;
pub(crate) use readers::unreadable;
pub(crate) use recovery::{Recovered, moment, order_id, parsed};
pub use schema::FILE_NAME;
pub(crate) use schema::{check_version, open_for_writing};

use self::{checkpoint::Checkpointer, writer::Writer};
use crate::OpenError;
pub(crate) use outbox::Outbox;

/// The ledger, open for writing.
pub(crate) struct Ledger {
    pub(crate) queue: Arc<CommitQueue>,
    pub(crate) readers: Arc<Readers>,
    pub(crate) outbox: Arc<Outbox>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    writer: thread::JoinHandle<()>,
    checkpointer: Checkpointer,
}

/// What the ledger has done since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Groups committed.
    pub commits: u64,
    /// Entries in them.
    pub entries: u64,
    /// Entries that wait to be committed right now.
    pub waiting: usize,
}

impl Ledger {
    /// Opens the ledger at `path`, making it when there is none, and reads memory back from it.
    pub(crate) fn open(path: &Path) -> Result<(Self, Recovered), OpenError> {
        let sqlite = |source| OpenError::Sqlite { path: path.display().to_string(), source };
        let io = |what| move |source| OpenError::Io { what, path: path.display().to_string(), source };
        let connection = schema::open(path)?;
        let recovered = recovery::recover(&connection, path)?;

        let queue = Arc::new(CommitQueue::new(commit_queue::CAPACITY));
        let outbox = Arc::new(Outbox::new(outbox::CAPACITY, recovered.found.reserved > 0));
        let readers = Arc::new(Readers::open(path)?);
        let sync = checkpoint::open_to_sync(path).map_err(io("cannot open the file"))?;
        let checkpointer = Checkpointer::start(path, queue.clone(), outbox.clone(), readers.clone(), sync)
            .map_err(sqlite)?;
        let writer = Writer::new(connection, queue.clone(), outbox.clone(), checkpointer.tidy());
        let writer = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run_to_the_end())
            .map_err(io("cannot start the thread of the ledger"))?;
        let threads = Mutex::new(Some(Threads { writer, checkpointer }));
        Ok((Self { queue, readers, outbox, threads }, recovered))
    }

    /// Takes nothing more, commits what waits, and closes the file.
    pub(crate) fn close(&self) {
        self.queue.close();
        if let Some(Threads { writer, checkpointer }) = self.threads.lock().take() {
            checkpointer.stop();
            self.readers.close();
            if writer.join().is_err() {
                tracing::error!("the thread of the ledger ended in a panic");
            }
        }
    }
}
