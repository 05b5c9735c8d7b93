//! The profile as a whole: what is opened, which tasks run, what is said of its parts, and how it stops.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use flashsale_core::{
    Result,
    clock::Timestamp,
    ids::SaleId,
    ports::{Clock, Inventory, OperatorLog, OrderIds, OrderQueue, OrderStore},
};
use futures_util::StreamExt;
use redis::{ErrorKind, ServerErrorKind};
use sqlx::PgPool;
use thiserror::Error;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    audit::Audit,
    broker::Broker,
    database::{connect, installation, migrate},
    durability::Durability,
    inventory::{Cells, ClusterInventory, Counts, Replica, UnderWay},
    operators::Operators,
    options::{Ack, Options, Secret},
    outbox::Outbox,
    queue::Queue,
    recovery::{Alarm, Recovery},
    sales::Sales,
    stock::{CHANGES, Stock, client},
    store::{Store, database},
};

/// How often a Redis that reads its data is asked whether it has.
const LOADING_INTERVAL: Duration = Duration::from_millis(250);
/// How long each part may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a service may take to answer whoever asks how it is: less than a probe waits.
const ASK_PATIENCE: Duration = Duration::from_secs(3);

/// A standby, or a database that somebody has set so.
const READ_ONLY: &str = "PostgreSQL is read-only: purchases are safe in the outbox and the queue, and are stored when it takes them again";

/// Why the profile cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// PostgreSQL cannot be reached, or refuses.
    #[error("cannot use PostgreSQL at {url}: {reason}")]
    Database {
        /// Where, without password.
        url: Secret,
        /// What it says.
        reason: String,
    },
    /// Redis cannot be reached, or refuses.
    #[error("cannot use Redis at {url}: {reason}")]
    Redis {
        /// Where, without password.
        url: Secret,
        /// What it says.
        reason: String,
    },
    /// The address of RabbitMQ is none.
    #[error("cannot use RabbitMQ at {url}: {reason}")]
    Broker {
        /// Where, without password.
        url: Secret,
        /// What is wrong with it.
        reason: String,
    },
    /// Redis may throw the stock away when its memory is full.
    #[error(
        "the Redis at {url} throws keys away when its memory is full (maxmemory-policy {policy}), and with them the stock: set maxmemory-policy noeviction"
    )]
    Evicting {
        /// Where, without password.
        url: Secret,
        /// Its policy.
        policy: String,
    },
    /// Redis keeps nothing on disk.
    #[error(
        "the Redis at {url} keeps nothing on disk: turn its append-only file on (appendonly yes), or say --allow-volatile-redis if its loss may interrupt a sale"
    )]
    Volatile {
        /// Where, without password.
        url: Secret,
    },
    /// Another installation has these keys.
    #[error(
        "the keys {index} and beside it in the Redis at {url} are those of another database: set a --namespace of your own, or remove them if that database is gone"
    )]
    Foreign {
        /// Where, without password.
        url: Secret,
        /// The list of its sales.
        index: String,
    },
    /// The folder for audit rows cannot be used.
    #[error("cannot keep audit rows in {path}: {source}")]
    Spool {
        /// The folder.
        path: String,
        /// What the system says.
        source: io::Error,
    },
}

/// How a part is: its name, whether it can be used, and what there is to say.
pub type PartState = (&'static str, bool, String);

/// What has been done since the start, and what waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Calls to Redis that decided something.
    pub calls: u64,
    /// Attempts in them.
    pub decided: u64,
    /// Attempts rejected from memory.
    pub latched: u64,
    /// Messages published at once, and again.
    pub published: u64,
    /// Messages published again from the outbox.
    pub swept: u64,
    /// Audit rows that wait in memory.
    pub audit_rows: usize,
    /// Bytes of audit rows that wait in files.
    pub audit_bytes: u64,
}

/// The cluster profile.
pub struct Cluster {
    options: Options,
    pool: PgPool,
    replica: Option<Arc<Replica>>,
    outbox: Option<Arc<Outbox>>,
    audit: Option<Arc<Audit>>,
    publisher: Arc<Broker>,
    consumer: Option<Arc<Broker>>,
    queue: Option<Arc<Queue>>,
    stock: Stock,
    store: Arc<Store>,
    durability: Durability,
    tasks: Vec<JoinHandle<()>>,
}

