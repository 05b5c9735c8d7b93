//! A sale as a visitor sees it, and the one state that is shown for it.

use super::{moment, words::Words};

/// How long before the start a sale is about to start, in milliseconds.
const SOON_MS: i64 = 60_000;

/// What the pages know of a sale.
#[derive(Clone, Debug)]
pub(crate) struct SaleView {
    /// The sale's id, of `[A-Za-z0-9_-]{1,64}`.
    pub(crate) sale_id: String,
    /// The name that the shop gave it; any text.
    pub(crate) name: String,
    /// What the shop says of the product; any text, lines included.
    pub(crate) description: Option<String>,
    /// The product's picture: an address by HTTPS, or a path of this site.
    pub(crate) image_url: Option<String>,
    /// The product's price: an amount such as `129.00`, and a currency such as `EUR`.
    pub(crate) price: Option<(String, String)>,
    /// Units of the sale.
    pub(crate) total: u32,
    /// Units not yet reserved.
    pub(crate) remaining: u32,
    /// Units reserved or confirmed.
    pub(crate) sold: u32,
    /// Of the units that are sold, those whose orders are still to be confirmed.
    pub(crate) reserved: u32,
    /// Where the sale's window is, by the server's clock.
    pub(crate) phase: Phase,
    /// Whether an operator holds the sale.
    pub(crate) paused: bool,
    /// Start of the window, in Unix milliseconds.
    pub(crate) starts_at_ms: i64,
    /// End of the window, in Unix milliseconds.
    pub(crate) ends_at_ms: i64,
    /// The moment of all this, in Unix milliseconds.
    pub(crate) now_ms: i64,
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
    /// Upcoming, and it starts within the minute.
    Soon,
    Live,
    /// Live, with at most a tenth of the units left.
    FewLeft,
    /// Every unit is taken, but not all of them for good: one may come back.
    Held,
    SoldOut,
    Paused,
    Ended,
}

impl State {
    /// The state's name in `data-state` and `data-show`, which style sheet and script know.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Upcoming => "upcoming",
            Self::Soon => "soon",
            Self::Live => "live",
            Self::FewLeft => "few-left",
            Self::Held => "held",
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
    ///
    /// `stateOf` in `assets/store.js` judges the same, between two loads of a page.
    pub(crate) fn state(&self) -> State {
        let few = u64::from(self.remaining) * 10 <= u64::from(self.total);
        let soon = self.starts_at_ms.saturating_sub(self.now_ms) <= SOON_MS;
        match self.phase {
            Phase::Ended => State::Ended,
            _ if self.remaining == 0 && self.reserved > 0 => State::Held,
            _ if self.remaining == 0 => State::SoldOut,
            _ if self.paused => State::Paused,
            Phase::Upcoming if soon => State::Soon,
            Phase::Upcoming => State::Upcoming,
            Phase::Live if few => State::FewLeft,
            Phase::Live => State::Live,
        }
    }

    /// The attributes of a part that is for some states only, such as `live few-left`.
    ///
    /// The script shows and hides such parts when the state changes; without it, a part stays as it came.
    pub(super) fn show(&self, states: &str) -> String {
        let shown = states.split(' ').any(|state| state == self.state().key());
        format!("data-show=\"{states}\"{}", if shown { "" } else { " hidden" })
    }

    /// Whole percent of the units that are left, rounded down, but never 0 while there is one.
    pub(crate) fn percent_left(&self) -> u32 {
        let percent = u64::from(self.remaining) * 100 / u64::from(self.total.max(1));
        let floor = u64::from(self.remaining > 0);
        u32::try_from(percent.clamp(floor, 100)).unwrap_or(100)
    }

    /// The price as the language writes it, where there is one.
    pub(super) fn price_text(&self, words: &Words) -> Option<String> {
        self.price.as_ref().map(|(amount, currency)| words.price(amount, currency))
    }

    /// `remaining` for people.
    pub(super) fn remaining_text(&self, words: &Words) -> String {
        words.number(self.remaining)
    }

    /// `total` for people.
    pub(super) fn total_text(&self, words: &Words) -> String {
        words.number(self.total)
    }

    /// `sold` for people.
    pub(super) fn sold_text(&self, words: &Words) -> String {
        words.number(self.sold)
    }

