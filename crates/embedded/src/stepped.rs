//! The profile without threads of its own, for simulations: on one thread, whoever opened it decides who takes the
//! next step, and so what happens in which order.
//!
//! What runs is what runs in production; only the loops around it are missing. Reads run where they are asked for.

use std::{io, path::Path, sync::Arc};

use flashsale_core::{
    ids::{Place, SaleId},
    ports::{Clock, OrderIds},
};

use crate::{Embedded, OpenError, ledger};

/// Bounds that production never comes near in a simulation's short life.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most entries that wait to be committed.
    pub waiting: usize,
    /// The most reservations that the outbox keeps in memory.
    pub outbox: usize,
}

/// The profile and what its threads would do.
pub struct Stepped {
    /// The profile.
    pub embedded: Embedded,
    /// The ledger's writer.
    pub writer: Writer,
    /// The checkpointer.
    pub checkpointer: Checkpointer,
}

/// The steps of the ledger's writer.
pub struct Writer(ledger::writer::Writer);

/// The steps of the checkpointer.
pub struct Checkpointer(ledger::stepped::Checkpointer);

/// What the writer took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// Nothing: it would wait.
    Nothing,
    /// A group; [`Writer::write`] comes next.
    Group,
    /// Nothing, and there will be no more: the queue is closed; [`finish`] comes next.
    End,
}

/// The last place of a sale's sequence in memory, while there is such a sale.
#[must_use]
pub fn place(embedded: &Embedded, sale: &SaleId) -> Option<Place> {
    embedded.engine.place(sale)
}

impl Stepped {
    /// Opens the profile on the ledger at `path`, which may be a URI that names another VFS of SQLite. `open_to_sync` opens
    /// the ledger's file beside SQLite once it is there; what it returns syncs it.
    ///
    /// # Errors
    /// As [`Embedded::open`].
    pub fn open<S: Fn() -> io::Result<()> + Send + 'static>(
        path: &Path,
        bounds: Bounds,
        open_to_sync: impl FnOnce() -> io::Result<S>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn OrderIds>,
    ) -> Result<Self, OpenError> {
        let (ledger, recovered, writer, checkpointer) =
            ledger::Ledger::open_stepped(path, bounds, open_to_sync)?;
        let embedded = Embedded::on(path.to_owned(), ledger, recovered, clock, ids);
        Ok(Self { embedded, writer: Writer(writer), checkpointer: Checkpointer(checkpointer) })
    }
}

/// Closes the file as the end of a clean stop does: the checkpointer first, then the readers, then the writer.
pub fn finish(embedded: &Embedded, writer: Writer, checkpointer: Checkpointer) {
    drop(checkpointer);
    embedded.engine.ledger().readers.close();
    writer.0.close();
}

impl Writer {
    /// Takes what waits, as the writer's thread would; `lingered` when it has waited for more audit rows long enough.
    pub fn take(&mut self, lingered: bool) -> Taken {
        match self.0.try_take(lingered) {
            None => Taken::Nothing,
            Some(true) => Taken::Group,
            Some(false) => Taken::End,
        }
    }

    /// Commits what was taken, and completes its replies. `false` when that failed: the writer has ended then, and is
    /// to be dropped.
    #[must_use]
    pub fn write(&mut self) -> bool {
        self.0.write()
    }

    /// Copies what is left of the log between two groups, as the writer does when the checkpointer asks for it.
    pub fn checkpoint(&self) {
        self.0.checkpoint();
    }
}

impl Checkpointer {
    /// What the checkpointer's thread does each time it looks; copies the log when it holds more than `log_pages`. `false`
    /// when nothing must be written any more.
    pub fn look(&mut self, log_pages: i64) -> bool {
        self.0.look(log_pages)
    }
}
