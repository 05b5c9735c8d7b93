//! The default profile: one process, one file.
//!
//! A purchase is decided in memory under a short lock ([`Embedded::inventory`]), and, inside the same
//! critical section, appended to the ledger's bounded commit queue, so that ledger order is decision order.
//! One thread commits what waits in groups (`ledger`), and only then are the waiting replies completed.
//! What is reserved is the order queue ([`Embedded::queue`], the ledger's rows themselves), which the order
//! worker of `flashsale-core` has confirmed in the store ([`Embedded::store`]).
//!
//! Memory is rebuilt from the ledger alone. When a write or an fsync fails, selling stops at once and for
//! good: what the disk holds is then known only after a new start.

#[cfg(feature = "bench")]
pub mod bench;
mod figures;
mod folder;
mod inventory;
mod ledger;
mod operators;
mod queue;
mod sales;
mod search;
#[cfg(feature = "stepped")]
pub mod stepped;
mod store;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use flashsale_core::{
    Error,
    clock::Timestamp,
    ids::SaleId,
    inventory::Damaged,
    ports::{Clock, Inventory, OperatorLog, OrderIds, OrderQueue, OrderStore},
};

pub use folder::{Folder, Occupied};
use ledger::Readers;
pub use ledger::{FILE_NAME, Totals};

/// Why the data folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on it.
    #[error(transparent)]
    Occupied(#[from] Occupied),
    /// The folder or a file in it cannot be made, read or written.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// SQLite cannot open or read the ledger.
    #[error("cannot open the ledger {path}: {source}")]
    Sqlite {
        /// The ledger's file.
        path: String,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The file is of a newer program.
    #[error(
        "the ledger {path} has schema version {found}, and this program knows versions up to {known}: use the newer program"
    )]
    TooNew {
        /// The ledger's file.
        path: String,
        /// Its version.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The file is of an older program.
    #[error(
        "the ledger {path} has schema version {found}, and this program reads version {known}: `flashsale migrate` brings it there, and so does a start"
    )]
    TooOld {
        /// The ledger's file.
        path: String,
        /// Its version.
        found: i64,
        /// The version that this program reads.
        known: i64,
    },
    /// The file is a database, but not a ledger.
    #[error("{path} is a database of another program: use another data folder")]
    Foreign {
        /// The file.
        path: String,
    },
    /// The ledger contradicts itself.
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// What start-up found in the ledger when it rebuilt memory from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Sales.
    pub sales: usize,
    /// Live orders that are confirmed.
    pub confirmed: u64,
    /// Reservations that were recorded and still have to be confirmed.
    pub reserved: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sales, confirmed, reserved } = self;
        let s = |count: u64| if count == 1 { "" } else { "s" };
        write!(
            f,
            "{sales} sale{}, {confirmed} confirmed order{}, {reserved} reservation{} still to be confirmed",
            s(*sales as u64),
            s(*confirmed),
            s(*reserved)
        )
    }
}

/// The embedded profile on one data folder.
pub struct Embedded {
    engine: Arc<inventory::Engine>,
    queue: Arc<queue::LedgerQueue>,
    operators: Arc<operators::Operators>,
    found: Found,
}

impl Embedded {
    /// Opens the ledger in `folder`, making it when there is none, and rebuilds memory from it.
    ///
    /// # Errors
    /// When the ledger cannot be opened, or contradicts itself.
    pub fn open(folder: &Folder, clock: Arc<dyn Clock>, ids: Arc<dyn OrderIds>) -> Result<Self, OpenError> {
        let path = folder.path().join(FILE_NAME);
        let (ledger, recovered) = ledger::Ledger::open(&path)?;
        Ok(Self::on(path, ledger, recovered, clock, ids))
    }

    fn on(
        path: PathBuf,
        ledger: ledger::Ledger,
        recovered: ledger::Recovered,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn OrderIds>,
    ) -> Self {
        let found = recovered.found;
        let operators =
            Arc::new(operators::Operators::new(path, ledger.readers.clone(), ledger.queue.clone()));
        let sales = sales::Sales::new(recovered.cells, recovered.next_no);
        let engine = Arc::new(inventory::Engine::new(sales, ledger, clock, ids));
        let queue = Arc::new(queue::LedgerQueue::new(engine.clone()));
        Self { engine, queue, operators, found }
    }

    /// What start-up found.
    #[must_use]
    pub fn found(&self) -> Found {
        self.found
    }

    /// The inventory.
    #[must_use]
    pub fn inventory(&self) -> Arc<dyn Inventory> {
        self.engine.clone()
    }

    /// The order queue.
    #[must_use]
    pub fn queue(&self) -> Arc<dyn OrderQueue> {
        self.queue.clone()
    }

    /// The order store.
    #[must_use]
    pub fn store(&self) -> Arc<dyn OrderStore> {
        Arc::new(store::Store::new(self.engine.clone()))
    }

    /// The operator log.
    #[must_use]
    pub fn operator_log(&self) -> Arc<dyn OperatorLog> {
        self.operators.clone()
    }

    /// Since when the oldest reservation of a sale waits to be confirmed, where one does.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn waiting_since(&self, sale: &SaleId) -> Result<Option<Timestamp>, Error> {
        self.queue.waiting_since(sale).await
    }

    /// What the ledger has done since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.engine.ledger().queue.totals()
    }

    /// Lets the order queue end once it is drained; decisions go on.
    pub fn close_queue(&self) {
        self.queue.close();
    }

    /// Stops deciding, writes down all that waits, and closes the file. Idempotent; may take as long as one
    /// commit of everything that waits.
    pub fn close(&self) {
        self.queue.close();
        self.engine.ledger().close();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

/// Opens the ledger of a data folder for reading only, beside a server that may be running on it.
///
/// # Errors
/// When there is no ledger, it is none or one of another version, or SQLite cannot open it.
pub fn read_only(data_dir: &Path) -> Result<Arc<dyn OrderStore>, OpenError> {
    let path = data_dir.join(FILE_NAME);
    ledger::check_version(&path)?;
    Ok(Arc::new(store::Records::new(Arc::new(Readers::open(&path)?))))
}
