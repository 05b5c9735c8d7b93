//! Whether the promises hold: the figures of a sale, judged. `flashsale verify` and the console say the same.

use flashsale_core::ports::Figures;
use serde::Serialize;

/// The judgement of a sale.
#[derive(Serialize, Clone)]
pub(crate) struct Verdict {
    /// Whether all promises hold.
    pub(crate) holds: bool,
    /// Each of them, checked.
    pub(crate) checks: Vec<Check>,
    /// What breaks no promise by itself, and wants a look all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

impl Verdict {
    /// Judges a sale by its figures.
    pub(crate) fn on(figures: &Figures) -> Self {
        let checks = checks(figures);
        Self { holds: checks.iter().all(|check| check.holds), checks, note: note(figures) }
    }
}

/// A promise, checked.
#[derive(Serialize, Clone)]
pub(crate) struct Check {
    /// Its number.
    pub(crate) promise: &'static str,
    /// What must hold.
    pub(crate) what: &'static str,
    /// By which figures it was judged.
    pub(crate) figures: String,
    /// Whether it does.
    pub(crate) holds: bool,
}

fn checks(figures: &Figures) -> Vec<Check> {
    let Figures { total_stock, available, reserved, confirmed, released, .. } = *figures;
    let live = reserved + confirmed;
    let check = |promise, what, figures, holds| Check { promise, what, figures, holds };
    let outcomes = figures.attempts_reserved
        + figures.attempts_sold_out
        + figures.attempts_duplicate
        + figures.attempts_not_active;
    vec![
        check("P1", "live orders ≤ stock", format!("{live} ≤ {total_stock}"), live <= total_stock),
        check(
            "P1",
            "no unit sold twice, none outside the stock",
            format!("{} twice, {} outside", figures.units_sold_twice, figures.units_outside_stock),
            figures.units_sold_twice + figures.units_outside_stock == 0,
        ),
        check(
            "P1",
            "the stock is the one on record",
            format!("{total_stock} = {}", figures.stock_on_record),
            total_stock == figures.stock_on_record,
        ),
        check(
            "P2",
            "no user holds two",
            counted(figures.users_with_two, "user"),
            figures.users_with_two == 0,
        ),
        check(
            "P4",
            "available + reserved + confirmed = total",
            format!("{available} + {reserved} + {confirmed} = {total_stock}"),
            available + live == total_stock,
        ),
        check(
            "P5",
            "nobody was told SOLD_OUT while a unit was free",
            format!("{} of {} were", figures.sold_out_too_early, figures.attempts_sold_out),
            figures.sold_out_too_early == 0,
        ),
        check(
            "P6",
            "every place of the sequence is on record",
            format!(
                "{}, {} missing, {} unexpected",
                counted(figures.records, "record"),
                figures.records_missing,
                figures.records_unexpected
            ),
            figures.records_missing + figures.records_unexpected == 0,
        ),
        check(
            "P6",
            "every attempt has its outcome",
            format!(
                "{} attempted = {} reserved + {} sold out + {} duplicate + {} not active",
                figures.attempted,
                figures.attempts_reserved,
                figures.attempts_sold_out,
                figures.attempts_duplicate,
                figures.attempts_not_active
            ),
            figures.attempted == outcomes,
        ),
        check(
            "P6",
            "every order and its reservation are on record",
            format!(
                "{} orders, {} reservations, {} without the other",
                live + released,
                figures.attempts_reserved,
                figures.orders_without_record
            ),
            figures.orders_without_record == 0 && live + released == figures.attempts_reserved,
        ),
        check(
            "P6",
            "every confirmation and every ending is on record",
            format!(
                "{} confirmations, {} without the other; {released} ended, {} without the other",
                figures.audited_confirmed,
                figures.confirmations_without_record,
                figures.endings_without_record
            ),
            figures.confirmations_without_record + figures.endings_without_record == 0
                && figures.audited_confirmed >= confirmed
                && figures.audited_confirmed <= confirmed + released,
        ),
        check(
            "P7",
            "no order of another epoch",
            format!("{} orders", figures.orders_of_other_epochs),
            figures.orders_of_other_epochs == 0,
        ),
    ]
}

/// What only people can judge. An order that is refused: a message that somebody forged, or a purchase that the database will
/// not take. A place that is missing: lost with a Redis before anybody was told, or deleted since.
fn note(figures: &Figures) -> Option<String> {
    let mut notes = Vec::new();
    if figures.orders_refused > 0 {
        notes.push(format!(
            "{} refused for good and put aside: each is a FAILED_DB in the audit trail, with the reason, and wants a look.",
            counted(figures.orders_refused, "order")
        ));
    }
    if figures.places_missing > 0 {
        notes.push(format!(
            "{} of the sequence on no record: lost with a Redis before anybody was told, or deleted since. SOLD_OUT that rests on such a place is not judged.",
            counted(figures.places_missing, "place")
        ));
    }
    (!notes.is_empty()).then(|| notes.join(" "))
}

/// So many of something, in words: `1 record`, `2 records`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use flashsale_core::ids::Epoch;

