//! An embedded profile on a temporary folder, with a clock and ids of the tests' own.

use std::{
    fmt::Debug,
    fs,
    future::poll_fn,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use flashsale_core::{
    clock::Timestamp,
    conformance::Harness,
    ids::{OrderId, SaleId, UserId},
    inventory::Decision,
    order::Reservation,
    ports::{Clock, Inventory, OperatorLog, OrderIds, OrderQueue, OrderStore},
    sale::{NewSale, Window},
};
use flashsale_embedded::{Embedded, FILE_NAME, Folder};
use rusqlite::Connection;
use tempfile::TempDir;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

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

    /// Another one on a copy of the folder, with the same clock and ids.
    pub(crate) fn on_copy(&self, dir: TempDir) -> Self {
        Self::open(dir, self.clock.clone(), self.ids.clone())
    }

    /// Stops as it should be stopped, and gives the folder back.
    pub(crate) fn stop(self) -> (TempDir, Arc<StandingClock>, Arc<CountingIds>) {
        (self.dir, self.clock, self.ids)
    }

    /// Stops as it should be stopped, and starts again.
    pub(crate) fn restart(self) -> Self {
        let (dir, clock, ids) = self.stop();
        Self::open(dir, clock, ids)
    }

    /// A sale that is open.
    pub(crate) fn new_sale(&self, name: &str, stock: u32) -> NewSale {
        let hour = Duration::from_secs(3_600);
        let window = Window::new(self.clock.now().before(hour), self.clock.now().after(hour));
        NewSale::new(id(name), name.to_owned(), stock, window.expect("a valid window")).expect("a valid sale")
    }

    /// A sale that opens in an hour.
    pub(crate) fn upcoming_sale(&self, name: &str) -> NewSale {
        let hour = Duration::from_secs(3_600);
        let window = Window::new(self.clock.now().after(hour), self.clock.now().after(2 * hour));
        NewSale::new(id(name), name.to_owned(), 9, window.expect("a valid window")).expect("a valid sale")
    }

    /// Makes a sale that is open.
    pub(crate) async fn sale(&self, name: &str, stock: u32) -> SaleId {
        self.inventory().create(self.new_sale(name, stock)).await.expect("the sale is made");
        id(name)
    }

    pub(crate) async fn reserve(&self, sale: &SaleId, number: u32) -> Reservation {
        reserved(self.inventory().attempt(sale, user(number)).await.expect("a decision"))
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join(FILE_NAME)
    }

    /// A connection of somebody else to the ledger.
    pub(crate) fn outsider(&self) -> Connection {
        outsider(&self.file())
    }

    /// Holds the ledger's write lock: to the ledger, a disk that takes its time.
    pub(crate) fn hold(&self) -> Hold {
        let connection = self.outsider();
        connection.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        Hold(connection)
    }

    /// Waits until the ledger's thread has taken all that waits. With the lock held, it then stands there.
    pub(crate) fn until_taken(&self) {
        until("the ledger takes what waits", || self.embedded.totals().waiting == 0);
    }

    /// Asks `creating`, with the lock held, until its sale is on its way to the ledger.
    pub(crate) async fn until_known<T: Debug>(
        &self,
        sale: &SaleId,
        creating: &mut (impl Future<Output = T> + Unpin),
    ) {
        let deadline = Instant::now() + PATIENCE;
        while self.inventory().status(sale).await.is_err() {
            let outcome = at_once(creating).await;
            assert!(outcome.is_none(), "{outcome:?} before the commit");
            assert!(Instant::now() < deadline, "waited in vain until the sale is known");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The ledger's write lock. The ledger waits for it for ten seconds, far longer than any test holds it.
pub(crate) struct Hold(Connection);

impl Hold {
    /// Does something in the transaction that holds the lock.
    pub(crate) fn execute(&self, sql: &str) {
        self.0.execute_batch(sql).expect(sql);
    }

    /// Lets the ledger go on.
    pub(crate) fn release(self) {
        self.execute("COMMIT");
    }
}

/// A connection of somebody else to the ledger at `path`.
pub(crate) fn outsider(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("the ledger");
    connection.busy_timeout(Duration::from_secs(10)).expect("a time-out");
    // It must not move the log into the file behind a test's back.
    connection.pragma_update(None, "wal_autocheckpoint", 0).expect("a setting");
    connection
}

/// The one number that `sql` asks for.
pub(crate) fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).expect(sql)
}

pub(crate) fn id(text: &str) -> SaleId {
    text.parse().expect("a valid sale id")
}

pub(crate) fn user(number: u32) -> UserId {
    format!("user-{number}").parse().expect("a valid user id")
}

pub(crate) fn reserved(decision: Decision) -> Reservation {
    match decision {
        Decision::Reserved(reservation) => reservation,
        other => panic!("it should have been a reservation, but: {other:?}"),
    }
}

/// The outcome of `future`, if it has one already.
pub(crate) async fn at_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    // A fresh share of the runtime's patience: without it, even what is ready may look as if it were not.
    tokio::task::yield_now().await;
    poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The outcome of `future`, which must come.
pub(crate) async fn within_patience<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("an end to the wait")
}

/// Whether `future` has no outcome, however often it is asked.
pub(crate) async fn is_pending<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    for _ in 0..20 {
        if at_once(future).await.is_some() {
            return false;
        }
        thread::yield_now();
    }
    true
}

/// Waits for another thread to bring something about.
pub(crate) fn until(what: &str, happened: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What a crash would leave of a folder: the files as they are, without anybody closing them.
///
/// The file comes first and its log (`-wal`) later, which the names' order gives. While the log is below the
/// 32 MiB at which it is copied into the file, the file stands still, and the log only grows: its copy then
/// holds whatever was in it when the copying began. The other way round, a log copied into the file in
/// between would be missing from both.
pub(crate) fn copy_as_is(from: &Path) -> TempDir {
    let to = tempfile::tempdir().expect("a temporary folder");
    let mut names: Vec<_> =
        fs::read_dir(from).expect("a folder").map(|file| file.expect("a file").file_name()).collect();
    names.sort();
    for name in names {
        fs::copy(from.join(&name), to.path().join(&name)).expect("a copy");
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

    fn operator_log(&self) -> Arc<dyn OperatorLog> {
        self.embedded.operator_log()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}
