//! What a sale sells, as its pages show it: a text, a picture, a price. It decides nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Invalid;

/// The longest description, in characters.
pub const DESCRIPTION_MAX: usize = 2_000;
/// The longest address of a picture, in bytes.
pub const IMAGE_URL_MAX: usize = 2_000;
/// The highest price, in the currency's smallest unit.
const MINOR_MAX: u64 = 1_000_000_000_000;

/// Currencies whose smallest unit is the unit itself, by ISO 4217.
const WITHOUT_DECIMALS: [&str; 16] = [
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF",
    "XOF",
];
/// Currencies that are divided by a thousand.
const WITH_THREE_DECIMALS: [&str; 7] = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"];

/// The text, picture and price of what a sale sells; each may be missing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Product {
    /// What it is, in plain text; line breaks count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where its picture is: an `https:` or `http:` URL, or a path of the same site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// What one unit costs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
}

impl Product {
    /// The product, where its texts and its address are allowed.
    ///
    /// # Errors
    /// The first value that is not.
    pub fn checked(self) -> Result<Self, Invalid> {
        Ok(Self {
            description: self.description.map(valid_description).transpose()?,
            image_url: self.image_url.map(valid_image_url).transpose()?,
            price: self.price,
        })
    }
}

/// What to change of a product: `None` leaves a value as it is, `Some(None)` takes it away.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProductChange {
    /// A new description.
    pub description: Option<Option<String>>,
    /// A new picture.
    pub image_url: Option<Option<String>>,
    /// A new price.
    pub price: Option<Option<Price>>,
}

impl ProductChange {
    /// The product as the change would make it.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn applied_to(&self, product: &Product) -> Result<Product, Invalid> {
        let Self { description, image_url, price } = self.clone();
        let product = product.clone();
        Product {
            description: description.unwrap_or(product.description),
            image_url: image_url.unwrap_or(product.image_url),
            price: price.unwrap_or(product.price),
        }
        .checked()
    }
}

/// A price, exact: an amount in the smallest unit of its currency.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Price {
    minor: u64,
    currency: [u8; 3],
}

impl Price {
    /// A price from a decimal amount such as `129.00` or `129`, and a currency's code such as `EUR`.
    ///
    /// # Errors
    /// An amount that is none, is negative, too high, or finer than its currency; a code that is none.
    pub fn new(amount: &str, currency: &str) -> Result<Self, Invalid> {
        let code = <[u8; 3]>::try_from(currency.as_bytes()).ok();
        let code = code.filter(|code| code.iter().all(u8::is_ascii_uppercase)).ok_or_else(|| {
            Invalid::new("currency", "must be a code of ISO 4217, three capital letters such as EUR")
        })?;
        let decimals = decimals_of(currency);
        let minor = minor_of(amount, decimals).ok_or_else(|| {
            let example = if decimals == 0 { "129" } else { "129.00" };
            Invalid::new(
                "price",
                format!(
                    "must be a decimal such as {example}, not negative, with at most {decimals} decimals in {currency}"
                ),
            )
        })?;
        if minor > MINOR_MAX {
            return Err(Invalid::new(
                "price",
                format!("must be at most {MINOR_MAX} of the smallest units of {currency}"),
            ));
        }
        Ok(Self { minor, currency: code })
    }

    /// The amount as a decimal, with all the decimals of its currency: `129.00`.
    #[must_use]
    pub fn amount(&self) -> String {
        let decimals = decimals_of(self.currency());
        let digits = format!("{:0>width$}", self.minor, width = decimals + 1);
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
    }

    /// The code of its currency by ISO 4217.
    #[must_use]
    pub fn currency(&self) -> &str {
        std::str::from_utf8(&self.currency).expect("a code is three capital letters")
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.amount(), self.currency())
    }
}

/// A price as it is kept.
#[derive(Serialize, Deserialize)]
struct Written {
    amount: String,
    currency: String,
}

impl From<Price> for Written {
    fn from(price: Price) -> Self {
        Self { amount: price.amount(), currency: price.currency().to_owned() }
    }
}

impl TryFrom<Written> for Price {
    type Error = Invalid;

    fn try_from(written: Written) -> Result<Self, Invalid> {
        Self::new(&written.amount, &written.currency)
    }
}

fn decimals_of(currency: &str) -> usize {
    if WITHOUT_DECIMALS.contains(&currency) {
        0
    } else if WITH_THREE_DECIMALS.contains(&currency) {
        3
    } else {
        2
    }
}

/// A decimal amount in the smallest unit.
fn minor_of(amount: &str, decimals: usize) -> Option<u64> {
    let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let well_formed = !whole.is_empty() && digits(whole) && digits(fraction) && !amount.ends_with('.');
    // Decimals beyond those of the currency say nothing when they are zero: 129.0 of a currency without any.
    let fraction = fraction.trim_end_matches('0');
    if !well_formed || fraction.len() > decimals {
        return None;
    }
    format!("{whole}{fraction:0<decimals$}").parse().ok()
}