impl Cluster {
    /// Opens an API replica.
    ///
    /// # Errors
    /// A service that cannot be used, or must not be.
    pub async fn api(
        options: Options,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn OrderIds>,
    ) -> Result<Self, OpenError> {
        Self::open(options, Some((clock, ids)), false).await
    }

    /// Opens a worker.
    ///
    /// # Errors
    /// As [`Cluster::api`].
    pub async fn worker(options: Options) -> Result<Self, OpenError> {
        Self::open(options, None, true).await
    }

    /// Opens both in one process.
    ///
    /// # Errors
    /// As [`Cluster::api`].
    pub async fn both(
        options: Options,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn OrderIds>,
    ) -> Result<Self, OpenError> {
        Self::open(options, Some((clock, ids)), true).await
    }

    async fn open(
        options: Options,
        decides: Option<(Arc<dyn Clock>, Arc<dyn OrderIds>)>,
        works: bool,
    ) -> Result<Self, OpenError> {
        let pool = connect(&options.database_url, options.database_connections).await?;
        migrate(&pool, &options.database_url).await?;
        let redis = |reason: String| OpenError::Redis { url: options.redis_url.clone(), reason };
        let stock = connect_redis(&options, &pool).await?;
        if stock.is_foreign().await.map_err(|trouble| redis(format!("{trouble:?}")))? {
            return Err(OpenError::Foreign { url: options.redis_url, index: stock.keys.index() });
        }
        let durability = Durability::read(&stock).await.map_err(|trouble| redis(format!("{trouble:?}")))?;
        if durability.evicts() {
            return Err(OpenError::Evicting { url: options.redis_url, policy: durability.eviction });
        }
        if durability.is_volatile() && !options.allow_volatile_redis {
            return Err(OpenError::Volatile { url: options.redis_url });
        }
        // A Redis that is refused stays as it is.
        stock.load_library().await.map_err(|error| redis(error.to_string()))?;
        let broker = |role| {
            let started = Broker::start(&options.amqp_url, &options.namespace, role);
            started
                .map(Arc::new)
                .map_err(|reason| OpenError::Broker { url: options.amqp_url.clone(), reason })
        };
        // Apart, since a broker that is short of memory stops to read from whoever publishes, acknowledgements included.
        let consumer = if works { Some(broker("worker")?) } else { None };
        let publisher = match (&decides, &consumer) {
            (None, Some(consumer)) => consumer.clone(),
            _ => broker("publisher")?,
        };
        let mut tasks = Vec::new();
        let (mut replica, mut outbox, mut audit) = (None, None, None);
        if let Some((clock, ids)) = decides {
            // Of this installation alone: its rows are nobody else's, and the folder may be another's, too.
            let folder = options.spool_dir.join(stock.installation());
            let spool = |source| OpenError::Spool { path: folder.display().to_string(), source };
            let rows = Audit::open(pool.clone(), &folder, options.spool_bytes).map_err(spool)?;
            let rows = audit.insert(Arc::new(rows));
            let alarm = Arc::new(Alarm::default());
            let relay = Outbox::new(stock.clone(), publisher.clone(), alarm.clone(), options.ack);
            let relay = outbox.insert(Arc::new(relay));
            let inventory = Replica {
                stock: stock.clone(),
                audit: rows.clone(),
                outbox: relay.clone(),
                alarm: alarm.clone(),
                clock,
                ids,
                sales: Sales::new(pool.clone(), stock.clone(), alarm.clone()),
                latches: options.latch,
                counts: Counts::default(),
                cells: Cells::default(),
                under_way: UnderWay::default(),
            };
            let inventory = replica.insert(Arc::new(inventory));
            let store = Store::new(pool.clone(), None, Some(publisher.clone()), None);
            let (pool, stock, broker) = (pool.clone(), stock.clone(), publisher.clone());
            let recovery = Recovery { pool, stock, broker, store, alarm };
            tasks.push(tokio::spawn(Arc::new(recovery).run()));
            tasks.push(tokio::spawn(relay.clone().run()));
            tasks.push(tokio::spawn(rows.clone().run()));
            tasks.push(tokio::spawn(inventory.clone().watch_latches()));
            tasks.push(tokio::spawn(listen(inventory.clone())));
        }
        let store = Store::new(pool.clone(), Some(stock.clone()), consumer.clone(), audit.clone());
        let store = Arc::new(store);
        let queue = consumer
            .as_ref()
            .map(|broker| Arc::new(Queue::new(broker.clone(), stock.clone(), store.clone(), pool.clone())));
        info!("{}", durability.promise(options.ack));
        Ok(Self {
            options,
            pool,
            replica,
            outbox,
            audit,
            publisher,
            consumer,
            queue,
            stock,
            store,
            durability,
            tasks,
        })
    }

