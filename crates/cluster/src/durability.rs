//! What SUCCESS is worth on the Redis that is there, said and not assumed.

use crate::{
    options::Ack,
    stock::{Stock, Trouble},
};

/// What a Redis keeps, and what it may throw away.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Durability {
    pub(crate) persistence: Persistence,
    /// What it does when its memory is full.
    pub(crate) eviction: String,
}

/// How a Redis keeps what it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Persistence {
    /// On disk before it answers.
    Always,
    /// On disk within about a second.
    EverySecond,
    /// On disk when the system sees fit.
    Sometimes,
    /// Nowhere.
    None,
}

impl Durability {
    /// Asks Redis.
    pub(crate) async fn read(stock: &Stock) -> Result<Self, Trouble> {
        let persistence = stock.info("persistence").await?;
        let memory = stock.info("memory").await?;
        let fsync = stock.setting("appendfsync").await;
        Ok(Self::of(&persistence, &memory, fsync.as_deref()))
    }

    fn of(persistence: &str, memory: &str, fsync: Option<&str>) -> Self {
        let eviction = memory
            .lines()
            .find_map(|line| line.trim().strip_prefix("maxmemory_policy:"))
            .unwrap_or("unknown")
            .to_owned();
        let persistence = match (persistence.contains("aof_enabled:1"), fsync) {
            (false, _) => Persistence::None,
            (true, Some("always")) => Persistence::Always,
            (true, Some("everysec") | None) => Persistence::EverySecond,
            (true, Some(_)) => Persistence::Sometimes,
        };
        Self { persistence, eviction }
    }

    /// Whether it may throw away what it was told to keep. Policies that only touch keys with a lifetime are harmless:
    /// ours have none.
    pub(crate) fn evicts(&self) -> bool {
        self.eviction.starts_with("allkeys")
    }

    pub(crate) fn is_volatile(&self) -> bool {
        self.persistence == Persistence::None
    }

    /// How it keeps what it has, in a few words.
    pub(crate) fn kept(&self) -> &'static str {
        match self.persistence {
            Persistence::Always => "its append-only file is synced always",
            Persistence::EverySecond => "its append-only file is synced every second",
            Persistence::Sometimes => "its append-only file is not synced",
            Persistence::None => "it keeps nothing on disk",
        }
    }

    /// The promise in force, in a sentence.
    pub(crate) fn promise(&self, ack: Ack) -> &'static str {
        match (ack, self.persistence) {
            (Ack::Queued, _) => {
                "SUCCESS is said once RabbitMQ has confirmed the reservation: acknowledged purchases survive the loss of Redis"
            }
            (Ack::Reserved, Persistence::Always) => {
                "SUCCESS is said once Redis has reserved: with its AOF synced always, acknowledged purchases survive a crash of Redis"
            }
            (Ack::Reserved, Persistence::EverySecond) => {
                "SUCCESS is said once Redis has reserved: with its AOF synced every second, about a second of acknowledged purchases may be lost with the power"
            }
            (Ack::Reserved, Persistence::Sometimes) => {
                "SUCCESS is said once Redis has reserved: with its AOF not synced, acknowledged purchases of the last half minute may be lost with the power"
            }
            (Ack::Reserved, Persistence::None) => {
                "SUCCESS is said once Redis has reserved: without an AOF, a restart of Redis may lose acknowledged purchases"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_of_itself_is_understood() {
        let of = |aof, fsync| Durability::of(aof, "maxmemory_policy:noeviction\r\n", fsync).persistence;
        assert_eq!(of("aof_enabled:0", Some("always")), Persistence::None);
        assert_eq!(of("aof_enabled:1", Some("always")), Persistence::Always);
        assert_eq!(of("aof_enabled:1", Some("everysec")), Persistence::EverySecond);
        assert_eq!(of("aof_enabled:1", Some("no")), Persistence::Sometimes);
        // A managed service that does not tell: the usual, not the best.
        assert_eq!(of("aof_enabled:1", None), Persistence::EverySecond);
    }

    #[test]
    fn only_policies_that_touch_keys_without_a_lifetime_are_refused() {
        let evicts = |policy: &str| Durability::of("", &format!("maxmemory_policy:{policy}"), None).evicts();
        assert!(evicts("allkeys-lru") && evicts("allkeys-random") && evicts("allkeys-lfu"));
        assert!(!evicts("noeviction") && !evicts("volatile-lru"));
    }
}
