//! Connections for everybody who reads: never the writer's, and never on a purchase's way.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flashsale_core::{Error, Result};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
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
    /// Held for each read, and against all of them by whoever pauses them.
    under_way: RwLock<()>,
}

/// While it lasts nothing is read.
pub(crate) type Pause<'a> = RwLockWriteGuard<'a, ()>;

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
            under_way: RwLock::new(()),
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
            let _reading = readers.under_way.read();
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

    /// Lets the reads that are under way end, and nobody begin one until the pause is dropped; `None` when they take longer
    /// than `patience`.
    pub(crate) fn pause(&self, patience: Duration) -> Option<Pause<'_>> {
        self.under_way.try_write_for(patience)
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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use tokio::runtime::Runtime;

    use super::*;
    use crate::ledger::schema;

    /// The log of the ledger can start anew only while nobody reads.
    #[test]
    fn a_pause_begins_once_no_read_is_under_way_and_reads_go_on_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        schema::open(&path).unwrap();
        let readers = Arc::new(Readers::open(&path).unwrap());
        let runtime = Runtime::new().unwrap();
        let start = |read: Box<dyn FnOnce() + Send>| {
            let reader = readers.clone();
            let read = move |_: &Connection| {
                read();
                Ok(())
            };
            let read = runtime.spawn(async move { reader.run(read).await });
            while readers.permits.available_permits() == READERS_MAX {
                thread::yield_now();
            }
            read
        };

        let (begun, has_begun) = mpsc::sync_channel(1);
        let (end, may_end) = mpsc::sync_channel::<()>(1);
        let read = start(Box::new(move || {
            begun.send(()).unwrap();
            may_end.recv().unwrap();
        }));
        has_begun.recv().unwrap();
        assert!(readers.pause(Duration::from_millis(1)).is_none(), "somebody reads");
        end.send(()).unwrap();
        runtime.block_on(read).unwrap().unwrap();

        let pause = readers.pause(Duration::from_secs(60)).expect("nobody reads");
        let (story, told) = mpsc::sync_channel(2);
        let reads = story.clone();
        let read = start(Box::new(move || reads.send("a read").unwrap()));
        story.send("the end of the pause").unwrap();
        drop((story, pause));
        runtime.block_on(read).unwrap().unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), ["the end of the pause", "a read"]);
    }
}
