//! The Redis that decides: the function library, and its functions as calls.
//!
//! Nothing here waits for anything but Redis, and nothing is tried again: whether a call that got no reply was carried
//! out is known to Redis alone, and the next one tells.

use std::{str::FromStr, sync::Arc, time::Duration};

use flashsale_core::{
    Error,
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, SaleId, Unit},
    order::{OrderStatus, Purchase},
    product::Product,
    sale::{Sale, Window},
};
use redis::{
    Cmd, FromRedisValue, IntoConnectionInfo, RedisError, RedisResult, Value,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cluster::ClusterClientBuilder,
    cluster_async::ClusterConnection,
    io::tcp::TcpSettings,
};
use tracing::{debug, error, info};
use uuid::Uuid;

use crate::{
    keys::{Keys, SaleKeys},
    options::Secret,
};

/// The library, as it is loaded.
pub(crate) const LIBRARY: &str = include_str!("functions/flashsale.lua");
const LIBRARY_NAME: &str = "flashsale_1";
/// How long a reply may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what was sent may stay unheard before the connection counts as dead.
const LINE_PATIENCE: Duration = Duration::from_secs(5);
/// A place is the generation above these bits, and a count within it below.
const COUNT_BITS: u32 = 32;
/// The most values in one call of a load; Lua hands on at most about 8,000.
const CHUNK: usize = 4_000;

/// For how long what a replica shows is its present state, and when it is taken away: it has stopped.
const SHOWN_MS: i64 = 5_000;
const FORGOTTEN_MS: i64 = 60_000;

/// A gate that is closed for this long, by Redis' clock, belongs to somebody who died.
const ABANDONED_MS: u64 = 2_000;
/// And so it was left.
pub(crate) const LEFT_CLOSED: &str = "the gate of a sale was left closed";

/// Why Redis did not do what it was asked to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// The sale's gate is closed: it is being changed right now, or somebody died over it.
    Closed,
    /// Redis does not know the sale.
    Missing,
    /// Redis has lost its memory, or part of it: somebody has to recover.
    Forgotten(&'static str),
    /// No reply, or one that makes no sense.
    Away(String),
}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        Self::Away(error.to_string())
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        let (reason, seconds) = match trouble {
            Trouble::Closed => ("The sale is being changed right now".to_owned(), 1),
            Trouble::Missing | Trouble::Forgotten(_) => {
                ("The stock is being rebuilt from the records".to_owned(), 1)
            }
            Trouble::Away(why) => {
                debug!(why, "Redis is away");
                ("Redis is away".to_owned(), 2)
            }
        };
        Self::Unavailable { reason, retry_after: Duration::from_secs(seconds) }
    }
}

/// The place `count` of a generation.
pub(crate) fn place(generation: u32, count: u64) -> Place {
    Place((u64::from(generation) << COUNT_BITS) | count)
}

/// The generation that a place names.
pub(crate) fn generation_of(place: Place) -> u32 {
    u32::try_from(place.0 >> COUNT_BITS).unwrap_or(u32::MAX)
}

/// A place's count within its generation.
pub(crate) fn count_of(place: Place) -> u64 {
    place.0 & ((1 << COUNT_BITS) - 1)
}

/// What a user holds, as Redis keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Holding {
    pub(crate) confirmed: bool,
    pub(crate) unit: Unit,
    pub(crate) place: Place,
    /// When it was reserved.
    pub(crate) at: Timestamp,
    pub(crate) order_id: OrderId,
}

impl Holding {
    pub(crate) fn purchase(&self) -> Purchase {
        let status = if self.confirmed { OrderStatus::Confirmed } else { OrderStatus::Reserved };
        Purchase { order_id: self.order_id, unit: self.unit, status }
    }

    pub(crate) fn written(&self) -> String {
        let state = if self.confirmed { 'C' } else { 'R' };
        format!("{state}{}:{}:{}:{}", self.unit, self.place, self.at.as_millis(), self.order_id)
    }
}

impl FromStr for Holding {
    type Err = Trouble;

