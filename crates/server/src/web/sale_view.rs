//! A sale as a visitor sees it, and the one state that is shown for it.

use super::moment;

/// What the pages know of a sale.
#[derive(Clone, Debug)]
pub(crate) struct SaleView {
    /// The sale's id, of `[A-Za-z0-9_-]{1,64}`.
    pub(crate) sale_id: String,
    /// The name that the shop gave it; any text.
    pub(crate) name: String,
    /// Units of the sale.
    pub(crate) total: u32,
    /// Units not yet reserved.
    pub(crate) remaining: u32,
    /// Units reserved or confirmed.
    pub(crate) sold: u32,
    /// Where the sale's window is, by the server's clock.
    pub(crate) phase: Phase,
    /// Whether an operator holds the sale.
    pub(crate) paused: bool,
    /// Start of the window, in Unix milliseconds.
    pub(crate) starts_at_ms: i64,
    /// End of the window, in Unix milliseconds.
    pub(crate) ends_at_ms: i64,
}

/// Where now is in a sale's window: before it, in it, after it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) enum Phase {
    /// The window is open. First, as in the list of sales.
    Live,
    /// The window opens later.
    Upcoming,
    /// The window has closed.
    Ended,
}

/// What a page says of a sale; made of phase, stock and pause.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    Upcoming,
    Live,
    /// Live, with at most a tenth of the units left.
    FewLeft,
    SoldOut,
    Paused,
    Ended,
}

impl State {
    /// The state's name in `data-state`, which style sheet and script know.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Upcoming => "upcoming",
            Self::Live => "live",
            Self::FewLeft => "few-left",
            Self::SoldOut => "sold-out",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }

    /// Whether an attempt made now can succeed.
    pub(crate) fn is_buyable(self) -> bool {
        matches!(self, Self::Live | Self::FewLeft)
    }
}

impl SaleView {
    /// The most final fact wins: what has ended is not also sold out, what is sold out not also paused.
    pub(crate) fn state(&self) -> State {
        let few = u64::from(self.remaining) * 10 <= u64::from(self.total);
        match self.phase {
            Phase::Ended => State::Ended,
            _ if self.remaining == 0 => State::SoldOut,
            _ if self.paused => State::Paused,
            Phase::Upcoming => State::Upcoming,
            Phase::Live if few => State::FewLeft,
            Phase::Live => State::Live,
        }
    }

    /// Whole percent of the units that are left, rounded down, but never 0 while there is one.
    pub(crate) fn percent_left(&self) -> u32 {
        let percent = u64::from(self.remaining) * 100 / u64::from(self.total.max(1));
        let floor = u64::from(self.remaining > 0);
        u32::try_from(percent.clamp(floor, 100)).unwrap_or(100)
    }

    /// `total` for people.
    pub(crate) fn total_text(&self) -> String {
        grouped(self.total)
    }

    /// `remaining` for people.
    pub(crate) fn remaining_text(&self) -> String {
        grouped(self.remaining)
    }

    /// `sold` for people.
    pub(crate) fn sold_text(&self) -> String {
        grouped(self.sold)
    }

    /// The time until the start; zero once it has come.
    pub(crate) fn starts_in(&self, now_ms: i64) -> String {
        moment::span(self.starts_at_ms.saturating_sub(now_ms))
    }

    /// The time until the end; zero once it has come.
    pub(crate) fn ends_in(&self, now_ms: i64) -> String {
        moment::span(self.ends_at_ms.saturating_sub(now_ms))
    }

    /// `starts_at_ms` for people.
    pub(crate) fn starts_at(&self) -> String {
        moment::readable(self.starts_at_ms)
    }

    /// `ends_at_ms` for people.
    pub(crate) fn ends_at(&self) -> String {
        moment::readable(self.ends_at_ms)
    }

    /// `starts_at_ms` for machines.
    pub(crate) fn starts_at_rfc3339(&self) -> String {
        moment::rfc3339(self.starts_at_ms)
    }

