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
        let no_time = || {
            Invalid::new("time", "must be an RFC 3339 time with an offset, such as 2026-02-23T03:00:00.000Z")
        };
        let out_of_range =
            || Invalid::new("time", format!("must lie between {} and {}", Self::MIN, Self::MAX));
        // jiff reads more than that: other separators, zones in brackets, parts left out.
        if !has_form_of_rfc_3339(text) {
            return Err(no_time());
        }
        let moment = match text.parse::<jiff::Timestamp>() {
            Ok(moment) => moment.as_millisecond(),
            // Written well, and yet none that jiff can hold: the last day of the year 9999.
            Err(_) if jiff::fmt::temporal::Pieces::parse(text).is_ok() => return Err(out_of_range()),
            Err(_) => return Err(no_time()),
        };
        if (Self::MIN.0..=Self::MAX.0).contains(&moment) { Ok(Self(moment)) } else { Err(out_of_range()) }
    }
}

/// Whether all that a time has is where RFC 3339 has it: `2026-02-23T03:00:00`, a fraction or none, and `Z` or an offset of
/// less than a day. What the digits say is not looked at.
fn has_form_of_rfc_3339(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (Some((moment, rest)), true) = (text.split_at_checked(19), text.is_ascii()) else { return false };
    let has_form = moment.bytes().zip("0000-00-00T00:00:00".bytes()).all(|(byte, form)| match form {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        _ => byte == form,
    });
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|letter: char| letter.is_ascii_digit()),
        None => rest,
    };
    let has_fraction = zone.len() == rest.len() || rest.len() - zone.len() > 1;
    let has_zone = match zone.strip_prefix(['+', '-']).and_then(|offset| offset.split_once(':')) {
        Some((hours, minutes)) => {
            [hours, minutes].iter().all(|part| part.len() == 2 && digits(part))
                && hours < "24"
                && minutes < "60"
        }
        None => matches!(zone, "Z" | "z"),
    };
    has_form && has_fraction && has_zone
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
        for bad in [
            "",
            "now",
            "2026-02-23",
            "2026-02-23T03:00:00",
            "2026-13-01T00:00:00Z",
            "1771815600",
            "2026-11-01T00:00:00+25:00",
            "2026-11-01T00:00:00+01:60",
            "2026-11-01T00:00:00Z[Europe/Berlin]",
            "2026-11-01T00:00Z",
            "20261101T000000Z",
            "2026-11-01T00:00:00,5Z",
            "2026-11-01T00:00:00.Z",
            "2026-11-01T00:00:00+01",
            "2026-11-01T00:00:00+0100",
            "2026-11-01T00:00:00+01:00:30",
            "-000001-11-01T00:00:00Z",
            "2026-11-01T00:00:0éZ",
        ] {
            let complaint = bad.parse::<Timestamp>().expect_err(bad).complaint;
            assert!(complaint.contains("RFC 3339"), "{bad:?}: {complaint}");
        }
        for good in ["2026-11-01T00:00:00Z", "2026-11-01t00:00:00.123456789z", "2026-11-01 02:00:00-23:59"] {
            assert!(good.parse::<Timestamp>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_time_that_cannot_be_held_is_told_which_ones_can() {
        for late in ["9999-12-31T23:59:59.999Z", "9999-12-30T22:00:00.001Z"] {
            let complaint = late.parse::<Timestamp>().unwrap_err().complaint;
            assert_eq!(complaint, "must lie between 0000-01-01T00:00:00.000Z and 9999-12-30T22:00:00.000Z");
        }
    }
}