    fn from_str(text: &str) -> Result<Self, Trouble> {
        let read = || {
            let confirmed = match text.as_bytes().first()? {
                b'C' => true,
                b'R' => false,
                _ => return None,
            };
            let mut parts = text[1..].splitn(4, ':');
            let unit = Unit(parts.next()?.parse().ok()?);
            let place = Place(parts.next()?.parse().ok()?);
            let at = Timestamp::from_millis(parts.next()?.parse().ok()?);
            let order_id = parts.next()?.parse().ok()?;
            Some(Self { confirmed, unit, place, at, order_id })
        };
        read().ok_or_else(|| Trouble::Away(format!("{text:?} is no holding")))
    }
}

/// The answer to one attempt of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Reserved(Holding),
    Held(Holding),
    SoldOut,
    NotActive,
}

/// What a call decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Decided {
    pub(crate) generation: u32,
    pub(crate) epoch: Epoch,
    pub(crate) now: Timestamp,
    /// The place that rejections of this call rest on.
    pub(crate) changed: Place,
    pub(crate) no: i32,
    /// The outbox entry of the reservations, where there are any.
    pub(crate) entry: Option<String>,
    pub(crate) answers: Vec<Answer>,
}

/// Everything about a sale but its purchasers.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) generation: u32,
    pub(crate) now: Timestamp,
    pub(crate) changed: Place,
    pub(crate) no: i32,
    pub(crate) sale: Sale,
    pub(crate) available: u32,
    pub(crate) confirmed: u32,
    pub(crate) next: Unit,
    pub(crate) place: Place,
    pub(crate) closed: bool,
}

/// What has changed behind a closed gate.
#[derive(Clone, Debug)]
pub(crate) enum Opening<'a> {
    Same,
    Change(&'a Sale),
    Reset(Epoch),
    Release(&'a str),
    Delete,
}

/// A connection that comes back by itself.
#[derive(Clone)]
enum Link {
    Single(ConnectionManager),
    Cluster(ClusterConnection),
}

impl Link {
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(connection) => command.query_async(&mut connection.clone()).await,
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        }
    }

    /// Asks every server that decides.
    async fn ask_all(&self, command: Cmd) -> RedisResult<Value> {
        use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
        match self {
            Self::Single(_) => self.ask(&command).await,
            Self::Cluster(connection) => {
                let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                connection.clone().route_command(command, everywhere).await
            }
        }
    }
}

/// The Redis that decides.
#[derive(Clone)]
pub(crate) struct Stock {
    link: Link,
    pub(crate) keys: Keys,
    installation: String,
    url: Secret,
}

impl Stock {
    /// Connects.
    pub(crate) async fn connect(url: &Secret, namespace: &str, installation: Uuid) -> RedisResult<Self> {
        // A server that lost its power does not say so.
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(LINE_PATIENCE);
        let client = redis::Client::open(url.expose().into_connection_info()?.set_tcp_settings(tcp.clone()))?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_min_delay(Duration::from_millis(20))
            .set_max_delay(Duration::from_millis(500))
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let single = Link::Single(client.get_connection_manager_with_config(config).await?);
        let info: String = single.ask(redis::cmd("INFO").arg("cluster")).await?;
        let braces = info.contains("cluster_enabled:1");
        let link = if braces {
            let client = ClusterClientBuilder::new([url.expose()])
                .connection_timeout(PATIENCE)
                .response_timeout(PATIENCE)
                .tcp_settings(tcp)
                .retries(0)
                .build()?;
            Link::Cluster(client.get_async_connection().await?)
        } else {
            single
        };
        let keys = Keys { namespace: namespace.to_owned(), braces };
        Ok(Self { link, keys, installation: installation.to_string(), url: url.clone() })
    }

    /// Connects to a server that answers; one that is reading its data refuses to.
    pub(crate) async fn connect_loaded(
        url: &Secret,
        namespace: &str,
        installation: Uuid,
    ) -> RedisResult<Self> {
        let stock = Self::connect(url, namespace, installation).await?;
        stock.link.ask_all(redis::cmd("PING")).await?;
        Ok(stock)
    }

