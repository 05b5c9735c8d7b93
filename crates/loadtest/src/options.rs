//! What a run is told: which sale, how much load, by whom.

use std::time::Duration;

use crate::Error;

/// The most attempts an open loop may plan, and users a pool may hold.
const MOST_ATTEMPTS: f64 = 1e10;
/// The most connections of either loop; beyond it a client runs out of ports before the server runs out of breath.
const MOST_CONNECTIONS: usize = 20_000;
/// The longest user prefix in bytes: with the longest index behind it, an id stays below 255 bytes.
const LONGEST_PREFIX: usize = 200;

/// How the attempts are spaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Load {
    /// Attempts start by the clock, whatever the server does. Latency counts from the intended start, so that a
    /// stalled server cannot hide. Makes exactly `rate_per_second` × `duration` attempts (rounded).
    OpenLoop {
        /// Attempts per second, above 0.
        rate_per_second: f64,
        /// For how long attempts start; above 0.
        duration: Duration,
    },
    /// Each connection sends its next attempt as soon as it has the reply to the last: for saturation. Latency
    /// counts from the sending.
    ClosedLoop {
        /// How many at once, at least 1.
        connections: usize,
        /// For how long attempts start; above 0.
        duration: Duration,
    },
}

impl Load {
    /// For how long attempts start.
    pub fn duration(&self) -> Duration {
        match *self {
            Self::OpenLoop { duration, .. } | Self::ClosedLoop { duration, .. } => duration,
        }
    }
}

/// What a run is told. [`Options::new`] has the defaults; set what differs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Base url of the server, `http://host:port`; without a port, 80.
    pub url: String,
    /// Id of the sale.
    pub sale: String,
    /// How the attempts are spaced. Default: open loop, 2,000 a second for 5 s.
    pub load: Load,
    /// `None`, the default: each attempt is by a new user. `Some(n)`: by the next of `n` users, round robin, so that
    /// a run with more attempts than users sees `ALREADY_PURCHASED`.
    pub users: Option<u64>,
    /// What every user id begins with (`{prefix}-{index}`). Unique per run, else last run's buyers come again and
    /// are told `ALREADY_PURCHASED`. 1 to 200 bytes without control characters.
    pub user_prefix: String,
    /// Whether nobody has bought as one of these users before, as when the prefix was drawn at random: then
    /// `ALREADY_PURCHASED` for a purchase that this run did not make is a lie. Default: no.
    pub fresh_users: bool,
    /// How long a request may take, connecting included; and at the start, finding the server. In an open loop also how
    /// long an attempt may wait for a free connection before it is given up. Default: 10 s.
    pub timeout: Duration,
    /// The most connections of an open loop. Default: 1,024.
    pub max_connections: usize,
    /// How many files this process may open at once, if that is known. It is only named where they do not suffice.
    pub open_files: Option<u64>,
    /// Whether to show a progress bar on stderr, if that is a terminal. Default: no.
    pub progress: bool,
}

impl Options {
    /// The seed's stress test (2,000 new users a second for 5 s) on a sale of the server at `url`.
    pub fn new(url: impl Into<String>, sale: impl Into<String>, user_prefix: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            sale: sale.into(),
            load: Load::OpenLoop { rate_per_second: 2_000.0, duration: Duration::from_secs(5) },
            users: None,
            user_prefix: user_prefix.into(),
            fresh_users: false,
            timeout: Duration::from_secs(10),
            max_connections: 1_024,
            open_files: None,
            progress: false,
        }
    }

    /// [`Error::Option`] for the first option that is out of range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let demand = |holds: bool, option: &'static str, reason: &str| {
            if holds { Ok(()) } else { Err(Error::Option { option, reason: reason.to_owned() }) }
        };
        let connections = 1..=MOST_CONNECTIONS;
        demand(!self.sale.is_empty(), "sale", "wants an id")?;
        demand(
            (1..=LONGEST_PREFIX).contains(&self.user_prefix.len()),
            "user_prefix",
            "wants 1 to 200 bytes",
        )?;
        demand(!self.user_prefix.contains(char::is_control), "user_prefix", "has control characters")?;
        demand(self.users != Some(0), "users", "a pool of users wants at least one")?;
        demand(!self.timeout.is_zero(), "timeout", "must be above zero")?;
        demand(connections.contains(&self.max_connections), "max_connections", "wants 1 to 20,000")?;
        demand(!self.load.duration().is_zero(), "duration", "must be above zero")?;
        match self.load {
            Load::OpenLoop { rate_per_second, duration } => {
                demand(rate_per_second.is_finite() && rate_per_second > 0.0, "rate", "must be above zero")?;
                let attempts = (rate_per_second * duration.as_secs_f64()).round();
                demand(attempts >= 1.0, "rate", "makes not one attempt in that duration")?;
                demand(attempts <= MOST_ATTEMPTS, "rate", "makes more than 10,000,000,000 attempts")
            }
            Load::ClosedLoop { connections: wanted, .. } => {
                demand(connections.contains(&wanted), "connections", "wants 1 to 20,000")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Options)) -> &'static str {
        let mut options = Options::new("http://127.0.0.1:3000", "sale_1", "run");
        change(&mut options);
        match options.check() {
            Err(Error::Option { option, .. }) => option,
            other => panic!("expected a refused option, got {other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_in_range() {
        Options::new("http://127.0.0.1:3000", "sale_1", "run").check().expect("defaults hold");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let second = Duration::from_secs(1);
        let open = |rate_per_second| Load::OpenLoop { rate_per_second, duration: second };
        assert_eq!(refused(|o| o.sale.clear()), "sale");
        assert_eq!(refused(|o| o.user_prefix.clear()), "user_prefix");
        assert_eq!(refused(|o| o.user_prefix = "a\n".into()), "user_prefix");
        assert_eq!(refused(|o| o.users = Some(0)), "users");
        assert_eq!(refused(|o| o.timeout = Duration::ZERO), "timeout");
        assert_eq!(refused(|o| o.max_connections = 0), "max_connections");
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 0.1, 1e11] {
            assert_eq!(refused(|o| o.load = open(rate)), "rate", "{rate}");
        }
        let none = Duration::ZERO;
        assert_eq!(refused(|o| o.load = Load::ClosedLoop { connections: 1, duration: none }), "duration");
        assert_eq!(
            refused(|o| o.load = Load::ClosedLoop { connections: 0, duration: second }),
            "connections"
        );
    }
}
