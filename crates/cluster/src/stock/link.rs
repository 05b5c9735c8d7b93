//! The line to Redis. It comes back by itself, whatever it failed for, and says so when it is gone and when it is back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use redis::{
    Client, Cmd, FromRedisValue, IntoConnectionInfo, RedisError, RedisResult, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::options::Secret;

/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what was sent may stay unheard before the connection counts as dead; and how long one may be silent before
/// it is asked whether it is.
const LINE_PATIENCE: Duration = Duration::from_secs(5);
/// How often a connection that Redis refused is made anew.
const RENEWAL_PAUSE: Duration = Duration::from_millis(500);

/// The line to the Redis that decides. All clones are the same one.
#[derive(Clone)]
pub(super) struct Link(Arc<Line>);

struct Line {
    way: Way,
    /// Whether Redis did not answer last time.
    is_away: AtomicBool,
    /// Whether somebody looks already whether a connection is of use.
    in_doubt: AtomicBool,
}

enum Way {
    Single(Box<Single>),
    Cluster(ClusterConnection),
}

/// One server.
struct Single {
    client: Client,
    manager: RwLock<ConnectionManager>,
}

/// A client of the server at `url` that notices when the server's host is gone.
pub(crate) fn client(url: &Secret) -> RedisResult<Client> {
    Client::open(url.expose().into_connection_info()?.set_tcp_settings(tcp()))
}

/// A server that lost its power does not say so.
fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(LINE_PATIENCE).with_interval(LINE_PATIENCE);
    TcpSettings::default().set_nodelay(true).set_user_timeout(LINE_PATIENCE).set_keepalive(keepalive)
}

async fn manage(client: &Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(500))
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    client.get_connection_manager_with_config(config).await
}

impl Link {
    /// Connects to the one server, or to the cluster that it is a node of.
    pub(super) async fn connect(url: &Secret) -> RedisResult<Self> {
        let client = client(url)?;
        let manager = manage(&client).await?;
        let info: String = redis::cmd("INFO").arg("cluster").query_async(&mut manager.clone()).await?;
        let way = if info.contains("cluster_enabled:1") {
            let client = ClusterClientBuilder::new([url.expose()])
                .connection_timeout(PATIENCE)
                .response_timeout(PATIENCE)
                .tcp_settings(tcp())
                .retries(0)
                .build()?;
            Way::Cluster(client.get_async_connection().await?)
        } else {
            Way::Single(Box::new(Single { client, manager: RwLock::new(manager) }))
        };
        Ok(Self(Arc::new(Line { way, is_away: AtomicBool::default(), in_doubt: AtomicBool::default() })))
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.0.way, Way::Cluster(_))
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let told = match &self.0.way {
            Way::Single(single) => command.query_async(&mut single.manager()).await,
            Way::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        };
        self.heed(told.as_ref().err());
        told
    }

    /// Asks every server that decides.
    pub(super) async fn ask_all(&self, command: Cmd) -> RedisResult<Value> {
        let Way::Cluster(connection) = &self.0.way else { return self.ask(&command).await };
        let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let told = connection.clone().route_command(command, everywhere).await;
        self.heed(told.as_ref().err());
        told
    }

    /// Draws its conclusions from how it went.
    fn heed(&self, error: Option<&RedisError>) {
        match error {
            None => {
                if self.0.is_away.load(Ordering::Relaxed) && self.0.is_away.swap(false, Ordering::Relaxed) {
                    info!("Redis answers again");
                }
            }
            Some(error) if error.is_io_error() => self.is_away(error),
            Some(_) => self.doubt(),
        }
    }

    fn is_away(&self, error: &RedisError) {
        if !self.0.is_away.swap(true, Ordering::Relaxed) {
            warn!(%error, "Redis does not answer; nothing is decided until it does");
        }
    }

    /// Redis refused what it was asked, or a connection: an account that is not there yet after a restart, or too many
    /// connections. The manager makes a connection anew that broke, and keeps one that was refused for good.
    fn doubt(&self) {
        if let Way::Single(_) = self.0.way
            && !self.0.in_doubt.swap(true, Ordering::AcqRel)
        {
            let link = self.clone();
            tokio::spawn(async move {
                link.renew().await;
                sleep(RENEWAL_PAUSE).await;
                link.0.in_doubt.store(false, Ordering::Release);
            });
        }
    }

    async fn renew(&self) {
        let Way::Single(single) = &self.0.way else { return };
        let ping = async { redis::cmd("PING").query_async::<Value>(&mut single.manager()).await };
        let Ok(Err(error)) = timeout(PATIENCE, ping).await else { return };
        if !error.is_io_error() {
            self.is_away(&error);
            if let Ok(manager) = manage(&single.client).await {
                *single.manager.write() = manager;
            }
        }
    }
}

impl Single {
    fn manager(&self) -> ConnectionManager {
        self.manager.read().clone()
    }
}