    /// Loads the library where it is missing or another one. A load disarms what was armed.
    pub(crate) async fn load_library(&self) -> RedisResult<()> {
        let mut list = redis::cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg(LIBRARY_NAME).arg("WITHCODE");
        let loaded = self.link.ask_all(list).await?;
        // Of a cluster, each server answers for itself.
        let everywhere = match (&self.link, &loaded) {
            (Link::Cluster(_), Value::Map(servers)) => {
                servers.iter().all(|(_, server)| holds(server, LIBRARY))
            }
            _ => holds(&loaded, LIBRARY),
        };
        if !everywhere {
            let mut load = redis::cmd("FUNCTION");
            load.arg("LOAD").arg("REPLACE").arg(LIBRARY);
            self.link.ask_all(load).await?;
            info!("Redis has the function library {LIBRARY_NAME} now");
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> &Secret {
        &self.url
    }

    pub(crate) async fn ping(&self) -> Result<(), Trouble> {
        Ok(self.link.ask::<Value>(&redis::cmd("PING")).await.map(drop)?)
    }

    /// A section of what the server says of itself.
    pub(crate) async fn info(&self, section: &str) -> Result<String, Trouble> {
        let value: Value = self.link.ask(redis::cmd("INFO").arg(section)).await?;
        let mut all = String::new();
        gather_text(&value, &mut all);
        Ok(all)
    }

    /// A setting, where the server tells it.
    pub(crate) async fn setting(&self, name: &str) -> Option<String> {
        let value: Value = self.link.ask(redis::cmd("CONFIG").arg("GET").arg(name)).await.ok()?;
        let mut all = String::new();
        gather_text(&value, &mut all);
        all.split_whitespace().skip_while(|word| *word != name).nth(1).map(str::to_owned)
    }

    async fn call(&self, name: &str, keys: &[String], args: &[&str]) -> Result<Reply, Trouble> {
        let look = matches!(name, "status" | "purchase" | "list" | "known");
        let mut command = redis::cmd(if look { "FCALL_RO" } else { "FCALL" });
        command
            .arg(format!("{LIBRARY_NAME}_{name}"))
            .arg(keys.len())
            .arg(keys)
            .arg(&self.installation)
            .arg(args);
        let values: Vec<Value> = match self.link.ask(&command).await {
            Ok(values) => values,
            Err(error) if error.to_string().contains("Function not found") => {
                return Err(Trouble::Forgotten("the function library was gone"));
            }
            Err(error) => return Err(error.into()),
        };
        Reply::of(values)
    }

    /// Decides attempts of one sale: user and the order's id, should there be one.
    pub(crate) async fn decide(
        &self,
        keys: &SaleKeys,
        attempts: &[(&str, OrderId)],
    ) -> Result<Decided, Trouble> {
        let orders: Vec<String> = attempts.iter().map(|(_, order)| order.to_string()).collect();
        let args: Vec<&str> =
            attempts.iter().zip(&orders).flat_map(|((user, _), order)| [*user, order.as_str()]).collect();
        self.call("decide", &*keys.0, &args).await?.decided()
    }

    pub(crate) async fn status(&self, sale: &SaleId) -> Result<State, Trouble> {
        let keys = self.keys.of(sale);
        state_of(sale, &self.call("status", &*keys.0, &[]).await?)
    }

    pub(crate) async fn purchase(
        &self,
        sale: &SaleId,
        user: &str,
    ) -> Result<(u32, Option<Holding>), Trouble> {
        let keys = self.keys.of(sale);
        self.call("purchase", &*keys.0, &[user]).await?.held()
    }

    /// All who hold a unit.
    pub(crate) async fn purchasers(&self, keys: &SaleKeys) -> Result<Vec<String>, Trouble> {
        let (mut users, mut cursor) = (Vec::new(), 0_u64);
        loop {
            let mut command = redis::cmd("SSCAN");
            command.arg(keys.users()).arg(cursor).arg("COUNT").arg(CHUNK);
            let (next, page): (u64, Vec<String>) = self.link.ask(&command).await?;
            users.extend(page);
            if next == 0 {
                return Ok(users);
            }
            cursor = next;
        }
    }

    /// Marks orders as stored; what is of another epoch, or not held, is passed over.
    pub(crate) async fn confirm(
        &self,
        sale: &SaleId,
        epoch: Epoch,
        orders: &[(&str, String)],
    ) -> Result<(), Trouble> {
        let epoch = epoch.to_string();
        for part in orders.chunks(CHUNK / 2) {
            let mut args = vec![epoch.as_str()];
            args.extend(part.iter().flat_map(|(user, order)| [*user, order.as_str()]));
            self.call("confirm", &*self.keys.of(sale).0, &args).await?;
        }
        Ok(())
    }

    /// Takes entries out of the outbox: their orders are stored.
    pub(crate) async fn forget(&self, sale: &SaleId, entries: &[&str]) -> Result<(), Trouble> {
        let keys = self.keys.of(sale);
        Ok(self.link.ask::<Value>(redis::cmd("XDEL").arg(keys.outbox()).arg(entries)).await.map(drop)?)
    }

    /// Up to `limit` entries of the outbox that come after the entry `after` and are at least `age` old.
    pub(crate) async fn outbox(
        &self,
        sale: &SaleId,
        after: Option<&str>,
        older_than: Option<Timestamp>,
        limit: usize,
    ) -> Result<Entries, Trouble> {
        let keys = self.keys.of(sale);
        let start = after.map_or_else(|| "-".to_owned(), |entry| format!("({entry}"));
        let end = older_than.map_or_else(|| "+".to_owned(), |moment| moment.as_millis().to_string());
        let mut command = redis::cmd("XRANGE");
        command.arg(keys.outbox()).arg(start).arg(end).arg("COUNT").arg(limit);
        let found: redis::streams::StreamRangeReply = match self.link.ask(&command).await {
            Err(error) if error.code() == Some("WRONGTYPE") => {
                error!(%sale, "the outbox is none; what it held is lost");
                return Ok(Entries::default());
            }
            found => found?,
        };
        let readable = |row| {
            let entry = Entry::read(row);
            if entry.is_none() {
                error!(%sale, entry = row.id, "an entry of the outbox cannot be read, and is passed over");
            }
            entry
        };
        let last = found.ids.last().map(|row| row.id.clone());
        Ok(Entries { rows: found.ids.iter().filter_map(readable).collect(), last })
    }

    /// The time by Redis' clock.
    pub(crate) async fn now(&self) -> Result<Timestamp, Trouble> {
        let (seconds, micros): (i64, i64) = self.link.ask(&redis::cmd("TIME")).await?;
        Ok(Timestamp::from_millis(seconds * 1_000 + micros / 1_000))
    }

    /// Closes a sale's gate.
    pub(crate) async fn close(&self, sale: &SaleId, token: &str) -> Result<State, Trouble> {
        state_of(sale, &self.call("close", &*self.keys.of(sale).0, &[token]).await?)
    }

    /// Opens a gate that the token closed.
    pub(crate) async fn reopen(
        &self,
        sale: &SaleId,
        token: &str,
        opening: Opening<'_>,
    ) -> Result<Option<State>, Trouble> {
        let mut args = vec![token.to_owned()];
        match opening {
            Opening::Same => args.push("same".to_owned()),
            Opening::Change(sale) => args.extend(["change".to_owned()].into_iter().chain(setup(sale))),
            Opening::Reset(epoch) => args.extend(["reset".to_owned(), epoch.to_string()]),
            Opening::Release(user) => args.extend(["release".to_owned(), user.to_owned()]),
            Opening::Delete => args.push("delete".to_owned()),
        }
        let gone = matches!(opening, Opening::Delete);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let reply = self.call("reopen", &*self.keys.of(sale).0, &args).await?;
        if gone { Ok(None) } else { state_of(sale, &reply).map(Some) }
    }

    /// Loads a sale from the records: its live orders, ascending by unit. Its gate is open afterwards.
    pub(crate) async fn load(
        &self,
        no: i32,
        sale: &Sale,
        place: Place,
        rows: &Rows,
    ) -> Result<State, Trouble> {
        let keys = self.keys.of(&sale.id);
        let token = Uuid::now_v7().to_string();
        let generation = generation_of(place);
        let mut begin = vec![token.clone(), generation.to_string(), sale.epoch.to_string(), no.to_string()];
        begin.extend(setup(sale));
        begin.push(count_of(place).to_string());
        self.call_owned("load_begin", &keys, &begin).await?;
        for part in rows.holders.chunks(CHUNK / 2) {
            let mut args = vec![token.clone()];
            args.extend(part.iter().flat_map(|(user, held)| [user.clone(), held.written()]));
            self.call_owned("load_rows", &keys, &args).await?;
        }
        let (next, returned) = rows.units();
        for part in returned.chunks(CHUNK / 2) {
            let mut args = vec![token.clone()];
            args.extend(part.iter().map(ToString::to_string));
            self.call_owned("load_returned", &keys, &args).await?;
        }
        let confirmed = rows.holders.iter().filter(|(_, held)| held.confirmed).count();
        let end = [token, next.to_string(), confirmed.to_string()];
        state_of(&sale.id, &self.call_owned("load_end", &keys, &end).await?)
    }

    async fn call_owned(&self, name: &str, keys: &SaleKeys, args: &[String]) -> Result<Reply, Trouble> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.call(name, &*keys.0, &args).await
    }

    /// Makes the list of all sales anew, with their numbers.
    pub(crate) async fn index(&self, generation: u32, sales: &[(SaleId, i32)]) -> Result<(), Trouble> {
        let generation = generation.to_string();
        let mut args = vec![generation];
        // Sales beyond what one call takes follow one by one.
        let (first, rest) = sales.split_at(sales.len().min(CHUNK / 2));
        args.extend(first.iter().flat_map(|(sale, no)| [sale.to_string(), no.to_string()]));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.call("index", &[self.keys.index()], &args).await?;
        for (sale, no) in rest {
            self.list_sale(sale, *no).await?;
        }
        Ok(())
    }

    /// Whether the list of sales is that of another installation.
    pub(crate) async fn is_foreign(&self) -> Result<bool, Trouble> {
        let owner: Option<String> = self.link.ask(redis::cmd("HGET").arg(self.keys.index()).arg("#")).await?;
        Ok(owner.is_some_and(|owner| owner != self.installation))
    }

    /// Adds a sale to the list.
    pub(crate) async fn list_sale(&self, sale: &SaleId, no: i32) -> Result<(), Trouble> {
        let mut command = redis::cmd("HSET");
        command.arg(self.keys.index()).arg(sale.as_str()).arg(no);
        Ok(self.link.ask::<Value>(&command).await.map(drop)?)
    }

    /// Takes a sale off the list.
    pub(crate) async fn unlist_sale(&self, sale: &SaleId) -> Result<(), Trouble> {
        let mut command = redis::cmd("HDEL");
        command.arg(self.keys.index()).arg(sale.as_str());
        Ok(self.link.ask::<Value>(&command).await.map(drop)?)
    }

    /// Whether there is such a sale.
    pub(crate) async fn known(&self, sale: &SaleId) -> Result<bool, Trouble> {
        let reply = self.call("known", &[self.keys.index()], &[sale.as_str()]).await.map_err(unlisted)?;
        Ok(reply.text(1)? == "1")
    }

    /// The generation, and all sales in the order in which they were made.
    pub(crate) async fn list(&self) -> Result<(u32, Vec<(SaleId, i32)>), Trouble> {
        self.call("list", &[self.keys.index()], &[]).await.map_err(unlisted)?.listed()
    }

    /// Puts what a replica shows where all see it, and reads what all have put there of late.
    pub(crate) async fn exchange(
        &self,
        replica: &str,
        figures: &str,
    ) -> Result<Vec<(String, String)>, Trouble> {
        let (key, now) = (self.keys.replicas(), self.now().await?.as_millis());
        let shown = format!("{now}|{figures}");
        self.link.ask::<Value>(redis::cmd("HSET").arg(&key).arg(replica).arg(shown)).await?;
        let all: Vec<(String, String)> = self.link.ask(redis::cmd("HGETALL").arg(&key)).await?;
        let (mut present, mut gone) = (Vec::new(), Vec::new());
        for (name, shown) in all {
            match shown_at(&shown) {
                Some((at, figures)) if now.saturating_sub(at) < SHOWN_MS => {
                    present.push((name, figures.to_owned()));
                }
                Some((at, _)) if now.saturating_sub(at) < FORGOTTEN_MS => {}
                _ => gone.push(name),
            }
        }
        if !gone.is_empty() {
            self.link.ask::<Value>(redis::cmd("HDEL").arg(&key).arg(gone)).await?;
        }
        Ok(present)
    }

    /// Stops all decisions, on every server; what is of an older generation than this is loaded no more.
    pub(crate) async fn disarm(&self, generation: u32) -> Result<(), Trouble> {
        let mut command = redis::cmd("FCALL");
        command.arg(format!("{LIBRARY_NAME}_disarm")).arg(0).arg(&self.installation).arg(generation);
        Ok(self.link.ask_all(command).await.map(drop)?)
    }
}

/// When a replica has shown its figures, and these.
pub(crate) fn shown_at(shown: &str) -> Option<(i64, &str)> {
    let (at, figures) = shown.split_once('|')?;
    Some((at.parse().ok()?, figures))
}

/// A list that is missing is a memory that is lost, and not a sale that is unknown.
fn unlisted(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Missing => Trouble::Forgotten("the list of sales is gone"),
        other => other,
    }
}

