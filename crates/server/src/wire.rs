//! Wiring: the only file that names the adapters. From settings to a running profile.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::bail;
use async_trait::async_trait;
use flashsale_cluster::{Cluster, Secret};
use flashsale_core::{
    Result,
    clock::Timestamp,
    ids::SaleId,
    ports::{Clock, OperatorLog, OrderIds, OrderStore},
    service::SaleService,
    worker::{OrderWorker, Work},
};
use flashsale_embedded::{Embedded, Folder, OpenError};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    ambient::{RandomIds, SystemClock},
    config::{Ack, Common, Profile, Services, Stand},
    vitals::{Measure, Part, Vitals},
};

/// How long the order worker may take on shutdown to confirm what is reserved.
const CONFIRM_TIME: Duration = Duration::from_secs(10);
/// How long a command waits until sales can be decided.
const READY_TIME: Duration = Duration::from_secs(60);

/// A profile that runs: its service, its store, and its worker, where it has one.
pub(crate) struct Running {
    pub(crate) sales: SaleService,
    pub(crate) store: Arc<dyn OrderStore>,
    pub(crate) vitals: Arc<dyn Vitals>,
    pub(crate) operators: Arc<dyn OperatorLog>,
    base: Base,
    worker: Option<JoinHandle<Work>>,
}

/// What it stands on.
enum Base {
    Embedded { embedded: Arc<Embedded>, folder: Folder },
    Cluster(Arc<Cluster>),
}

/// Opens the profile that is asked for, with its worker.
pub(crate) async fn everything(common: &Common, stand: &Stand) -> anyhow::Result<Running> {
    match stand.profile {
        Profile::Embedded => Ok(embedded(&common.data_dir)?),
        Profile::Cluster => {
            let options = options(common, &stand.services)?;
            let cluster = Arc::new(Cluster::both(options, Arc::new(SystemClock), Arc::new(RandomIds)).await?);
            let work = OrderWorker::new(cluster.queue(), cluster.store(), Arc::new(SystemClock));
            Ok(replica(cluster, Some(tokio::spawn(work.run()))))
        }
    }
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
        operators: embedded.operator_log(),
        worker: Some(tokio::spawn(worker.run())),
        base: Base::Embedded { embedded, folder },
    })
}

/// Opens an API replica of the cluster profile.
pub(crate) async fn api(common: &Common, services: &Services) -> anyhow::Result<Running> {
    let options = options(common, services)?;
    let cluster = Cluster::api(options, Arc::new(SystemClock), Arc::new(RandomIds)).await?;
    Ok(replica(Arc::new(cluster), None))
}

fn replica(cluster: Arc<Cluster>, worker: Option<JoinHandle<Work>>) -> Running {
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn OrderIds>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    Running {
        sales: SaleService::new(cluster.inventory(), clock, ids),
        store: cluster.store(),
        vitals: cluster.clone(),
        operators: cluster.operator_log(),
        base: Base::Cluster(cluster),
        worker,
    }
}

/// A worker of the cluster profile that works.
pub(crate) struct Working {
    cluster: Cluster,
    worker: JoinHandle<Work>,
}

/// Starts to work on the order queue of the cluster profile.
pub(crate) async fn worker(common: &Common, services: &Services) -> anyhow::Result<Working> {
    let cluster = Cluster::worker(options(common, services)?).await?;
    let work = OrderWorker::new(cluster.queue(), cluster.store(), Arc::new(SystemClock));
    let worker = tokio::spawn(work.run());
    info!("working on the order queue");
    Ok(Working { cluster, worker })
}