    /// Waits until sales can be decided, for at most this long.
    ///
    /// # Errors
    /// Why they cannot.
    pub async fn ready(&self, patience: Duration) -> Result<()> {
        let inventory = self.inventory();
        let wait = async {
            loop {
                match inventory.ready().await {
                    Ok(()) => return,
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        };
        match timeout(patience, wait).await {
            Ok(()) => Ok(()),
            Err(_) => inventory.ready().await,
        }
    }

    /// The inventory of an API replica.
    ///
    /// # Panics
    /// When this is a worker.
    #[must_use]
    pub fn inventory(&self) -> Arc<dyn Inventory> {
        Arc::new(ClusterInventory(self.replica.clone().expect("only API replicas are asked for decisions")))
    }

    /// The order queue of a worker.
    ///
    /// # Panics
    /// When this is an API replica alone.
    #[must_use]
    pub fn queue(&self) -> Arc<dyn OrderQueue> {
        self.queue.clone().expect("only workers take from the queue")
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> Arc<dyn OrderStore> {
        self.store.clone()
    }

    /// The operator log.
    #[must_use]
    pub fn operator_log(&self) -> Arc<dyn OperatorLog> {
        Arc::new(Operators::new(self.pool.clone()))
    }

    /// The promise in force, in a sentence.
    #[must_use]
    pub fn promise(&self) -> &'static str {
        if self.is_provisional() {
            "RabbitMQ is away: SUCCESS is said once Redis has reserved, and the reservations reach the queue when it is back"
        } else {
            self.durability.promise(self.options.ack)
        }
    }

    /// Whether SUCCESS rests on Redis alone right now, although it should rest on the broker.
    #[must_use]
    pub fn is_provisional(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.is_provisional())
    }

    /// How the services are.
    pub async fn parts(&self) -> Vec<PartState> {
        let database = async {
            let writes = sqlx::query_scalar("SELECT current_setting('transaction_read_only') = 'off'");
            match timeout(ASK_PATIENCE, writes.fetch_one(&self.pool)).await {
                Ok(Ok(true)) => ("database", true, "PostgreSQL keeps orders and audit trail".to_owned()),
                Ok(Ok(false)) => ("database", false, READ_ONLY.to_owned()),
                Ok(Err(error)) => ("database", false, flashsale_core::Error::to_string(&database(error))),
                Err(_) => ("database", false, "PostgreSQL does not answer".to_owned()),
            }
        };
        let redis = async {
            match self.stock.ping().await {
                Ok(()) => ("redis", true, format!("Redis decides; {}", self.durability.kept())),
                Err(trouble) => ("redis", false, flashsale_core::Error::from(trouble).to_string()),
            }
        };
        let (database, redis) = tokio::join!(database, redis);
        // A broker that takes connections and no messages is as good as away.
        let rabbitmq = if self.publisher.is_up() && !self.is_provisional() {
            ("rabbitmq", true, "RabbitMQ carries reservations to the workers".to_owned())
        } else {
            ("rabbitmq", false, self.promise().to_owned())
        };
        vec![database, redis, rabbitmq]
    }

    /// What has been done since the start, and what waits.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        if let Some(replica) = &self.replica {
            totals.calls = replica.counts.calls.load(Ordering::Relaxed);
            totals.decided = replica.counts.decided.load(Ordering::Relaxed);
            totals.latched = replica.counts.latched.load(Ordering::Relaxed);
        }
        if let Some(outbox) = &self.outbox {
            totals.published = outbox.published.load(Ordering::Relaxed);
            totals.swept = outbox.swept.load(Ordering::Relaxed);
        }
        if let Some(audit) = &self.audit {
            (totals.audit_rows, totals.audit_bytes) = audit.backlog();
        }
        totals
    }

    /// Shows a replica's figures to all replicas, and returns those of all that have shown theirs of late.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn exchange(&self, replica: &str, figures: String) -> Result<Vec<(String, String)>> {
        Ok(self.stock.exchange(replica, &figures).await?)
    }

    /// Since when the oldest reservation of a sale waits to be stored, where one does.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn waiting_since(&self, sale: &SaleId) -> Result<Option<Timestamp>> {
        let entries = self.stock.outbox(sale, None, None, 1).await?;
        Ok(entries.rows.first().map(|entry| entry.at))
    }

    /// Lets a worker end after the batch that it has in hand.
    pub fn close_queue(&self) {
        if let Some(queue) = &self.queue {
            queue.close();
        }
    }

    /// Writes down what waits, and says goodbye.
    pub async fn close(&self) {
        self.close_queue();
        if let Some(replica) = &self.replica {
            let _ = timeout(PATIENCE, replica.under_way.end()).await;
        }
        if let Some(audit) = &self.audit {
            audit.flush().await;
        }
        for task in &self.tasks {
            task.abort();
        }
        if let Some(consumer) = &self.consumer {
            consumer.close().await;
        }
        self.publisher.close().await;
        let _ = timeout(PATIENCE, self.pool.close()).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The records, with Redis beside them where it answers.
///
/// # Errors
/// A database that cannot be used.
pub async fn records(options: &Options) -> Result<Arc<dyn OrderStore>, OpenError> {
    let pool = connect(&options.database_url, 4).await?;
    migrate(&pool, &options.database_url).await?;
    let stock = match connect_redis(options, &pool).await {
        Ok(stock) => Some(stock),
        Err(error) => {
            warn!(%error, "only the records are looked at");
            None
        }
    };
    Ok(Arc::new(Store::new(pool, stock, None, None)))
}

/// Connects, and waits for a Redis that has started itself just now: it would refuse everything that is asked.
async fn connect_redis(options: &Options, pool: &PgPool) -> Result<Stock, OpenError> {
    let installation = installation(pool).await.map_err(|error| OpenError::Database {
        url: options.database_url.clone(),
        reason: error.to_string(),
    })?;
    let mut told = false;
    loop {
        match Stock::connect_loaded(&options.redis_url, &options.namespace, installation).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading) => {
                if !std::mem::replace(&mut told, true) {
                    info!("Redis is reading its data, as it does when it starts; waiting until it has");
                }
                sleep(LOADING_INTERVAL).await;
            }
            connected => {
                return connected.map_err(|error| OpenError::Redis {
                    url: options.redis_url.clone(),
                    reason: error.to_string(),
                });
            }
        }
    }
}

/// Hears of changes that other replicas make. A message that is missed is made good by the latches' comparison.
async fn listen(replica: Arc<Replica>) {
    let mut told = false;
    loop {
        if let Err(error) = hear(&replica, &mut told).await
            && !std::mem::replace(&mut told, true)
        {
            warn!(%error, "changes by other replicas are seen a little later until Redis lets us hear of them");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn hear(replica: &Replica, told: &mut bool) -> redis::RedisResult<()> {
    let mut changes = client(replica.stock.url())?.get_async_pubsub().await?;
    changes.subscribe(CHANGES).await?;
    *told = false;
    let mut messages = changes.on_message();
    while let Some(message) = messages.next().await {
        if let Ok(key) = message.get_payload::<String>()
            && let Some(sale) = replica.stock.keys.sale_of(&key)
        {
            replica.changed(&sale);
        }
    }
    Ok(())
}

impl Cluster {
    /// When SUCCESS is said.
    #[must_use]
    pub fn ack(&self) -> Ack {
        self.options.ack
    }
}