    /// What stands behind the units that are left: `of 100 left`.
    pub(super) fn of_left(&self, words: &Words) -> String {
        words.of_left(self.total)
    }

    /// What stands behind the units that are sold: `of 100 sold`.
    pub(super) fn of_sold(&self, words: &Words) -> String {
        words.of_sold(self.total)
    }

    /// That all of the units are taken.
    pub(super) fn note_sold_out(&self, words: &Words) -> String {
        words.note_sold_out(self.total)
    }

    /// `starts_at_ms` for people.
    pub(super) fn starts_at(&self, words: &Words) -> String {
        words.moment(self.starts_at_ms)
    }

    /// `ends_at_ms` for people.
    pub(super) fn ends_at(&self, words: &Words) -> String {
        words.moment(self.ends_at_ms)
    }

    /// The time until the start; zero once it has come.
    pub(crate) fn starts_in(&self, words: &Words) -> String {
        words.span(self.starts_at_ms.saturating_sub(self.now_ms))
    }

    /// The time until the end; zero once it has come.
    pub(crate) fn ends_in(&self, words: &Words) -> String {
        words.span(self.ends_at_ms.saturating_sub(self.now_ms))
    }

    /// `starts_at_ms` for machines.
    pub(crate) fn starts_at_rfc3339(&self) -> String {
        moment::rfc3339(self.starts_at_ms)
    }

    /// `ends_at_ms` for machines.
    pub(crate) fn ends_at_rfc3339(&self) -> String {
        moment::rfc3339(self.ends_at_ms)
    }

    /// Place in the list: live first (those that one can buy before those that one cannot), the next to start, the last to end.
    pub(super) fn list_order(&self) -> impl Ord + use<> {
        let time = match self.phase {
            Phase::Live => self.ends_at_ms,
            Phase::Upcoming => self.starts_at_ms,
            Phase::Ended => self.ends_at_ms.saturating_neg(),
        };
        (self.phase, !self.state().is_buyable(), time, self.sale_id.clone())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::words::ENGLISH;
    use super::*;

    /// 2026-11-23T10:00:00Z.
    pub(crate) const NOW_MS: i64 = 1_795_428_000_000;

    /// 95 of 100 left, ten minutes into an hour.
    pub(crate) fn live() -> SaleView {
        SaleView {
            sale_id: "sale_1".to_owned(),
            name: "Night Runner".to_owned(),
            description: None,
            image_url: None,
            price: None,
            total: 100,
            remaining: 95,
            sold: 5,
            reserved: 0,
            phase: Phase::Live,
            paused: false,
            starts_at_ms: NOW_MS - 600_000,
            ends_at_ms: NOW_MS + 3_000_000,
            now_ms: NOW_MS,
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
        for state in [State::Upcoming, State::Soon, State::Held, State::SoldOut, State::Paused, State::Ended]
        {
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
    fn all_taken_is_sold_out_only_when_all_are_taken_for_good() {
        let taken = |reserved| SaleView { remaining: 0, sold: 100, reserved, ..live() };
        assert_eq!(taken(1).state(), State::Held);
        assert_eq!(taken(0).state(), State::SoldOut);
        assert_eq!(SaleView { phase: Phase::Ended, ..taken(1) }.state(), State::Ended);
    }

    #[test]
    fn the_last_minute_before_the_start_is_a_state() {
        let before = |ms| SaleView { starts_at_ms: NOW_MS + ms, ..upcoming() }.state();
        assert_eq!(before(60_001), State::Upcoming);
        assert_eq!(before(60_000), State::Soon);
        assert_eq!(before(1), State::Soon);
    }

    #[test]
    fn a_part_is_hidden_in_all_other_states() {
        assert_eq!(live().show("live few-left"), "data-show=\"live few-left\"");
        assert_eq!(live().show("few-left"), "data-show=\"few-left\" hidden");
    }

    #[test]
    fn countdowns_run_to_the_window() {
        assert_eq!(upcoming().starts_in(&ENGLISH), "9\u{a0}min 12\u{a0}s");
        assert_eq!(live().ends_in(&ENGLISH), "50\u{a0}min");
        assert_eq!(live().starts_in(&ENGLISH), "0\u{a0}s");
    }
}