impl Working {
    /// Works until `stop`, and ends what is in hand.
    pub(crate) async fn until(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<Work> {
        tokio::select! {
            () = stop => self.cluster.close_queue(),
            // It ends by itself only when it fails.
            failed = &mut self.worker => return Ok(failed?),
        }
        let work = match timeout(CONFIRM_TIME, &mut self.worker).await {
            Ok(work) => work?,
            Err(_) => {
                self.worker.abort();
                bail!("the batch in hand was not done in time; another worker gets it")
            }
        };
        self.cluster.close().await;
        Ok(work)
    }
}

/// What can be read of the embedded profile's ledger, beside whoever runs on it.
pub(crate) fn embedded_records(data_dir: &Path) -> std::result::Result<Arc<dyn OrderStore>, OpenError> {
    flashsale_embedded::read_only(data_dir)
}

/// What can be read of the cluster profile's records.
pub(crate) async fn cluster_records(
    common: &Common,
    services: &Services,
) -> anyhow::Result<Arc<dyn OrderStore>> {
    Ok(flashsale_cluster::records(&options(common, services)?).await?)
}

/// Brings the records of the cluster profile to the form that this version needs; where they are.
pub(crate) async fn migrate_cluster(common: &Common, services: &Services) -> anyhow::Result<Secret> {
    let url = options(common, services)?.database_url;
    flashsale_cluster::prepare(&url).await?;
    Ok(url)
}

/// Looks at the services of the cluster profile, without changing anything: the promise, and each part.
pub(crate) async fn look_at_cluster(
    common: &Common,
    services: &Services,
) -> anyhow::Result<Vec<flashsale_cluster::Finding>> {
    Ok(flashsale_cluster::look(&options(common, services)?).await)
}

/// Checks the settings of the cluster profile. What is wrong is said without passwords.
fn options(common: &Common, services: &Services) -> anyhow::Result<flashsale_cluster::Options> {
    let address = |given: &Option<Secret>, flag: &str, schemes: &[&str]| match given {
        None => bail!("the cluster profile needs {flag} ({}://…)", schemes[0]),
        Some(url) if schemes.iter().any(|scheme| url.expose().starts_with(&format!("{scheme}://"))) => {
            Ok(url.clone())
        }
        Some(url) => bail!("{flag} is {url}, and must begin with {}://", schemes.join(":// or ")),
    };
    Ok(flashsale_cluster::Options {
        database_url: address(&services.database_url, "--database-url", &["postgres", "postgresql"])?,
        redis_url: address(&services.redis_url, "--redis-url", &["redis", "rediss", "redis+unix", "unix"])?,
        amqp_url: address(&services.amqp_url, "--amqp-url", &["amqp", "amqps"])?,
        namespace: services.namespace.clone(),
        ack: match services.ack {
            Ack::Queued => flashsale_cluster::Ack::Queued,
            Ack::Reserved => flashsale_cluster::Ack::Reserved,
        },
        allow_volatile_redis: services.allow_volatile_redis,
        latch: services.sold_out_latch,
        spool_dir: common.data_dir.join("spool"),
        spool_bytes: u64::from(services.audit_spool_mib) << 20,
        database_connections: services.database_connections,
    })
}

impl Running {
    /// Leaves word in the data folder of the address that is served.
    pub(crate) fn announce(&self, address: &str) {
        if let Base::Embedded { folder, .. } = &self.base
            && let Err(error) = folder.announce(address)
        {
            warn!(%error, "other commands will not find this server by its data folder");
        }
    }

