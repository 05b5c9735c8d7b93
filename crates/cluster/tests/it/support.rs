//! A cluster profile of a test's own on services that are shared: a database, a namespace in Redis and RabbitMQ.

use std::{env, future::Future, path::PathBuf, sync::Arc, thread, time::Duration};

use async_trait::async_trait;
use flashsale_cluster::{Ack, Cluster, Options, Secret};
use flashsale_core::{
    clock::Timestamp,
    conformance::Harness,
    ids::OrderId,
    ports::{Clock, Inventory, OrderIds, OrderQueue, OrderStore},
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
    for exchange in ["purchases", "dead", "events"] {
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

    fn now(&self) -> Timestamp {
        SystemClock.now()
    }
}
