//! The form of a sale: what it begins with, and what was typed into it.

use flashsale_core::{
    clock::Timestamp,
    error::Invalid,
    product::{Price, Product, ProductChange},
    sale::{Sale, SaleChange},
    service::SaleRequest,
};
use sha2::{Digest, Sha256};

use super::Fields;
use crate::web::{
    console::{Field, Kind, SaleForm},
    moment,
};

const HOUR_MS: i64 = 3_600_000;
/// A new sale starts at the next moment that is a multiple of this.
const ROUND_MS: i64 = 600_000;

/// The fields of a sale, with the names that the API has for them.
const FIELDS: [(&str, &str, &str, Kind); 9] = [
    ("name", "Name", "What people call it, in up to 200 characters.", Kind::Text),
    ("saleId", "Sale ID", "In its address: A-Z, a-z, 0-9, _ and -. Left empty, one is made.", Kind::Id),
    ("totalStock", "Total stock", "Units in all, 1 to 10,000,000.", Kind::Number),
    ("startsAt", "Starts, UTC", "The first moment of the sale.", Kind::Moment),
    ("endsAt", "Ends, UTC", "The first moment after it.", Kind::Moment),
    ("price", "Price", "Of one unit, such as 129.00. Optional.", Kind::Amount),
    ("currency", "Currency", "Three capital letters, such as EUR.", Kind::Code),
    ("imageUrl", "Picture", "An https:// address, or a path of this site. Optional.", Kind::Text),
    (
        "description",
        "Description",
        "Plain text of up to 2,000 characters; line breaks count. Optional.",
        Kind::Lines,
    ),
];

/// An empty form, with a window that is a sensible beginning.
pub(super) fn blank(now: Timestamp) -> SaleForm {
    let (starts, ends) = next_window(now.as_millis(), HOUR_MS);
    form(|name| match name {
        "startsAt" => moment::for_field(starts),
        "endsAt" => moment::for_field(ends),
        _ => String::new(),
    })
}

/// A form for one more sale like `sale`: all but its id, and as long, from now on if it has begun.
pub(super) fn copy_of(sale: &Sale, now: Timestamp) -> SaleForm {
    let (starts, ends) = (sale.window.starts_at().as_millis(), sale.window.ends_at().as_millis());
    let (starts, ends) = if starts > now.as_millis() {
        (starts, ends)
    } else {
        next_window(now.as_millis(), ends.saturating_sub(starts))
    };
    form(|name| match name {
        "saleId" => String::new(),
        "startsAt" => moment::for_field(starts),
        "endsAt" => moment::for_field(ends),
        _ => value_of(sale, name),
    })
}

/// A form to change `sale`. It remembers what it showed, so that it changes only what was typed anew.
pub(super) fn of(sale: &Sale) -> SaleForm {
    let mut form = form(|name| value_of(sale, name));
    form.fields.retain(|field| field.name != "saleId");
    for field in &mut form.fields {
        field.was = Some(fingerprint(field.kind, &field.value));
    }
    form
}

/// The form as it came back, to be judged, and perhaps to be shown again.
pub(super) fn typed(fields: &Fields) -> SaleForm {
    let mut form = form(|name| fields.get(name).to_owned());
    for field in &mut form.fields {
        let was = fields.get(&format!("was.{}", field.name));
        field.was = Some(was.to_owned()).filter(|was| !was.is_empty());
    }
    form
}

/// The sale that is asked for, or the form with what is wrong.
pub(super) fn request(form: &mut SaleForm) -> Option<SaleRequest> {
    let (starts_at, ends_at) = (moment_of(form, "startsAt"), moment_of(form, "endsAt"));
    let (total_stock, price) = (stock_of(form), price_of(form));
    let text = |name| optional(form, name);
    let product = Product { description: text("description"), image_url: text("imageUrl"), price: price? };
    Some(SaleRequest {
        sale_id: text("saleId").map(|id| id.trim().to_owned()),
        name: form.value("name").trim().to_owned(),
        total_stock: total_stock?,
        starts_at: starts_at?,
        ends_at: ends_at?,
        product,
    })
}

/// What is to be changed, or the form with what is wrong. What was not typed anew stays as it has become meanwhile.
pub(super) fn change(form: &mut SaleForm) -> Option<SaleChange> {
    let anew = |form: &SaleForm, name| {
        let field = form.field(name);
        field.was.as_deref() != Some(fingerprint(field.kind, &field.value).as_str())
    };
    let text = |form: &SaleForm, name| anew(form, name).then(|| optional(form, name));
    let name = anew(form, "name").then(|| form.value("name").trim().to_owned());
    let (description, image_url) = (text(form, "description"), text(form, "imageUrl"));
    let (stock, starts, ends) = (anew(form, "totalStock"), anew(form, "startsAt"), anew(form, "endsAt"));
    let priced = anew(form, "price") || anew(form, "currency");
    let total_stock = stock.then(|| stock_of(form));
    let starts_at = starts.then(|| moment_of(form, "startsAt"));
    let ends_at = ends.then(|| moment_of(form, "endsAt"));
    let price = priced.then(|| price_of(form));
    // A value that was typed and is none has its complaint at its field by now.
    let complete =
        [total_stock.is_some_and(|stock| stock.is_none()), starts_at == Some(None), ends_at == Some(None)];
    if complete.contains(&true) || price == Some(None) {
        return None;
    }
    Some(SaleChange {
        name,
        total_stock: total_stock.flatten(),
        starts_at: starts_at.flatten(),
        ends_at: ends_at.flatten(),
        paused: None,
        product: ProductChange { description, image_url, price: price.flatten() },
        expected_stock: None,
    })
}