/// What a sale is set up as, in the order in which the functions take it.
fn setup(sale: &Sale) -> [String; 6] {
    [
        sale.name.clone(),
        serde_json::to_string(&*sale.product).expect("a product is plain text"),
        sale.total_stock.to_string(),
        sale.window.starts_at().as_millis().to_string(),
        sale.window.ends_at().as_millis().to_string(),
        u8::from(sale.paused).to_string(),
    ]
}

/// The live orders of a sale, to be loaded.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) holders: Vec<(String, Holding)>,
}

impl Rows {
    /// The unit from which on all are free, and the free ones before it.
    fn units(&self) -> (u32, Vec<u32>) {
        let mut held: Vec<u32> = self.holders.iter().map(|(_, holding)| holding.unit.0).collect();
        held.sort_unstable();
        let next = held.last().copied().unwrap_or(0) + 1;
        let mut held = held.into_iter().peekable();
        let free = (1..next).filter(|unit| held.next_if_eq(unit).is_none()).collect();
        (next, free)
    }
}

/// An entry of the outbox: what one call reserved of one sale.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) generation: u32,
    pub(crate) epoch: Epoch,
    pub(crate) at: Timestamp,
    /// The first reservation's count; each further one has the next.
    pub(crate) first: u64,
    /// Unit, order and user of each.
    pub(crate) rows: Vec<(Unit, OrderId, String)>,
}