    use super::*;

    fn sound() -> Figures {
        Figures {
            epoch: Epoch(1),
            total_stock: 100,
            reserved: 1,
            confirmed: 99,
            released: 0,
            available: 0,
            users_with_two: 0,
            units_sold_twice: 0,
            units_outside_stock: 0,
            orders_of_other_epochs: 0,
            attempted: 10_000,
            attempts_reserved: 100,
            attempts_sold_out: 9_900,
            attempts_duplicate: 0,
            attempts_not_active: 0,
            audited_confirmed: 99,
            orders_without_record: 0,
            endings_without_record: 0,
            confirmations_without_record: 0,
            stock_on_record: 100,
            places_missing: 0,
            records: 10_100,
            records_missing: 0,
            records_unexpected: 0,
            orders_refused: 0,
            sold_out_too_early: 0,
        }
    }

    #[test]
    fn a_sound_sale_passes() {
        let verdict = Verdict::on(&sound());
        assert!(verdict.holds && verdict.note.is_none());
    }

    #[test]
    fn refused_orders_are_told_although_no_promise_is_broken() {
        let verdict = Verdict::on(&Figures { orders_refused: 2, ..sound() });
        assert!(verdict.holds);
        let note = verdict.note.expect("a note");
        assert!(note.starts_with("2 orders refused") && note.contains("FAILED_DB"), "{note}");
    }

    #[test]
    fn each_broken_promise_is_called_by_its_name() {
        type Breaks = fn(&mut Figures);
        let broken: [(&str, Breaks); 15] = [
            ("P1", |figures| figures.confirmed = 100),
            ("P1", |figures| figures.units_sold_twice = 1),
            ("P1", |figures| figures.units_outside_stock = 1),
            ("P1", |figures| figures.stock_on_record = 99),
            ("P2", |figures| figures.users_with_two = 1),
            ("P4", |figures| figures.available = 1),
            ("P5", |figures| figures.sold_out_too_early = 1),
            ("P6", |figures| figures.records_missing = 1),
            ("P6", |figures| figures.records_unexpected = 1),
            ("P6", |figures| figures.orders_without_record = 1),
            ("P6", |figures| figures.audited_confirmed -= 1),
            ("P6", |figures| figures.confirmations_without_record = 1),
            ("P6", |figures| figures.endings_without_record = 1),
            ("P6", |figures| figures.attempted += 1),
            ("P7", |figures| figures.orders_of_other_epochs = 1),
        ];
        for (promise, breaks) in broken {
            let mut figures = sound();
            breaks(&mut figures);
            let Verdict { holds, checks, .. } = Verdict::on(&figures);
            let named = checks.iter().any(|check| check.promise == promise && !check.holds);
            assert!(named && !holds, "{figures:?}");
        }
    }
}