fn valid_description(text: String) -> Result<String, Invalid> {
    let complaint = if text.trim().is_empty() {
        "must not be empty; leave it out, or set it to null"
    } else if text.chars().count() > DESCRIPTION_MAX {
        "must be at most 2000 characters long"
    } else if text.chars().any(|letter| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t')) {
        "must not contain control characters but line breaks and tabs"
    } else {
        return Ok(text);
    };
    Err(Invalid::new("description", complaint))
}

fn valid_image_url(url: String) -> Result<String, Invalid> {
    let complaint = if url.len() > IMAGE_URL_MAX {
        "must be at most 2000 bytes long"
    } else if !url.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&byte)) {
        "must be written as a URL: ASCII without spaces and quotes, everything else percent-encoded"
    } else if !leads_to_a_picture(&url) {
        "must begin with https:// or http:// and a host, or be a path of this site that begins with /"
    } else {
        return Ok(url);
    };
    Err(Invalid::new("imageUrl", complaint))
}

fn leads_to_a_picture(url: &str) -> bool {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match host {
        // With a name and password in it, browsers refuse it, and the page would tell them to everybody.
        Some(rest) => {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            !host.is_empty() && !host.starts_with(':') && !host.contains('@')
        }
        None => url.starts_with('/') && !url.starts_with("//"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_exact_and_shown_with_the_decimals_of_its_currency() {
        for (amount, currency, shown) in [
            ("129", "EUR", "129.00"),
            ("129.9", "EUR", "129.90"),
            ("0", "EUR", "0.00"),
            ("0.05", "USD", "0.05"),
            ("007.10", "USD", "7.10"),
            ("1500", "JPY", "1500"),
            ("1500.0", "JPY", "1500"),
            ("1.125", "KWD", "1.125"),
            ("10000000000", "EUR", "10000000000.00"),
        ] {
            let price = Price::new(amount, currency).unwrap();
            assert_eq!((price.amount().as_str(), price.currency()), (shown, currency));
            let kept = serde_json::to_string(&price).unwrap();
            assert_eq!(serde_json::from_str::<Price>(&kept).unwrap(), price, "{kept}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused_with_its_field() {
        for (amount, currency, field) in [
            ("", "EUR", "price"),
            ("-1", "EUR", "price"),
            ("+1", "EUR", "price"),
            (".5", "EUR", "price"),
            ("5.", "EUR", "price"),
            ("1,5", "EUR", "price"),
            ("1e3", "EUR", "price"),
            ("1.005", "EUR", "price"),
            ("1.5", "JPY", "price"),
            ("99999999999999999999999", "EUR", "price"),
            ("10000000000.01", "EUR", "price"),
            ("5", "eur", "currency"),
            ("5", "EURO", "currency"),
            ("5", "", "currency"),
            ("5", "€", "currency"),
        ] {
            assert_eq!(Price::new(amount, currency).unwrap_err().field, field, "{amount} {currency}");
        }
    }

    #[test]
    fn only_what_leads_to_a_picture_is_an_address_of_one() {
        let product = |url: &str| Product { image_url: Some(url.to_owned()), ..Product::default() }.checked();
        for good in ["https://cdn.example/a%20b.webp?w=800", "http://127.0.0.1:8000/a.png", "/pictures/a.png"]
        {
            assert!(product(good).is_ok(), "{good}");
        }
        let long = format!("https://a.example/{}", "x".repeat(IMAGE_URL_MAX));
        for bad in [
            "",
            "picture.png",
            "//cdn.example/a.png",
            "https://",
            "https:///a.png",
            "https://:443/a.png",
            "https://user:word@a.example/a.png",
            "javascript:alert(1)",
            "data:image/png;base64,AAAA",
            "https://a.example/a b.png",
            "https://a.example/\"onerror=alert(1)",
            "https://a.example/é.png",
            &long,
        ] {
            assert_eq!(product(bad).unwrap_err().field, "imageUrl", "{bad}");
        }
    }

    #[test]
    fn a_description_is_bounded_text() {
        let product = |text: String| Product { description: Some(text), ..Product::default() }.checked();
        assert!(product("Two lines,\r\nand\ta tab.".to_owned()).is_ok());
        assert!(product("é".repeat(DESCRIPTION_MAX)).is_ok());
        for bad in [String::new(), "  \n".to_owned(), "a\u{0}b".to_owned(), "é".repeat(DESCRIPTION_MAX + 1)]
        {
            assert_eq!(product(bad).unwrap_err().field, "description");
        }
    }

    #[test]
    fn a_change_leaves_takes_away_or_replaces() {
        let price = Price::new("5", "EUR").unwrap();
        let before = Product { description: Some("Old".to_owned()), image_url: None, price: Some(price) };
        assert_eq!(ProductChange::default().applied_to(&before).unwrap(), before);
        let change =
            ProductChange { description: Some(Some("New".to_owned())), image_url: None, price: Some(None) };
        let after = Product { description: Some("New".to_owned()), image_url: None, price: None };
        assert_eq!(change.applied_to(&before).unwrap(), after);
    }
}
