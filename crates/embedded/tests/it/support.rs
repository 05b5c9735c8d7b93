//! An embedded profile on a temporary folder, with a clock and ids of the tests' own.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use flashsale_core::{
    clock::Timestamp,
    conformance::Harness,
    ids::OrderId,
    ports::{Clock, Inventory, OrderIds, OrderQueue, OrderStore},
};
use flashsale_embedded::{Embedded, Folder};
use tempfile::TempDir;

/// A clock that stands still until it is moved.
pub(crate) struct StandingClock(pub(crate) AtomicI64);

impl Default for StandingClock {
    fn default() -> Self {
        Self(AtomicI64::new(1_771_815_600_000))
    }
}

#[async_trait]
impl Clock for StandingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Ids that count.
#[derive(Default)]
pub(crate) struct CountingIds(AtomicU64);

impl OrderIds for CountingIds {
    fn mint(&self, _: Timestamp) -> OrderId {
        OrderId(uuid::Uuid::from_u128(u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1))
    }
}

/// The profile on a folder that goes away with it.
pub(crate) struct Bench {
    pub(crate) embedded: Embedded,
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<StandingClock>,
    ids: Arc<CountingIds>,
    _folder: Folder,
}

impl Bench {
    pub(crate) fn open(dir: TempDir, clock: Arc<StandingClock>, ids: Arc<CountingIds>) -> Self {
        let folder = Folder::open(dir.path()).expect("the folder is free");
        let embedded = Embedded::open(&folder, clock.clone(), ids.clone()).expect("the ledger opens");
        Self { embedded, dir, clock, ids, _folder: folder }
    }
}

/// What a crash would leave of a folder: the files as they are, without anybody closing them.
pub(crate) fn copy_as_is(from: &Path) -> TempDir {
    let to = tempfile::tempdir().expect("a temporary folder");
    for file in fs::read_dir(from).expect("a folder").map(|file| file.expect("a file")) {
        fs::copy(file.path(), to.path().join(file.file_name())).expect("a copy");
    }
    to
}

#[async_trait]
impl Harness for Bench {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self::open(dir, Arc::default(), Arc::default())
    }

    async fn crash(self) -> Self {
        let left = copy_as_is(self.dir.path());
        Self::open(left, self.clock.clone(), self.ids.clone())
    }

    fn inventory(&self) -> Arc<dyn Inventory> {
        self.embedded.inventory()
    }

    fn queue(&self) -> Arc<dyn OrderQueue> {
        self.embedded.queue()
    }

    fn store(&self) -> Arc<dyn OrderStore> {
        self.embedded.store()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
