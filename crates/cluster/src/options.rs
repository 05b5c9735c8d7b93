//! What the cluster profile is told: where its services are, and what SUCCESS shall mean.

use std::{fmt, path::PathBuf, str::FromStr};

/// An address that may hold a password. It shows itself without.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The whole of it, for the client that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Secret {
    /// Scheme, host and path: neither who, nor the password, nor parameters, which may hold one too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return f.write_str(if self.0.is_empty() { "empty" } else { "(an address)" });
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        // A password may hold an @ that nobody escaped; the host cannot.
        let host = authority.rsplit('@').next().unwrap_or_default();
        // With an unescaped / in a password, what looks like the path holds the rest of it.
        let path = if path.contains('@') { "" } else { path };
        let host = if rest.contains('@') && !authority.contains('@') { "…" } else { host };
        write!(f, "{scheme}://{host}{path}")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// When SUCCESS is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ack {
    /// When the broker has confirmed the reservation: it survives the loss of Redis.
    Queued,
    /// When Redis has reserved: as durable as that Redis is.
    Reserved,
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// PostgreSQL.
    pub database_url: Secret,
    /// Redis, or a node of a Redis Cluster.
    pub redis_url: Secret,
    /// RabbitMQ.
    pub amqp_url: Secret,
    /// Set before all keys, exchanges and queues, so that several installations can share the services.
    pub namespace: String,
    /// When SUCCESS is said.
    pub ack: Ack,
    /// Whether a Redis without persistence is good enough.
    pub allow_volatile_redis: bool,
    /// Whether a replica rejects from memory once a sale is sold out.
    pub latch: bool,
    /// Where audit rows wait while PostgreSQL is away.
    pub spool_dir: PathBuf,
    /// The most bytes that wait there.
    pub spool_bytes: u64,
    /// The most connections to PostgreSQL.
    pub database_connections: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_neither_user_nor_password_nor_parameters() {
        for (url, shown) in [
            ("postgres://ada:s3cret@db:5432/shop?sslmode=require&password=s3cret", "postgres://db:5432/shop"),
            ("redis://:s3cret@cache:6379/1", "redis://cache:6379/1"),
            ("amqps://ada:s3@cret@mq/%2f", "amqps://mq/%2f"),
            ("redis://:s3/cret@cache", "redis://…"),
            ("s3cret", "(an address)"),
            ("", "empty"),
        ] {
            assert_eq!(Secret::from(url.to_owned()).to_string(), shown);
        }
    }
}