/// Entries of the outbox, as far as they can be read, and the last one's name.
#[derive(Default)]
pub(crate) struct Entries {
    pub(crate) rows: Vec<Entry>,
    pub(crate) last: Option<String>,
}

impl Entry {
    pub(crate) fn read(row: &redis::streams::StreamId) -> Option<Self> {
        let text = |name: &str| row.get::<String>(name);
        let lines = text("r")?;
        let rows = lines.lines().map(|line| {
            let mut parts = line.splitn(3, ' ');
            let unit = Unit(parts.next()?.parse().ok()?);
            Some((unit, parts.next()?.parse().ok()?, parts.next()?.to_owned()))
        });
        Some(Self {
            id: row.id.clone(),
            generation: text("g")?.parse().ok()?,
            epoch: Epoch(text("e")?.parse().ok()?),
            at: Timestamp::from_millis(text("t")?.parse().ok()?),
            first: text("p")?.parse::<u32>().ok()?.into(),
            rows: rows.collect::<Option<_>>()?,
        })
    }
}

pub(crate) fn state_of(sale: &SaleId, reply: &Reply) -> Result<State, Trouble> {
    let generation = reply.number(1)?;
    let window =
        Window::new(Timestamp::from_millis(reply.number(9)?), Timestamp::from_millis(reply.number(10)?))
            .map_err(|error| Trouble::Away(error.to_string()))?;
    let state = State {
        generation,
        now: Timestamp::from_millis(reply.number(3)?),
        changed: reply.place(generation, 4)?,
        no: reply.number(5)?,
        available: reply.number(6)?,
        confirmed: reply.number(7)?,
        sale: Sale {
            id: sale.clone(),
            name: reply.text(15)?.to_owned(),
            total_stock: reply.number(8)?,
            window,
            epoch: Epoch(reply.number(2)?),
            paused: reply.text(11)? == "1",
            product: product_of(reply.text(16)?)?,
        },
        next: Unit(reply.number(12)?),
        place: reply.place(generation, 13)?,
        closed: !reply.text(14)?.is_empty(),
    };
    // The function looks at this, too. Whoever subtracts relies on it.
    if state.available > state.sale.total_stock {
        return Err(Trouble::Forgotten("more units are free than there are"));
    }
    Ok(state)
}

