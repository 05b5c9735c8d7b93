//! A cluster profile of a test's own on services that are shared: a database, a namespace in Redis and RabbitMQ.

use std::{
    env,
    future::Future,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use flashsale_cluster::{Ack, Cluster, Options, Secret};
use flashsale_core::{
    clock::Timestamp,
    conformance::Harness,
    ids::{OrderId, SaleId, UserId},
    inventory::Decision,
    order::Reservation,
    ports::{Clock, Inventory, OperatorLog, OrderIds, OrderQueue, OrderStore},
    sale::{NewSale, Window},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use uuid::Uuid;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The addresses of the services.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    pub(crate) database_url: String,
    pub(crate) redis_url: String,
    pub(crate) amqp_url: String,
}

impl Services {
    /// Those that `scripts/test` found or started.
    pub(crate) fn shared() -> Self {
        let address = |name: &str, usual: &str| env::var(name).unwrap_or_else(|_| usual.to_owned());
        Self {
            database_url: address(
                "FLASHSALE_TEST_DATABASE_URL",
                "postgres://postgres@127.0.0.1:5432/postgres",
            ),
            redis_url: address("FLASHSALE_TEST_REDIS_URL", "redis://127.0.0.1:6379"),
            amqp_url: address("FLASHSALE_TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f"),
        }
    }
}

/// A place of a test's own on the services. It cleans up after itself.
pub(crate) struct Site {
    services: Services,
    pub(crate) name: String,
    pub(crate) dir: TempDir,
}

impl Site {
    pub(crate) async fn new(services: Services) -> Self {
        let name = format!("fs_test_{}", Uuid::now_v7().simple());
        let mut admin = PgConnection::connect(&services.database_url).await.expect("PostgreSQL answers");
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(create).execute(&mut admin).await.expect("a database is made");
        let dir = tempfile::tempdir().expect("a folder");
        Self { services, name, dir }
    }

    pub(crate) fn database_url(&self) -> String {
        let (server, _) = self.services.database_url.rsplit_once('/').expect("an address with a database");
        format!("{server}/{}", self.name)
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            database_url: Secret::from(self.database_url()),
            redis_url: Secret::from(self.services.redis_url.clone()),
            amqp_url: Secret::from(self.services.amqp_url.clone()),
            namespace: format!("{}:", self.name),
            ack: Ack::Queued,
            allow_volatile_redis: true,
            latch: true,
            spool_dir: PathBuf::from(self.dir.path()),
            spool_bytes: 64 << 20,
            database_connections: 8,
        }
    }

    async fn clean(services: Services, name: String) {
        if let Ok(mut admin) = PgConnection::connect(&services.database_url).await {
            let drop = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
            let _ = sqlx::query(drop).execute(&mut admin).await;
            // A user of its own, where a test made one.
            let drop = AssertSqlSafe(format!("DROP ROLE IF EXISTS {name}"));
            let _ = sqlx::query(drop).execute(&mut admin).await;
        }
        let _ = clean_redis(&services.redis_url, &name).await;
        let _ = clean_broker(&services.amqp_url, &name).await;
    }
}

async fn clean_redis(url: &str, name: &str) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{name}:*")).query_async(&mut connection).await?;
    if !keys.is_empty() {
        redis::cmd("DEL").arg(keys).exec_async(&mut connection).await?;
    }
    Ok(())
}

async fn clean_broker(url: &str, name: &str) -> lapin::Result<()> {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for queue in ["purchase_queue", "purchase_dlq"] {
        channel.queue_delete(format!("{name}:{queue}").into(), Default::default()).await?;
    }
    // No test recovers more often.
    let purchases = (1..=16).map(|generation| format!("purchases.{generation}"));
    for exchange in purchases.chain(["dead".to_owned(), "events".to_owned()]) {
        channel.exchange_delete(format!("{name}:flashsale.{exchange}").into(), Default::default()).await?;
    }
    connection.close(200, "done".into()).await
}

impl Drop for Site {
    fn drop(&mut self) {
        let (services, name) = (self.services.clone(), self.name.clone());
        let _ = thread::spawn(move || run(Site::clean(services, name))).join();
    }
}

/// A sale id.
pub(crate) fn id(text: &str) -> SaleId {
    text.parse().expect("a valid sale id")
}

