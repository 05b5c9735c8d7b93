//! Wiring: the only file that names the adapters. From a configuration to a running profile.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use flashsale_core::{
    Result,
    ports::{Clock, OrderIds, OrderStore},
    service::SaleService,
    worker::OrderWorker,
};
use flashsale_embedded::{Embedded, Folder, OpenError};
use tokio::{task::JoinHandle, time::timeout};
use tracing::{info, warn};

use crate::{
    ambient::{RandomIds, SystemClock},
    vitals::{Part, Recorded, Vitals},
};

/// How long the order worker may take on shutdown to confirm what is reserved.
const CONFIRM_TIME: Duration = Duration::from_secs(10);

/// A profile that runs: its service, its store, and its worker.
pub(crate) struct Running {
    pub(crate) sales: SaleService,
    pub(crate) store: Arc<dyn OrderStore>,
    pub(crate) vitals: Arc<dyn Vitals>,
    embedded: Arc<Embedded>,
    worker: JoinHandle<flashsale_core::worker::Work>,
    folder: Folder,
}

/// Opens the embedded profile in a data folder, and starts its worker.
pub(crate) fn embedded(data_dir: &Path) -> std::result::Result<Running, OpenError> {
    let folder = Folder::open(data_dir)?;
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn OrderIds>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let embedded = Arc::new(Embedded::open(&folder, clock.clone(), ids.clone())?);
    info!(ledger = %data_dir.join(flashsale_embedded::FILE_NAME).display(), "memory is rebuilt from the ledger: {}", embedded.found());
    let worker = OrderWorker::new(embedded.queue(), embedded.store(), clock.clone());
    Ok(Running {
        sales: SaleService::new(embedded.inventory(), clock, ids),
        store: embedded.store(),
        vitals: embedded.clone(),
        worker: tokio::spawn(worker.run()),
        embedded,
        folder,
    })
}

/// The store of the embedded profile, for reading, beside whoever runs on it.
pub(crate) fn embedded_records(data_dir: &Path) -> std::result::Result<Arc<dyn OrderStore>, OpenError> {
    flashsale_embedded::read_only(data_dir)
}

impl Running {
    /// Leaves word in the data folder of the address that is served.
    pub(crate) fn announce(&self, address: &str) {
        if let Err(error) = self.folder.announce(address) {
            warn!(%error, "other commands will not find this server by its data folder");
        }
    }

    /// Confirms what is reserved, writes down all that waits, and closes the store.
    pub(crate) async fn close(self) {
        self.embedded.close_queue();
        // A ledger that cannot be written confirms nothing any more, however long the worker tries.
        let writable = self.embedded.inventory().ready().await.is_ok();
        let mut worker = self.worker;
        match timeout(if writable { CONFIRM_TIME } else { Duration::ZERO }, &mut worker).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                warn!(%error, "the order worker ended badly; the next start confirms what it left");
            }
            Err(_) => {
                worker.abort();
                warn!("not all reservations are confirmed; the next start does it");
            }
        }
        let embedded = self.embedded;
        if let Err(error) = tokio::task::spawn_blocking(move || embedded.close()).await {
            warn!(%error, "the ledger was not closed; the next start reads it all the same");
        }
    }
}

#[async_trait]
impl Vitals for Embedded {
    fn profile(&self) -> &'static str {
        "embedded"
    }

    async fn ready(&self) -> Result<()> {
        self.inventory().ready().await
    }

    async fn parts(&self) -> BTreeMap<&'static str, Part> {
        let database = match self.inventory().ready().await {
            Ok(()) => Part {
                status: "up",
                detail: "SQLite ledger: a purchase is on the disk before it is acknowledged".to_owned(),
            },
            Err(error) => Part { status: "down", detail: error.to_string() },
        };
        BTreeMap::from([("database", database)])
    }

    fn recorded(&self) -> Recorded {
        let totals = self.totals();
        Recorded { commits: totals.commits, entries: totals.entries, waiting: totals.waiting }
    }
}