    /// Waits until sales can be decided.
    pub(crate) async fn ready(&self) -> Result<()> {
        let wait = async {
            while self.vitals.ready().await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = timeout(READY_TIME, wait).await;
        self.vitals.ready().await
    }

    /// Confirms what is reserved, writes down all that waits, and closes the store.
    pub(crate) async fn close(self) {
        let Self { sales, store, vitals, operators, base, worker } = self;
        match &base {
            Base::Embedded { embedded, .. } => embedded.close_queue(),
            Base::Cluster(cluster) => cluster.close_queue(),
        }
        if let Some(worker) = worker {
            // Where nothing can be recorded, nothing is confirmed any more, however long the worker tries.
            let patience = if vitals.ready().await.is_ok() { CONFIRM_TIME } else { Duration::ZERO };
            end(worker, patience).await;
        }
        drop((sales, store, vitals, operators));
        match base {
            Base::Embedded { embedded, folder } => {
                if let Err(error) = tokio::task::spawn_blocking(move || embedded.close()).await {
                    warn!(%error, "the ledger was not closed; the next start reads it all the same");
                }
                drop(folder);
            }
            Base::Cluster(cluster) => cluster.close().await,
        }
    }
}

async fn end(mut worker: JoinHandle<Work>, patience: Duration) {
    match timeout(patience, &mut worker).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            warn!(%error, "the order worker ended badly; what it left is confirmed later");
        }
        Err(_) => {
            worker.abort();
            warn!("not all reservations are confirmed; that happens later");
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
            Ok(()) => Part::new(true, format!("SQLite ledger: {}", self.promise())),
            Err(error) => Part::new(false, error.to_string()),
        };
        BTreeMap::from([("database", database)])
    }

    fn measures(&self) -> Vec<Measure> {
        let totals = self.totals();
        let waiting = u64::try_from(totals.waiting).unwrap_or(u64::MAX);
        let measure = |name, help, value, total| Measure { name, help, value, total };
        vec![
            measure("ledger_commits", "Groups committed to the ledger", totals.commits, true),
            measure("ledger_entries", "Decisions and changes recorded", totals.entries, true),
            measure("ledger_waiting", "Decisions and changes that wait to be recorded", waiting, false),
        ]
    }

    fn audit_backlog(&self) -> (u64, u64) {
        (u64::try_from(self.totals().waiting).unwrap_or(u64::MAX), 0)
    }

    async fn exchange(&self, replica: &str, figures: String) -> Vec<(String, String)> {
        // There is no other.
        vec![(replica.to_owned(), figures)]
    }

    async fn waiting_since(&self, sale: &SaleId) -> Option<Timestamp> {
        Self::waiting_since(self, sale).await.ok().flatten()
    }

    fn promise(&self) -> &'static str {
        "a purchase is on the disk before it is acknowledged"
    }
}

#[async_trait]
impl Vitals for Cluster {
    fn profile(&self) -> &'static str {
        "cluster"
    }

    async fn ready(&self) -> Result<()> {
        self.inventory().ready().await
    }

    async fn parts(&self) -> BTreeMap<&'static str, Part> {
        let parts = Self::parts(self).await;
        parts.into_iter().map(|(name, up, detail)| (name, Part::new(up, detail))).collect()
    }

    fn measures(&self) -> Vec<Measure> {
        let totals = self.totals();
        let rows = u64::try_from(totals.audit_rows).unwrap_or(u64::MAX);
        let measure = |name, help, value, total| Measure { name, help, value, total };
        vec![
            measure("redis_decide_calls", "Calls to Redis that were to decide something", totals.calls, true),
            measure("redis_decided_attempts", "Attempts that those calls decided", totals.decided, true),
            measure("latched_rejections", "Attempts rejected from memory", totals.latched, true),
            measure("queue_published", "Messages published to the order queue", totals.published, true),
            measure("queue_published_again", "Messages published again from outboxes", totals.swept, true),
            measure("audit_waiting_rows", "Audit rows that wait in memory", rows, false),
            measure("audit_spooled_bytes", "Audit rows that wait in files", totals.audit_bytes, false),
        ]
    }

    fn audit_backlog(&self) -> (u64, u64) {
        let totals = self.totals();
        (u64::try_from(totals.audit_rows).unwrap_or(u64::MAX), totals.audit_bytes)
    }

    async fn exchange(&self, replica: &str, figures: String) -> Vec<(String, String)> {
        Self::exchange(self, replica, figures).await.unwrap_or_default()
    }

    async fn waiting_since(&self, sale: &SaleId) -> Option<Timestamp> {
        Self::waiting_since(self, sale).await.ok().flatten()
    }

    fn promise(&self) -> &'static str {
        Self::promise(self)
    }

    fn is_provisional(&self) -> bool {
        Self::is_provisional(self)
    }
}
