//! The ledger without its threads: whoever opened it takes the writer's and the checkpointer's steps himself.

use std::{io, path::Path, sync::Arc};

use parking_lot::Mutex;

use super::{
    Ledger, Readers, checkpoint::Copier, commit_queue::CommitQueue, outbox::Outbox, recovery,
    recovery::Recovered, schema, writer::Writer,
};
use crate::{OpenError, stepped::Bounds};

/// The checkpointer without its thread.
pub(crate) struct Checkpointer(Copier);

impl Checkpointer {
    pub(crate) fn look(&self, log_pages: i64) -> bool {
        // Where all runs on one thread nobody could wait for readers, nor they for the end of a pause.
        self.0.look(log_pages, 0, || ());
        !self.0.queue.has_failed()
    }
}

impl Ledger {
    /// As [`Ledger::open`], in the same order; `open_to_sync` opens the file beside SQLite.
    pub(crate) fn open_stepped<S: Fn() -> io::Result<()> + Send + 'static>(
        path: &Path,
        bounds: Bounds,
        open_to_sync: impl FnOnce() -> io::Result<S>,
    ) -> Result<(Self, Recovered, Writer, Checkpointer), OpenError> {
        let sqlite = |source| OpenError::Sqlite { path: path.display().to_string(), source };
        let connection = schema::open(path)?;
        let recovered = recovery::recover(&connection, path)?;

        let queue = Arc::new(CommitQueue::new(bounds.waiting));
        let outbox = Arc::new(Outbox::new(bounds.outbox, recovered.found.reserved > 0));
        let sync = open_to_sync().map_err(|source| OpenError::Io {
            what: "cannot open the file",
            path: path.display().to_string(),
            source,
        })?;
        let copier = Copier::open(path, queue.clone(), outbox.clone(), Box::new(sync)).map_err(sqlite)?;
        let writer = Writer::new(connection, queue.clone(), outbox.clone(), copier.tidy.clone());
        let mut readers = Readers::open(path)?;
        readers.in_place = true;
        let ledger = Self { queue, readers: Arc::new(readers), outbox, threads: Mutex::new(None) };
        Ok((ledger, recovered, writer, Checkpointer(copier)))
    }
}
