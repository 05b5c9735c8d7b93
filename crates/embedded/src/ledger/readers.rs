//! Connections for everybody who reads: never the writer's, and never on a purchase's way.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use flashsale_core::{Error, Result};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::{sync::Semaphore, task};

use super::schema;
use crate::OpenError;

/// The most reads at once; more wait.
const READERS_MAX: usize = 8;

/// A small pool of connections that can only read.
pub(crate) struct Readers {
    path: PathBuf,
    /// Reads run where they are asked for, and not on a thread of their own.
    #[cfg(feature = "stepped")]
    pub(super) in_place: bool,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    /// A pool on the ledger at `path`, which must exist.
    ///
    /// # Errors
    /// When SQLite cannot open it.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        let first = schema::open_for_reading(path)
            .map_err(|source| OpenError::Sqlite { path: path.display().to_string(), source })?;
        let permits = Arc::new(Semaphore::new(READERS_MAX));
        Ok(Self {
            path: path.to_owned(),
            #[cfg(feature = "stepped")]
            in_place: false,
            idle: Mutex::new(vec![first]),
            permits,
        })
    }

    /// Runs `read` on a connection, on a thread where it may take its time.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let closed = |_| Error::unavailable("the server is shutting down");
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        let readers = self.clone();
        let read = move || {
            // Held until the read has ended, even if nobody waits for it any more.
            let _permit = permit;
            let connection = readers.take()?;
            let outcome = read(&connection);
            readers.put_back(connection);
            outcome
        };
        #[cfg(feature = "stepped")]
        if self.in_place {
            return read();
        }
        task::spawn_blocking(read)
            .await
            .map_err(|error| Error::unavailable(format!("a read of the ledger ended: {error}")))?
    }

    /// Lets nobody in any more, and closes what is idle.
    pub(crate) fn close(&self) {
        self.permits.close();
        self.idle.lock().clear();
    }

    fn take(&self) -> Result<Connection> {
        let idle = self.idle.lock().pop();
        idle.map_or_else(|| schema::open_for_reading(&self.path).map_err(|error| unreadable(&error)), Ok)
    }

    fn put_back(&self, connection: Connection) {
        if !self.permits.is_closed() {
            self.idle.lock().push(connection);
        }
    }
}

/// What somebody is told whose read of the ledger failed.
pub(crate) fn unreadable(error: &rusqlite::Error) -> Error {
    Error::unavailable(format!("the ledger cannot be read: {error}"))
}
