//! Time as the rules see it: milliseconds since the Unix epoch, handed in by whoever runs them.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::error::Invalid;

/// A moment, in whole milliseconds since 1970-01-01T00:00:00Z. Shown as RFC 3339, UTC, with milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest moment that can be written in every offset: 9999-12-30T22:00:00Z, which is where jiff ends.
    pub const MAX: Self = Self(253_402_207_200_000);
    /// The earliest moment that RFC 3339 can write: the start of the year 0.
    pub const MIN: Self = Self(-62_167_219_200_000);

    /// The moment that lies `millis` milliseconds after the Unix epoch, held within the years 0 to 9999.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(Self::MIN.0, Self::MAX.0))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// The moment `duration` later, held within the years 0 to 9999.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The moment `duration` earlier, held within the years 0 to 9999.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = jiff::Timestamp::from_millisecond(self.0)
            .expect("a Timestamp lies within the years 0 to 9999, which jiff can hold");
        write!(f, "{moment:.3}")
    }
}

impl FromStr for Timestamp {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let moment: jiff::Timestamp = text.parse().map_err(|_| {
            Invalid::new("time", "must be an RFC 3339 time with an offset, such as 2026-02-23T03:00:00.000Z")
        })?;
        let millis = moment.as_millisecond();
        if (Self::MIN.0..=Self::MAX.0).contains(&millis) {
            Ok(Self(millis))
        } else {
            Err(Invalid::new("time", "must lie within the years 0 to 9999"))
        }
    }
}

impl TryFrom<String> for Timestamp {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<Timestamp> for String {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        let moment: Timestamp = "2026-02-23T05:00:00.5+02:00".parse().unwrap();
        assert_eq!(moment.to_string(), "2026-02-23T03:00:00.500Z");
        assert_eq!("2026-02-23T03:00:00.500Z".parse::<Timestamp>().unwrap(), moment);
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
        for edge in [Timestamp::MIN, Timestamp::MAX] {
            assert_eq!(edge.to_string().parse::<Timestamp>().unwrap(), edge);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in ["", "now", "2026-02-23", "2026-02-23T03:00:00", "2026-13-01T00:00:00Z", "1771815600"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?}");
        }
    }
}
