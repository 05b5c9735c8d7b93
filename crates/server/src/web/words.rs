//! Every word that a visitor reads, in each language that there is, and which of them a visitor gets.
//!
//! A language is one [`Words`]: the compiler sees to it that none is left out. The script holds no words; it shows and
//! hides what the page brings. Where a text takes a value, its `{}` is filled in by the method beside it.

use http::{HeaderMap, header};

use super::moment;

/// The pages' words in one language, and how it writes numbers, times and prices.
pub(crate) struct Words {
    /// As in `<html lang>`.
    pub(crate) lang: &'static str,

    // How it writes.
    /// Between groups of three digits.
    thousands: char,
    /// Before the cents.
    decimal: char,
    /// Whether a currency stands before its amount.
    currency_first: bool,
    /// A day: `{d}`, `{m}` and `{y}` stand for its parts.
    day: &'static str,
    /// As in a day, January first.
    months: [&'static str; 12],
    /// Days, hours, minutes and seconds, as in a countdown. None contains a space: the script takes them apart by it.
    units: [&'static str; 4],

    // Frame and list.
    pub(super) skip: &'static str,
    pub(super) footer: &'static str,
    pub(super) sales: &'static str,
    pub(super) all_sales: &'static str,
    pub(super) no_sales: &'static str,
    pub(super) no_sales_how: &'static str,
    pub(super) more: &'static str,

    // A sale's states.
    pub(super) upcoming: &'static str,
    pub(super) soon: &'static str,
    pub(super) live: &'static str,
    pub(super) few_left: &'static str,
    pub(super) held: &'static str,
    pub(super) sold_out: &'static str,
    pub(super) paused: &'static str,
    pub(super) ended: &'static str,
    pub(super) gone: &'static str,

    // A sale.
    pub(super) starts_in: &'static str,
    pub(super) ends_in: &'static str,
    of_left: &'static str,
    of_sold: &'static str,
    pub(super) units_left: &'static str,
    pub(super) starts: &'static str,
    pub(super) ends: &'static str,
    pub(super) units_in_all: &'static str,
    pub(super) sold: &'static str,

    // The form.
    pub(super) buy_one: &'static str,
    pub(super) check_one: &'static str,
    pub(super) user_id: &'static str,
    pub(super) user_id_hint: &'static str,
    pub(super) buy: &'static str,
    pub(super) buying: &'static str,
    pub(super) check: &'static str,
    pub(super) note_live: &'static str,
    pub(super) note_upcoming: &'static str,
    pub(super) note_reload: &'static str,
    pub(super) note_held: &'static str,
    note_sold_out: &'static str,
    note_only_one_sold: &'static str,
    pub(super) note_paused: &'static str,
    pub(super) note_ended: &'static str,
    pub(super) note_gone: &'static str,

    // The answers to an attempt, and to a lookup.
    pub(super) reserved_title: &'static str,
    pub(super) reserved_text: &'static str,
    pub(super) already_title: &'static str,
    pub(super) already_text: &'static str,
    pub(super) sold_out_title: &'static str,
    pub(super) sold_out_text: &'static str,
    pub(super) not_active_title: &'static str,
    pub(super) not_active_text: &'static str,
    pub(super) starts_on: &'static str,
    pub(super) ended_on: &'static str,
    pub(super) busy_title: &'static str,
    busy_text: &'static str,
    pub(super) unavailable_title: &'static str,
    pub(super) unavailable_text: &'static str,
    pub(super) invalid_title: &'static str,
    /// The `{}` is the rule that is broken; without one, all rules are told.
    invalid_text: &'static str,
    pub(super) order: &'static str,
    pub(super) order_reserved: &'static str,
    pub(super) order_confirmed: &'static str,
    purchased_by: &'static str,
    not_purchased_by: &'static str,
    pub(super) not_purchased_text: &'static str,

    // The line between page and shop.
    pub(super) lost_title: &'static str,
    pub(super) lost_text: &'static str,
    pub(super) again: &'static str,
    pub(super) away: &'static str,
    pub(super) slow: &'static str,

    // What is read out, and nowhere shown.
    pub(super) say_soon: &'static str,
    pub(super) say_final: &'static str,
    pub(super) say_live: &'static str,
    pub(super) say_half: &'static str,
    pub(super) say_quarter: &'static str,
    pub(super) say_few: &'static str,
    pub(super) say_away: &'static str,
    pub(super) say_back: &'static str,

    // What cannot be shown. Each is a title and what can be done.
    error_unknown: [&'static str; 2],
    error_request: [&'static str; 2],
    error_slow: [&'static str; 2],
    error_away: [&'static str; 2],
    error_ours: [&'static str; 2],
}

pub(crate) static ENGLISH: Words = Words {
    lang: "en",
    thousands: ',',
    decimal: '.',
    currency_first: true,
    day: "{d} {m} {y}",
    months: ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
    units: ["d", "h", "min", "s"],
    skip: "Skip to content",
    footer: "First come, first served. One purchase per user ID. All times are UTC.",
    sales: "Sales",
    all_sales: "All sales",
    no_sales: "No sales yet",
    no_sales_how: "Create one in the console, at /console, or on the command line, and it appears here:",
    more: "About this sale",
    upcoming: "Upcoming",
    soon: "About to start",
    live: "Live",
    few_left: "Few left",
    held: "All taken right now",
    sold_out: "Sold out",
    paused: "Paused",
    ended: "Ended",
    gone: "Taken down",
    starts_in: "Starts in",
    ends_in: "Ends in",
    of_left: "of {} left",
    of_sold: "of {} sold",
    units_left: "Units left",
    starts: "Starts",
    ends: "Ends",
    units_in_all: "Units",
    sold: "Sold",
    buy_one: "Buy one unit",
    check_one: "Check a purchase",
    user_id: "Your user ID",
    user_id_hint: "Any ID that you will know again, such as user123.",
    buy: "Buy now",
    buying: "One moment …",
    check: "Check my purchase",
    note_live: "One unit per user ID. Asking twice never buys twice.",
    note_upcoming: "Opens by itself at the start,",
    note_reload: "Without a script, load this page again then.",
    note_held: "All units are taken right now. Should one come back, this page shows it.",
    note_sold_out: "All {} units are taken.",
    note_only_one_sold: "The only unit is taken.",
    note_paused: "The shop has paused this sale. Units that are purchased stay so.",
    note_ended: "This sale is over. Purchases stay on record.",
    note_gone: "The shop has taken this sale down.",
    reserved_title: "Purchase reserved successfully",
    reserved_text: "One unit is yours.",
    already_title: "You have already purchased from this sale",
    already_text: "Your unit stays yours, and nothing was bought twice.",
    sold_out_title: "Sale is sold out",
    sold_out_text: "Every unit was taken before your attempt arrived.",
    not_active_title: "Sale is not currently active",
    not_active_text: "Your attempt came outside its time, or while it was paused.",
    starts_on: "It starts on",
    ended_on: "It ended on",
    busy_title: "We are at capacity right now, your attempt was not counted",
    busy_text: "Try again in {} s.",
    unavailable_title: "Sales are paused because the store cannot record them right now",
    unavailable_text: "Try again in a moment. A second attempt never takes a second unit.",
    invalid_title: "Error in your user ID",
    invalid_text: "A user ID {}.",
    order: "Order",
    order_reserved: "the unit is yours, confirmation follows.",
    order_confirmed: "the order is complete.",
    purchased_by: "Purchased by {}",
    not_purchased_by: "Not purchased by {}",
    not_purchased_text: "There is no order of this user ID in this sale.",
    lost_title: "The answer did not arrive",
    lost_text: "Your attempt may have been counted, or not. Trying again is safe: a user ID gets one unit, however often you ask.",
    again: "Try again",
    away: "The shop cannot be reached right now. This page keeps trying. Its figures are from",
    slow: "The line is slow. These figures are from",
    say_soon: "The sale starts in less than a minute.",
    say_final: "Ten seconds to the start.",
    say_live: "The sale is open. You can buy now.",
    say_half: "Half of the units are taken.",
    say_quarter: "A quarter of the units is left.",
    say_few: "Few units are left.",
    say_away: "The shop cannot be reached right now. This page keeps trying.",
    say_back: "The shop can be reached again.",
    error_unknown: ["Not found", "It may have been taken down, or the address has a slip of the pen."],
    error_request: ["This cannot be read", "Go back, and try once more."],
    error_slow: ["It took too long", "Your request did not arrive in time. Trying again is safe."],
    error_away: [
        "One moment, please",
        "The shop cannot answer right now. Load this page again in a few seconds.",
    ],
    error_ours: ["Something is broken here", "It is not your fault. Load this page again in a moment."],
};

pub(crate) static GERMAN: Words = Words {
    lang: "de",
    thousands: '.',
    decimal: ',',
    currency_first: false,
    day: "{d}. {m} {y}",
    months: ["Jan.", "Feb.", "März", "Apr.", "Mai", "Juni", "Juli", "Aug.", "Sept.", "Okt.", "Nov.", "Dez."],
    units: ["Tg.", "Std.", "Min.", "Sek."],
    skip: "Zum Inhalt springen",
    footer: "Wer zuerst kommt, kauft zuerst. Ein Kauf je Nutzer-ID. Alle Zeiten sind in UTC.",
    sales: "Verkäufe",
    all_sales: "Alle Verkäufe",
    no_sales: "Noch keine Verkäufe",
    no_sales_how: "Legen Sie einen in der Konsole unter /console an oder auf der Kommandozeile, dann steht er hier:",
    more: "Zu diesem Verkauf",
    upcoming: "Demnächst",
    soon: "Gleich geht es los",
    live: "Läuft",
    few_left: "Nur noch wenige",
    held: "Zurzeit alle vergeben",
    sold_out: "Ausverkauft",
    paused: "Angehalten",
    ended: "Beendet",
    gone: "Zurückgezogen",
    starts_in: "Beginnt in",
    ends_in: "Endet in",
    of_left: "von {} übrig",
    of_sold: "von {} verkauft",
    units_left: "Übrige Stücke",
    starts: "Beginn",
    ends: "Ende",
    units_in_all: "Stücke",
    sold: "Verkauft",
    buy_one: "Ein Stück kaufen",
    check_one: "Einen Kauf prüfen",
    user_id: "Ihre Nutzer-ID",
    user_id_hint: "Eine ID, die Sie wiedererkennen, etwa user123.",
    buy: "Jetzt kaufen",
    buying: "Einen Moment …",
    check: "Meinen Kauf prüfen",
    note_live: "Ein Stück je Nutzer-ID. Wer zweimal fragt, kauft nicht zweimal.",
    note_upcoming: "Öffnet zum Beginn von selbst,",
    note_reload: "Ohne Skript laden Sie diese Seite dann neu.",
    note_held: "Zurzeit sind alle Stücke vergeben. Wird eines frei, zeigt es diese Seite.",
    note_sold_out: "Alle {} Stücke sind vergeben.",
    note_only_one_sold: "Das einzige Stück ist vergeben.",
    note_paused: "Der Shop hat diesen Verkauf angehalten. Was gekauft ist, bleibt gekauft.",
    note_ended: "Dieser Verkauf ist vorbei. Käufe bleiben verzeichnet.",
    note_gone: "Der Shop hat diesen Verkauf zurückgezogen.",
    reserved_title: "Kauf erfolgreich reserviert",
    reserved_text: "Ein Stück gehört Ihnen.",
    already_title: "Sie haben in diesem Verkauf bereits gekauft",
    already_text: "Ihr Stück bleibt Ihres, und nichts wurde doppelt gekauft.",
    sold_out_title: "Der Verkauf ist ausverkauft",
    sold_out_text: "Alle Stücke waren vergeben, bevor Ihr Versuch ankam.",
    not_active_title: "Der Verkauf läuft gerade nicht",
    not_active_text: "Ihr Versuch kam außerhalb seiner Zeit, oder während er angehalten war.",
    starts_on: "Er beginnt am",
    ended_on: "Er endete am",
    busy_title: "Gerade ist zu viel los, Ihr Versuch wurde nicht gezählt",
    busy_text: "Versuchen Sie es in {} s noch einmal.",
    unavailable_title: "Zurzeit wird nichts verkauft, weil nichts verzeichnet werden kann",
    unavailable_text: "Versuchen Sie es gleich noch einmal. Ein zweiter Versuch nimmt nie ein zweites Stück.",
    invalid_title: "Fehler in Ihrer Nutzer-ID",
    invalid_text: "Eine Nutzer-ID darf nicht leer sein, hat höchstens 255 Bytes und keine Steuerzeichen.",
    order: "Bestellung",
    order_reserved: "Das Stück gehört Ihnen, die Bestätigung folgt.",
    order_confirmed: "Die Bestellung ist vollständig.",
    purchased_by: "Gekauft von {}",
    not_purchased_by: "Nicht gekauft von {}",
    not_purchased_text: "In diesem Verkauf gibt es keine Bestellung dieser Nutzer-ID.",
    lost_title: "Die Antwort kam nicht an",
    lost_text: "Ihr Versuch wurde vielleicht gezählt, vielleicht nicht. Ein neuer Versuch schadet nie: Eine Nutzer-ID bekommt ein Stück, wie oft Sie auch fragen.",
    again: "Noch einmal versuchen",
    away: "Der Shop ist gerade nicht zu erreichen. Diese Seite versucht es weiter. Ihre Zahlen sind von",
    slow: "Die Leitung ist langsam. Diese Zahlen sind von",
    say_soon: "Der Verkauf beginnt in weniger als einer Minute.",
    say_final: "Noch zehn Sekunden bis zum Beginn.",
    say_live: "Der Verkauf ist offen. Sie können jetzt kaufen.",
    say_half: "Die Hälfte der Stücke ist vergeben.",
    say_quarter: "Ein Viertel der Stücke ist übrig.",
    say_few: "Nur noch wenige Stücke sind übrig.",
    say_away: "Der Shop ist gerade nicht zu erreichen. Diese Seite versucht es weiter.",
    say_back: "Der Shop ist wieder zu erreichen.",
    error_unknown: [
        "Nicht gefunden",
        "Vielleicht wurde es zurückgezogen, oder die Adresse hat einen Tippfehler.",
    ],
    error_request: ["Das lässt sich nicht lesen", "Gehen Sie zurück, und versuchen Sie es noch einmal."],
    error_slow: [
        "Es hat zu lange gedauert",
        "Ihre Anfrage kam nicht rechtzeitig an. Ein neuer Versuch schadet nie.",
    ],
    error_away: [
        "Einen Moment, bitte",
        "Der Shop kann gerade nicht antworten. Laden Sie diese Seite in ein paar Sekunden neu.",
    ],
    error_ours: [
        "Hier ist etwas kaputt",
        "Es liegt nicht an Ihnen. Laden Sie diese Seite gleich noch einmal.",
    ],
};

/// Currencies that have a sign of their own everywhere; all others go by their code.
const SIGNS: [(&str, &str); 5] = [("EUR", "€"), ("USD", "$"), ("GBP", "£"), ("JPY", "¥"), ("INR", "₹")];

impl Words {
    /// The language that the visitor asks for in `Accept-Language`; English for those who ask for none that is here.
    pub(crate) fn asked_for(headers: &HeaderMap) -> &'static Self {
        let lines =
            headers.get_all(header::ACCEPT_LANGUAGE).into_iter().filter_map(|line| line.to_str().ok());
        let mut best = (0.0, &ENGLISH);
        for (words, weight) in lines.flat_map(|line| line.split(',')).filter_map(wish) {
            // The first of those that weigh the same wins.
            if weight > best.0 {
                best = (weight, words);
            }
        }
        best.1
    }

    /// A whole number, in groups of three digits.
    pub(crate) fn number(&self, number: u32) -> String {
        self.grouped(&number.to_string())
    }

    fn grouped(&self, digits: &str) -> String {
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(self.thousands);
            }
            text.push(digit);
        }
        text
    }

    /// A price, of an amount such as `1299.00` and a currency such as `EUR`.
    pub(super) fn price(&self, amount: &str, currency: &str) -> String {
        let (whole, cents) = amount.split_once('.').unwrap_or((amount, ""));
        let decimal = if cents.is_empty() { String::new() } else { format!("{}{cents}", self.decimal) };
        let amount = format!("{}{decimal}", self.grouped(whole));
        let sign = SIGNS.iter().find(|(code, _)| *code == currency).map(|(_, sign)| *sign);
        match (self.currency_first, sign) {
            (true, Some(sign)) => format!("{sign}{amount}"),
            (true, None) => format!("{currency}\u{a0}{amount}"),
            (false, sign) => format!("{amount}\u{a0}{}", sign.unwrap_or(currency)),
        }
    }

    /// A point of time, such as `23 Nov 2026, 10:00 UTC`.
    pub(super) fn moment(&self, at_ms: i64) -> String {
        moment::readable(at_ms, self.day, &self.months)
    }

    /// A span of time, such as `9 min 12 s`.
    pub(super) fn span(&self, ms: i64) -> String {
        moment::span(ms, &self.units)
    }

    /// The units of [`Self::span`], for the script, which writes the same.
    pub(super) fn units(&self) -> String {
        self.units.join(" ")
    }

    pub(super) fn of_left(&self, total: u32) -> String {
        filled(self.of_left, &self.number(total))
    }

    pub(super) fn of_sold(&self, total: u32) -> String {
        filled(self.of_sold, &self.number(total))
    }

    pub(super) fn note_sold_out(&self, total: u32) -> String {
        if total == 1 {
            return self.note_only_one_sold.to_owned();
        }
        filled(self.note_sold_out, &self.number(total))
    }

    pub(super) fn busy_text(&self, seconds: &u64) -> String {
        filled(self.busy_text, &seconds.to_string())
    }

    /// What is wrong with a user id that "must not …".
    pub(crate) fn invalid_text(&self, complaint: &str) -> String {
        filled(self.invalid_text, complaint)
    }

    pub(super) fn purchased_by(&self, user_id: &str) -> String {
        filled(self.purchased_by, user_id)
    }

    pub(super) fn not_purchased_by(&self, user_id: &str) -> String {
        filled(self.not_purchased_by, user_id)
    }

    /// Title and advice for an error of that HTTP status.
    pub(super) fn error(&self, status: u16) -> [&'static str; 2] {
        match status {
            404 => self.error_unknown,
            408 => self.error_slow,
            503 => self.error_away,
            400..500 => self.error_request,
            _ => self.error_ours,
        }
    }
}

/// A language of `Accept-Language` that is here, and how much it is wanted: `de-AT;q=0.8` wants German by 0.8.
fn wish(element: &str) -> Option<(&'static Words, f32)> {
    let (range, parameters) = element.split_once(';').unwrap_or((element, ""));
    let weight = match parameters.trim().strip_prefix("q=") {
        Some(weight) => weight.trim().parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?,
        None => 1.0,
    };
    let language = range.trim().split('-').next().unwrap_or_default();
    let words = [&ENGLISH, &GERMAN].into_iter().find(|words| language.eq_ignore_ascii_case(words.lang))?;
    Some((words, weight))
}

fn filled(text: &str, value: &str) -> String {
    text.replacen("{}", value, 1)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn asked(lines: &[&'static str]) -> &'static str {
        let lines = lines.iter().map(|line| (header::ACCEPT_LANGUAGE, HeaderValue::from_static(line)));
        Words::asked_for(&lines.collect()).lang
    }

    #[test]
    fn the_language_is_the_one_that_is_wanted_most() {
        for (line, lang) in [
            ("de", "de"),
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("DE-ch", "de"),
            ("en-GB,de;q=0.9", "en"),
            ("en;q=0.3, de;q=0.7", "de"),
            ("fr, de;q=0.2, en;q=0.1", "de"),
            ("de;q=0.5,en;q=0.5", "de"),
            ("de;q=0,fr", "en"),
            ("de; q=0.000", "en"),
            ("fr,ja;q=0.5", "en"),
            ("*", "en"),
            ("", "en"),
            ("den", "en"),
            ("de;q=2", "en"),
            ("de;q=much", "en"),
        ] {
            assert_eq!(asked(&[line]), lang, "{line}");
        }
        assert_eq!(asked(&[]), "en");
        assert_eq!(asked(&["fr", "de"]), "de");
    }

    #[test]
    fn numbers_are_grouped_as_the_language_does() {
        let texts = |words: &Words| [0, 999, 1_000, 100_000, u32::MAX].map(|number| words.number(number));
        assert_eq!(texts(&ENGLISH), ["0", "999", "1,000", "100,000", "4,294,967,295"]);
        assert_eq!(texts(&GERMAN), ["0", "999", "1.000", "100.000", "4.294.967.295"]);
    }

    #[test]
    fn a_price_is_written_as_the_language_does() {
        for (amount, currency, english, german) in [
            ("129.00", "EUR", "€129.00", "129,00\u{a0}€"),
            ("1299.50", "USD", "$1,299.50", "1.299,50\u{a0}$"),
            ("1500", "JPY", "¥1,500", "1.500\u{a0}¥"),
            ("129.00", "CHF", "CHF\u{a0}129.00", "129,00\u{a0}CHF"),
        ] {
            assert_eq!(ENGLISH.price(amount, currency), english);
            assert_eq!(GERMAN.price(amount, currency), german);
        }
    }

    #[test]
    fn times_are_written_as_the_language_does() {
        // 2026-11-23T10:00:00Z.
        let ten = 1_795_428_000_000;
        assert_eq!(ENGLISH.moment(ten), "23 Nov 2026, 10:00 UTC");
        assert_eq!(GERMAN.moment(ten), "23. Nov. 2026, 10:00 UTC");
        assert_eq!(GERMAN.span(552_000), "9\u{a0}Min. 12\u{a0}Sek.");
    }

    #[test]
    fn a_value_takes_its_place_in_the_text() {
        assert_eq!(ENGLISH.of_left(1_000), "of 1,000 left");
        assert_eq!(GERMAN.of_left(1_000), "von 1.000 übrig");
        assert_eq!(ENGLISH.purchased_by("{}"), "Purchased by {}");
        assert_eq!(ENGLISH.invalid_text("must not be empty"), "A user ID must not be empty.");
        assert!(GERMAN.invalid_text("must not be empty").contains("nicht leer"));
    }

    #[test]
    fn every_status_has_a_title_and_advice() {
        for status in [400, 404, 408, 413, 415, 422, 500, 503] {
            for words in [&ENGLISH, &GERMAN] {
                assert!(words.error(status).iter().all(|text| !text.is_empty()), "{status}");
            }
        }
    }

    #[test]
    fn the_script_can_take_the_units_apart() {
        for words in [&ENGLISH, &GERMAN] {
            assert_eq!(words.units().split(' ').count(), 4);
        }
    }
}
