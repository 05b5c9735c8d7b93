//! The Redis that decides: the function library, and its functions as calls.
//!
//! Nothing here waits for anything but Redis, and nothing is tried again: whether a call that got no reply was carried
//! out is known to Redis alone, and the next one tells.

use flashsale_core::{
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, SaleId},
    sale::Sale,
};
use redis::{RedisResult, Value};
use tracing::{error, info};
use uuid::Uuid;

use self::{
    link::Link,
    reply::{gather_text, holds},
};
pub(crate) use self::{
    link::client,
    records::{Entries, Entry, Holding, count_of, generation_of, place},
    reply::{Answer, Decided, LEFT_CLOSED, Reply, State, Trouble, state_of},
};
use crate::{
    keys::{Keys, SaleKeys},
    options::Secret,
};

mod link;
mod records;
mod reply;

/// The library, as it is loaded.
pub(crate) const LIBRARY: &str = include_str!("functions/flashsale.lua");
const LIBRARY_NAME: &str = "flashsale_1";
/// Where the library tells that a sale has changed.
pub(crate) const CHANGES: &str = "flashsale:changes";
/// The most values in one call of a load; Lua hands on at most about 8,000.
const CHUNK: usize = 4_000;

/// For how long what a replica shows is its present state, and when it is taken away: it has stopped.
const SHOWN_MS: i64 = 5_000;
const FORGOTTEN_MS: i64 = 60_000;

/// What has changed behind a closed gate.
#[derive(Clone, Debug)]
pub(crate) enum Opening<'a> {
    Same,
    Change(&'a Sale),
    Reset(Epoch),
    Release(&'a str),
    Delete,
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
        let link = Link::connect(url).await?;
        let keys = Keys { namespace: namespace.to_owned(), braces: link.is_cluster() };
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

    /// The library, as each server that decides has it. A Redis without functions refuses.
    pub(crate) async fn libraries(&self) -> RedisResult<Value> {
        let mut list = redis::cmd("FUNCTION");
        list.arg("LIST").arg("LIBRARYNAME").arg(LIBRARY_NAME).arg("WITHCODE");
        self.link.ask_all(list).await
    }

    /// Loads the library where it is missing or another one. A load disarms what was armed.
    pub(crate) async fn load_library(&self) -> RedisResult<()> {
        let loaded = self.libraries().await?;
        // Of a cluster, each server answers for itself.
        let everywhere = match &loaded {
            Value::Map(servers) if self.link.is_cluster() => {
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

    /// Tries what a replica must be allowed to, and changes nothing.
    pub(crate) async fn try_rights(&self) -> RedisResult<()> {
        let sale = self.keys.of(&"doctor".parse().expect("a valid id"));
        for key in [self.keys.index(), self.keys.replicas(), sale.outbox().to_owned()] {
            self.link.ask::<Value>(redis::cmd("EXISTS").arg(key)).await?;
        }
        // Of a key that is nobody's, which nobody heeds.
        self.link.ask::<Value>(redis::cmd("PUBLISH").arg(CHANGES).arg("")).await.map(drop)
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
        let (keys, generation) = ([self.keys.index()], generation.to_string());
        self.call("index_begin", &keys, &[&generation]).await?;
        for part in sales.chunks(CHUNK / 2) {
            let numbers: Vec<String> = part.iter().map(|(_, no)| no.to_string()).collect();
            let pairs = part.iter().zip(&numbers).flat_map(|((sale, _), no)| [sale.as_str(), no]);
            let args: Vec<&str> = std::iter::once(generation.as_str()).chain(pairs).collect();
            self.call("index_rows", &keys, &args).await?;
        }
        self.call("index_end", &keys, &[&generation]).await?;
        Ok(())
    }

    /// Whose stock it is.
    pub(crate) fn installation(&self) -> &str {
        &self.installation
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

#[cfg(test)]
mod tests {
    use flashsale_core::ids::Unit;

    use super::*;

    #[test]
    fn the_free_units_are_those_that_nobody_holds() {
        let holding = |unit: u32| {
            let (at, order_id) = (Timestamp::from_millis(1_771_815_600_000), OrderId(Uuid::nil()));
            let holding = Holding { confirmed: true, unit: Unit(unit), place: place(1, 1), at, order_id };
            (format!("user-{unit}"), holding)
        };
        let rows = |units: &[u32]| Rows { holders: units.iter().copied().map(holding).collect() }.units();
        assert_eq!(rows(&[]), (1, vec![]));
        assert_eq!(rows(&[1, 2, 3]), (4, vec![]));
        assert_eq!(rows(&[5, 2]), (6, vec![1, 3, 4]));
    }
}