    /// `ends_at_ms` for machines.
    pub(crate) fn ends_at_rfc3339(&self) -> String {
        moment::rfc3339(self.ends_at_ms)
    }

    /// Place in the list: live first (those with units before those without), the next to start, the last to end.
    pub(super) fn list_order(&self) -> impl Ord + use<> {
        let time = match self.phase {
            Phase::Live => self.ends_at_ms,
            Phase::Upcoming => self.starts_at_ms,
            Phase::Ended => self.ends_at_ms.saturating_neg(),
        };
        (self.phase, self.remaining == 0, time, self.sale_id.clone())
    }
}

/// `100000` as `100,000`.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// 2026-11-23T10:00:00Z.
    pub(crate) const NOW_MS: i64 = 1_795_428_000_000;

    /// 95 of 100 left, ten minutes into an hour.
    pub(crate) fn live() -> SaleView {
        SaleView {
            sale_id: "sale_1".to_owned(),
            name: "Night Runner".to_owned(),
            total: 100,
            remaining: 95,
            sold: 5,
            phase: Phase::Live,
            paused: false,
            starts_at_ms: NOW_MS - 600_000,
            ends_at_ms: NOW_MS + 3_000_000,
        }
    }

    /// Starts in 9 min 12 s.
    pub(crate) fn upcoming() -> SaleView {
        let starts_at_ms = NOW_MS + 552_000;
        SaleView { phase: Phase::Upcoming, remaining: 100, sold: 0, starts_at_ms, ..live() }
    }

    #[test]
    fn few_left_is_a_tenth_or_less() {
        assert_eq!(live().state(), State::Live);
        assert_eq!(SaleView { remaining: 11, ..live() }.state(), State::Live);
        assert_eq!(SaleView { remaining: 10, ..live() }.state(), State::FewLeft);
        let huge = SaleView { total: u32::MAX, remaining: u32::MAX, ..live() };
        assert_eq!(huge.state(), State::Live);
    }

    #[test]
    fn the_most_final_fact_is_the_state() {
        let sold_out = SaleView { remaining: 0, paused: true, ..live() };
        assert_eq!(sold_out.state(), State::SoldOut);
        assert_eq!(SaleView { phase: Phase::Ended, ..sold_out }.state(), State::Ended);
        assert_eq!(SaleView { paused: true, ..live() }.state(), State::Paused);
        assert_eq!(SaleView { paused: true, ..upcoming() }.state(), State::Paused);
        assert_eq!(upcoming().state(), State::Upcoming);
    }

    #[test]
    fn only_what_can_succeed_is_buyable() {
        assert!(State::Live.is_buyable() && State::FewLeft.is_buyable());
        for state in [State::Upcoming, State::SoldOut, State::Paused, State::Ended] {
            assert!(!state.is_buyable(), "{state:?}");
        }
    }

    #[test]
    fn percent_is_zero_only_when_nothing_is_left() {
        let left = |remaining, total| SaleView { remaining, total, ..live() }.percent_left();
        assert_eq!(left(95, 100), 95);
        assert_eq!(left(1, 1_000_000), 1);
        assert_eq!(left(0, 100), 0);
        assert_eq!(left(0, 0), 0);
        assert_eq!(left(u32::MAX, u32::MAX), 100);
    }

    #[test]
    fn large_numbers_are_grouped() {
        let texts = [0, 999, 1_000, 100_000, u32::MAX].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "100,000", "4,294,967,295"]);
    }

    #[test]
    fn countdowns_run_to_the_window() {
        assert_eq!(upcoming().starts_in(NOW_MS), "9\u{a0}min 12\u{a0}s");
        assert_eq!(live().ends_in(NOW_MS), "50\u{a0}min");
        assert_eq!(live().starts_in(NOW_MS), "0\u{a0}s");
    }
}
