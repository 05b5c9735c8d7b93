//! The ledger without its threads: whoever opened it takes the writer's and the checkpointer's steps himself.

use std::{path::Path, sync::Arc};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::{
    Ledger, Readers,
    checkpoint::{self, Tidy},
    commit_queue::CommitQueue,
    outbox::Outbox,
    recovery,
    recovery::Recovered,
    schema,
    writer::Writer,
};
use crate::{OpenError, stepped::Bounds};

/// What the checkpointer's thread works with.
pub(crate) struct Checkpointer {
    connection: Connection,
    queue: Arc<CommitQueue>,
    outbox: Arc<Outbox>,
    tidy: Arc<Tidy>,
}

impl Checkpointer {
    pub(crate) fn look(&self, log_pages: i64) -> bool {
        let copy = |too_long: &dyn Fn(checkpoint::Log) -> bool| {
            checkpoint::keep_short(&self.connection, &self.queue, &self.outbox, &self.tidy, too_long)
        };
        if copy(&|log| log.pages > log_pages) {
            // The thread lets readers pause here. Where all runs on one thread nobody could wait for them.
            copy(&|log| log.pages > log.copied);
            self.tidy.ask();
        }
        !self.queue.has_failed()
    }
}

impl Ledger {
    /// As [`Ledger::open`], in the same order.
    pub(crate) fn open_stepped(
        path: &Path,
        bounds: Bounds,
    ) -> Result<(Self, Recovered, Writer, Checkpointer), OpenError> {
        let sqlite = |source| OpenError::Sqlite { path: path.display().to_string(), source };
        let connection = schema::open(path)?;
        let recovered = recovery::recover(&connection, path)?;

        let queue = Arc::new(CommitQueue::new(bounds.waiting));
        let outbox = Arc::new(Outbox::new(bounds.outbox, recovered.found.reserved > 0));
        let tidy = Arc::<Tidy>::default();
        let checkpointer = Checkpointer {
            connection: schema::open_for_writing(path).map_err(sqlite)?,
            queue: queue.clone(),
            outbox: outbox.clone(),
            tidy: tidy.clone(),
        };
        let writer = Writer::new(connection, queue.clone(), outbox.clone(), tidy);
        let mut readers = Readers::open(path)?;
        readers.in_place = true;
        let ledger = Self { queue, readers: Arc::new(readers), outbox, threads: Mutex::new(None) };
        Ok((ledger, recovered, writer, checkpointer))
    }
}