/// A user.
pub(crate) fn user(number: u32) -> UserId {
    format!("user-{number}").parse().expect("a valid user id")
}

/// Waits for what must come.
pub(crate) async fn wait<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs to its end on a runtime of its own.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// Ids as the program makes them.
pub(crate) struct RandomIds;

impl OrderIds for RandomIds {
    fn mint(&self, _: Timestamp) -> OrderId {
        OrderId(Uuid::now_v7())
    }
}

/// The real clock: the window is judged by Redis', which nobody can inject.
pub(crate) struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        Timestamp::from_millis(i64::try_from(now.as_millis()).expect("before the year 292,000,000"))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The profile, both roles in one process, with nobody working on its queue.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) site: Arc<Site>,
}

impl Bench {
    pub(crate) async fn on(site: Arc<Site>) -> Self {
        let options = site.options();
        let cluster = Cluster::both(options, Arc::new(SystemClock), Arc::new(RandomIds))
            .await
            .expect("the profile opens");
        cluster.ready(PATIENCE).await.expect("sales can be decided");
        Self { cluster, site }
    }
}

impl Bench {
    /// Stops without warning, and starts with other settings.
    pub(crate) async fn restart_with(self, change: impl FnOnce(&mut Options)) -> Self {
        let Self { cluster, site } = self;
        drop(cluster);
        let mut options = site.options();
        change(&mut options);
        let cluster = Cluster::both(options, Arc::new(SystemClock), Arc::new(RandomIds)).await;
        let cluster = cluster.expect("the profile opens");
        cluster.ready(PATIENCE).await.expect("sales can be decided");
        Self { cluster, site }
    }

    /// Makes a sale that is open.
    pub(crate) async fn open(&self, name: &str, stock: u32) -> SaleId {
        let hour = Duration::from_secs(3_600);
        let now = SystemClock.now();
        let window = Window::new(now.before(hour), now.after(hour)).expect("a valid window");
        let sale = NewSale::new(id(name), name.to_owned(), stock, window).expect("a valid sale");
        self.inventory().create(sale).await.expect("the sale is made");
        id(name)
    }

    pub(crate) async fn attempt(&self, sale: &SaleId, number: u32) -> Decision {
        self.inventory().attempt(sale, user(number)).await.expect("a decision")
    }

    pub(crate) async fn reserve(&self, sale: &SaleId, number: u32) -> Reservation {
        match self.attempt(sale, number).await {
            Decision::Reserved(reservation) => reservation,
            other => panic!("user {number} should have got a unit, but: {other:?}"),
        }
    }

    /// A connection to Redis.
    pub(crate) async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.site.options().redis_url.expose()).expect("an address");
        client.get_multiplexed_async_connection().await.expect("Redis answers")
    }

    /// Redis forgets all of the installation.
    pub(crate) async fn forget(&self) {
        clean_redis(self.site.options().redis_url.expose(), &self.site.name).await.expect("Redis answers");
    }

    /// A channel to the broker.
    pub(crate) async fn channel(&self) -> lapin::Channel {
        let options = self.site.options();
        let properties = lapin::ConnectionProperties::default();
        let connection = lapin::Connection::connect(options.amqp_url.expose(), properties).await;
        connection.expect("RabbitMQ answers").create_channel().await.expect("a channel")
    }

    /// A name on the broker.
    pub(crate) fn name(&self, what: &str) -> lapin::types::ShortString {
        format!("{}:{what}", self.site.name).into()
    }
}

#[async_trait]
impl Harness for Bench {
    async fn start() -> Self {
        Self::on(Arc::new(Site::new(Services::shared()).await)).await
    }

    async fn crash(self) -> Self {
        let Self { cluster, site } = self;
        // Without a word: tasks end where they are, connections break.
        drop(cluster);
        Self::on(site).await
    }

    fn inventory(&self) -> Arc<dyn Inventory> {
        self.cluster.inventory()
    }

    fn queue(&self) -> Arc<dyn OrderQueue> {
        self.cluster.queue()
    }

    fn store(&self) -> Arc<dyn OrderStore> {
        self.cluster.store()
    }

    fn operator_log(&self) -> Arc<dyn OperatorLog> {
        self.cluster.operator_log()
    }

    fn now(&self) -> Timestamp {
        SystemClock.now()
    }
}