/// What pages show of a sale. A hash that some other program has cut short has none.
fn product_of(text: &str) -> Result<Arc<Product>, Trouble> {
    let product = serde_json::from_str(text);
    product.map(Arc::new).map_err(|error| Trouble::Away(format!("{text:?} is no product: {error}")))
}

fn answer_of(text: &str) -> Result<Answer, Trouble> {
    match text.as_bytes().first() {
        Some(b'S') => Ok(Answer::SoldOut),
        Some(b'N') => Ok(Answer::NotActive),
        Some(b'A') => text[1..].parse().map(Answer::Held),
        Some(b'R') => text.parse().map(Answer::Reserved),
        _ => Err(Trouble::Away(format!("{text:?} is no answer"))),
    }
}

/// A function's reply.
pub(crate) struct Reply(Vec<Value>);

impl Reply {
    /// The reply of these values, or the trouble that they tell of.
    pub(crate) fn of(values: Vec<Value>) -> Result<Self, Trouble> {
        let reply = Reply(values);
        match reply.text(0)? {
            "ok" => Ok(reply),
            "closed" if reply.number(1).is_ok_and(|closed_for: u64| closed_for >= ABANDONED_MS) => {
                Err(Trouble::Forgotten(LEFT_CLOSED))
            }
            "closed" => Err(Trouble::Closed),
            "superseded" => Err(Trouble::Forgotten("somebody else has rebuilt the stock meanwhile")),
            "missing" => Err(Trouble::Missing),
            "unarmed" => Err(Trouble::Forgotten("the server was restarted or replaced")),
            "inconsistent" => {
                Err(Trouble::Forgotten("keys of the sale are missing or contradict each other"))
            }
            other => Err(Trouble::Away(format!("{other:?} is no answer"))),
        }
    }