/// Puts a complaint at the field that it is about; `false` when there is no such field.
pub(super) fn complain(form: &mut SaleForm, Invalid { field, complaint }: &Invalid) -> bool {
    form.complain(field, sentence(complaint))
}

fn form(value: impl Fn(&str) -> String) -> SaleForm {
    let field = |(name, label, hint, kind)| Field {
        name,
        label,
        hint,
        kind,
        value: value(name),
        was: None,
        error: None,
    };
    SaleForm { fields: FIELDS.into_iter().map(field).collect(), error: None }
}

/// A text that may be left out. Browsers end lines as HTTP does, and texts here as everybody else.
fn optional(form: &SaleForm, name: &str) -> Option<String> {
    Some(form.value(name)).filter(|text| !text.trim().is_empty()).map(|text| text.replace("\r\n", "\n"))
}

fn value_of(sale: &Sale, name: &str) -> String {
    let product = &*sale.product;
    match name {
        "saleId" => sale.id.to_string(),
        "name" => sale.name.clone(),
        "totalStock" => sale.total_stock.to_string(),
        "startsAt" => moment::for_field(sale.window.starts_at().as_millis()),
        "endsAt" => moment::for_field(sale.window.ends_at().as_millis()),
        "price" => product.price.map(|price| price.amount()).unwrap_or_default(),
        "currency" => product.price.map(|price| price.currency().to_owned()).unwrap_or_default(),
        "imageUrl" => product.image_url.clone().unwrap_or_default(),
        _ => product.description.clone().unwrap_or_default(),
    }
}

/// What tells whether a field was typed anew, whichever way a browser writes the same value.
fn fingerprint(kind: Kind, value: &str) -> String {
    let canonical = match kind {
        Kind::Moment => moment::from_field(value).map_or_else(|| value.to_owned(), moment::for_field),
        Kind::Lines => value.replace("\r\n", "\n"),
        _ => value.trim().to_owned(),
    };
    Sha256::digest(canonical).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn next_window(now_ms: i64, long_ms: i64) -> (i64, i64) {
    let starts = now_ms.div_euclid(ROUND_MS).saturating_add(1).saturating_mul(ROUND_MS);
    (starts, starts.saturating_add(long_ms))
}

fn stock_of(form: &mut SaleForm) -> Option<u32> {
    let stock = whole_number(form.value("totalStock"));
    if stock.is_none() {
        form.complain("totalStock", "Must be a whole number from 1 to 10,000,000.".to_owned());
    }
    stock
}

/// A whole number as people write it: 10000, and in groups of three 10,000, 10.000, 10 000 or 10_000. What could be
/// meant otherwise (1,5) is none.
pub(super) fn whole_number(text: &str) -> Option<u32> {
    let text = text.trim();
    let Some(between) = text.chars().find(|letter| !letter.is_ascii_digit()) else {
        return text.parse().ok();
    };
    let is_grouped = [',', '.', ' ', '_', '\'', '’', '\u{a0}', '\u{202f}'].contains(&between)
        && text.split(between).enumerate().all(|(place, group)| match place {
            0 => (1..=3).contains(&group.len()),
            _ => group.len() == 3,
        });
    let digits = text.replace(between, "");
    // A sign or a second kind of separator is no digit, and so no number.
    let is_number = is_grouped && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(digits)?.parse().ok()
}

fn moment_of(form: &mut SaleForm, name: &'static str) -> Option<Timestamp> {
    let moment = moment::from_field(form.value(name)).map(Timestamp::from_millis);
    if moment.is_none() {
        form.complain(name, "Must be a date and a time, such as 2026-11-27T10:00:00.".to_owned());
    }
    moment
}

/// The price, which may be none; or nothing, with a complaint, when it is no price.
fn price_of(form: &mut SaleForm) -> Option<Option<Price>> {
    let (amount, currency) = (form.value("price").trim(), form.value("currency").trim().to_ascii_uppercase());
    let price = match (amount.is_empty(), currency.is_empty()) {
        (true, true) => return Some(None),
        (true, false) => Err(Invalid::new("price", "is needed with a currency, such as 129.00")),
        (false, true) => Err(Invalid::new("currency", "is needed with a price, such as EUR")),
        (false, false) => Price::new(amount, &currency),
    };
    price.map_err(|invalid| complain(form, &invalid)).ok().map(Some)
}

/// A complaint of the rules as a sentence: `must be later than startsAt` as `Must be later than startsAt.`
pub(super) fn sentence(complaint: &str) -> String {
    let complaint = complaint.replace("startsAt", "its start");
    let mut letters = complaint.chars();
    let first = letters.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(letters).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_may_be_grouped_by_three_and_nothing_else_is_guessed() {
        for (text, number) in [
            ("0", 0),
            (" 125 ", 125),
            ("10000", 10_000),
            ("10,000", 10_000),
            ("1.000", 1_000),
            ("10 000 000", 10_000_000),
            ("10_000", 10_000),
            ("1\u{202f}000", 1_000),
        ] {
            assert_eq!(whole_number(text), Some(number), "{text:?}");
        }
        for text in [
            "",
            "1,5",
            "1,0,0",
            "1,000.5",
            "1,000.000",
            ",100",
            "1000,000",
            "+5",
            "-5",
            "5e3",
            "1,+00",
            "99999999999",
        ] {
            assert_eq!(whole_number(text), None, "{text:?}");
        }
    }
}
