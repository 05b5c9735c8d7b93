//! Points and spans of time as text. Times are milliseconds since the Unix epoch; text is UTC. What differs by
//! language is handed in by [`super::words`].

use jiff::{Timestamp, tz::TimeZone};

/// For machines, as in `datetime="…"`: RFC 3339 UTC with milliseconds.
pub(super) fn rfc3339(at_ms: i64) -> String {
    format!("{:.3}", timestamp(at_ms))
}

/// For people: `23 Nov 2026, 10:00 UTC`, with seconds where a sale does not start on the minute.
///
/// `day` has `{d}`, `{m}` and `{y}` for day, month and year.
pub(super) fn readable(at_ms: i64, day: &str, months: &[&str; 12]) -> String {
    let on_the_minute = at_ms.rem_euclid(60_000) < 1_000;
    let at = timestamp(at_ms).to_zoned(TimeZone::UTC);
    // A month is 1 to 12.
    let month = months.get(usize::from(at.month().unsigned_abs()) - 1).copied().unwrap_or_default();
    let day = day
        .replace("{d}", &at.day().to_string())
        .replace("{m}", month)
        .replace("{y}", &at.year().to_string());
    let time = at.strftime(if on_the_minute { "%H:%M" } else { "%H:%M:%S" });
    format!("{day}, {time} UTC")
}

/// For people who read a log: `2026-11-23 10:00:00 UTC`.
pub(super) fn exact(at_ms: i64) -> String {
    timestamp(at_ms).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// For a field of the type `datetime-local`: UTC to the second, without an offset.
pub(crate) fn for_field(at_ms: i64) -> String {
    timestamp(at_ms).strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// What such a field means, in UTC; `None` if it is no time. Browsers leave out seconds that are zero.
pub(crate) fn from_field(text: &str) -> Option<i64> {
    let moment: jiff::civil::DateTime = text.trim().parse().ok()?;
    // A date alone would be midnight, which nobody typed.
    text.contains(['T', ' ']).then_some(())?;
    Some(jiff::tz::TimeZone::UTC.to_timestamp(moment).ok()?.as_millisecond())
}

/// A span in its two largest units, such as `9 min 12 s`; zero when it is over.
///
/// A begun second counts, so that a countdown shows `0 s` only once its end has come. A no-break space ties
/// each number to its unit. `assets/store.js` writes the same.
/// `units` are those for days, hours, minutes and seconds.
pub(super) fn span(ms: i64, units: &[&str; 4]) -> String {
    const SIZES: [i64; 4] = [86_400, 3_600, 60, 1];
    let seconds = ms.max(0).saturating_add(999) / 1_000;
    let Some(first) = SIZES.iter().position(|size| seconds >= *size) else {
        return format!("0\u{a0}{}", units[3]);
    };
    let mut rest = seconds;
    let mut parts = Vec::with_capacity(2);
    for (name, size) in units.iter().zip(SIZES).skip(first).take(2) {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count}\u{a0}{name}"));
        }
    }
    parts.join(" ")
}

/// Beyond the calendar (year 9999) the calendar's end is shown.
fn timestamp(at_ms: i64) -> Timestamp {
    let nearest = if at_ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_millisecond(at_ms).unwrap_or(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T10:00:00Z.
    const TEN: i64 = 1_795_428_000_000;
    const UNITS: [&str; 4] = ["d", "h", "min", "s"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

    fn readable(at_ms: i64) -> String {
        super::readable(at_ms, "{d} {m} {y}", &MONTHS)
    }

    fn span(ms: i64) -> String {
        super::span(ms, &UNITS)
    }

    #[test]
    fn machines_get_milliseconds_and_z() {
        assert_eq!(rfc3339(TEN), "2026-11-23T10:00:00.000Z");
        assert_eq!(rfc3339(TEN + 7), "2026-11-23T10:00:00.007Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    }

    #[test]
    fn people_get_seconds_only_where_they_matter() {
        assert_eq!(readable(TEN), "23 Nov 2026, 10:00 UTC");
        assert_eq!(readable(TEN + 30_000), "23 Nov 2026, 10:00:30 UTC");
        assert_eq!(readable(-30_000), "31 Dec 1969, 23:59:30 UTC");
    }

    #[test]
    fn a_field_is_utc_to_the_second() {
        assert_eq!(for_field(TEN + 30_999), "2026-11-23T10:00:30");
        assert_eq!(from_field("2026-11-23T10:00:30"), Some(TEN + 30_000));
        assert_eq!(from_field("2026-11-23T10:00"), Some(TEN));
        assert_eq!(from_field(" 2026-11-23T10:00:00.5 "), Some(TEN + 500));
        for wrong in
            ["", "now", "2026-11-23", "2026-11-23T10:00:00Z", "2026-13-01T00:00", "99999-01-01T00:00"]
        {
            assert_eq!(from_field(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn no_time_is_too_far() {
        assert!(rfc3339(i64::MAX).starts_with("9999-12-3"));
        assert!(rfc3339(i64::MIN).starts_with("-009999-01-0"));
        assert!(span(i64::MAX).ends_with('h'));
    }

    #[test]
    fn a_span_is_its_two_largest_units() {
        let seconds = |s: i64| span(s * 1_000).replace('\u{a0}', " ");
        assert_eq!(seconds(0), "0 s");
        assert_eq!(seconds(-5), "0 s");
        assert_eq!(seconds(12), "12 s");
        assert_eq!(seconds(9 * 60 + 12), "9 min 12 s");
        assert_eq!(seconds(9 * 60), "9 min");
        assert_eq!(seconds(3_600 + 59), "1 h");
        assert_eq!(seconds(5 * 3_600 + 61), "5 h 1 min");
        assert_eq!(seconds(2 * 86_400 + 4 * 3_600 + 99), "2 d 4 h");
    }

    #[test]
    fn a_begun_second_counts() {
        assert_eq!(span(1), "1\u{a0}s");
        assert_eq!(span(1_000), "1\u{a0}s");
        assert_eq!(span(1_001), "2\u{a0}s");
    }
}