    /// What a call decided.
    pub(crate) fn decided(&self) -> Result<Decided, Trouble> {
        let generation = self.number(1)?;
        let answers =
            self.array(7)?.iter().map(|answer| answer_of(as_text(answer)?)).collect::<Result<_, _>>()?;
        Ok(Decided {
            generation,
            epoch: Epoch(self.number(2)?),
            now: Timestamp::from_millis(self.number(3)?),
            changed: self.place(generation, 4)?,
            no: self.number(5)?,
            entry: Some(self.text(6)?.to_owned()).filter(|entry| !entry.is_empty()),
            answers,
        })
    }

    /// The generation, and what a user holds.
    pub(crate) fn held(&self) -> Result<(u32, Option<Holding>), Trouble> {
        let held = match self.text(3)? {
            "" => None,
            holding => Some(holding.parse()?),
        };
        Ok((self.number(1)?, held))
    }

    /// The generation, and all sales in the order in which they were made.
    pub(crate) fn listed(&self) -> Result<(u32, Vec<(SaleId, i32)>), Trouble> {
        let mut sales = Vec::new();
        for pair in self.array(2)?.chunks_exact(2) {
            let (id, no) = (as_text(&pair[0])?, as_text(&pair[1])?);
            if let (Ok(id), Ok(no)) = (id.parse(), no.parse()) {
                sales.push((id, no));
            }
        }
        sales.sort_by_key(|(_, no)| *no);
        Ok((self.number(1)?, sales))
    }

    fn at(&self, index: usize) -> Result<&Value, Trouble> {
        self.0.get(index).ok_or_else(|| Trouble::Away("a reply is too short".to_owned()))
    }

    fn text(&self, index: usize) -> Result<&str, Trouble> {
        as_text(self.at(index)?)
    }

    fn number<T: FromStr>(&self, index: usize) -> Result<T, Trouble> {
        let text = self.text(index)?;
        text.parse().map_err(|_| Trouble::Away(format!("{text:?} is no number")))
    }

    /// A count within a generation, as a place. One that reached into the bits of the generation would name another.
    fn place(&self, generation: u32, index: usize) -> Result<Place, Trouble> {
        Ok(place(generation, self.number::<u32>(index)?.into()))
    }

    fn array(&self, index: usize) -> Result<&[Value], Trouble> {
        match self.at(index)? {
            Value::Array(values) => Ok(values),
            other => Err(Trouble::Away(format!("{other:?} is no list"))),
        }
    }
}

fn as_text(value: &Value) -> Result<&str, Trouble> {
    let text = match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text.as_str()),
        _ => None,
    };
    text.ok_or_else(|| Trouble::Away(format!("{value:?} is no text")))
}

/// Whether the text stands anywhere in a reply.
fn holds(value: &Value, wanted: &str) -> bool {
    match value {
        Value::BulkString(bytes) => bytes == wanted.as_bytes(),
        Value::Array(values) | Value::Set(values) => values.iter().any(|value| holds(value, wanted)),
        Value::Map(pairs) => pairs.iter().any(|(key, value)| holds(key, wanted) || holds(value, wanted)),
        _ => false,
    }
}

/// All texts of a reply, one a line.
fn gather_text(value: &Value, into: &mut String) {
    match value {
        Value::Array(values) | Value::Set(values) => values.iter().for_each(|value| gather_text(value, into)),
        Value::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            gather_text(key, into);
            gather_text(value, into);
        }),
        other => {
            if let Ok(text) = as_text(other) {
                into.push_str(text);
                into.push('\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(unit: u32) -> (String, Holding) {
        let order_id = OrderId(Uuid::nil());
        let at = Timestamp::from_millis(1_771_815_600_000);
        (
            format!("user-{unit}"),
            Holding { confirmed: true, unit: Unit(unit), place: place(1, 1), at, order_id },
        )
    }

    #[test]
    fn the_free_units_are_those_that_nobody_holds() {
        let rows = |units: &[u32]| Rows { holders: units.iter().copied().map(holding).collect() }.units();
        assert_eq!(rows(&[]), (1, vec![]));
        assert_eq!(rows(&[1, 2, 3]), (4, vec![]));
        assert_eq!(rows(&[5, 2]), (6, vec![1, 3, 4]));
    }

    #[test]
    fn a_holding_is_read_as_it_was_written() {
        let held = holding(7).1;
        assert_eq!(held.written().parse::<Holding>(), Ok(held));
        assert!("X7:1:0".parse::<Holding>().is_err());
    }

    #[test]
    fn a_place_is_its_generation_and_its_count() {
        assert!(place(1, u64::from(u32::MAX)) < place(2, 0));
        assert_eq!(count_of(place(7, 42)), 42);
    }
}
