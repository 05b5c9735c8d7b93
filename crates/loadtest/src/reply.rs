//! What the server's reply to a purchase means.

use std::borrow::Cow;

use hyper::StatusCode;
use serde::Deserialize;

/// The most characters of a reply that a reason quotes.
const QUOTED: usize = 100;
/// The longest order id in bytes, so that a purchase costs a bounded memory.
const LONGEST_ORDER_ID: usize = 64;

/// What came of one attempt.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome<'a> {
    /// Bought; the order id, if the reply has one.
    Success(Option<Cow<'a, str>>),
    /// The user has bought before; the order id of that purchase, if the reply has one.
    AlreadyPurchased(Option<Cow<'a, str>>),
    /// Nothing is left.
    SoldOut,
    /// The sale is not open; the order id of an earlier purchase of the user, if the reply has one.
    NotActive(Option<Cow<'a, str>>),
    /// The server is overloaded and said when to come again.
    Refused,
    /// No answer, or none that means anything; why.
    Failed(String),
}

/// The fields that matter. Borrowed: at saturation a reply is read 100,000 times a second.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    success: Option<bool>,
    #[serde(borrow)]
    status: Option<Text<'a>>,
    #[serde(borrow)]
    order_id: Option<Text<'a>>,
}

/// The fields of an error that matter. It shows that the API speaks, and not a proxy before it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    status_code: u16,
    #[serde(borrow)]
    order_id: Option<Text<'a>>,
}

/// `Option<Cow<str>>` would always copy; through this, text without escapes is borrowed.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a reply. `retry_after` says whether it had that header: without it a 429 or 503 is a failure, since a
/// refusal must say when to come again. A 400 is taken for "not active": its words are for people, and nothing else
/// is wrong with what we ask.
pub(crate) fn read(status: StatusCode, retry_after: bool, body: &[u8]) -> Outcome<'_> {
    let unexpected = || Outcome::Failed(format!("HTTP {}: {}", status.as_u16(), quote(body)));
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE if retry_after => Outcome::Refused,
        StatusCode::OK => decision(body).unwrap_or_else(unexpected),
        StatusCode::BAD_REQUEST => not_active(body).unwrap_or_else(unexpected),
        _ => unexpected(),
    }
}

/// A decision, or `None` if the body is not one or contradicts itself.
fn decision(body: &[u8]) -> Option<Outcome<'_>> {
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    let order = order_id(body.order_id)?;
    let (outcome, success) = match &*body.status?.0 {
        "SUCCESS" => (Outcome::Success(order), true),
        "ALREADY_PURCHASED" => (Outcome::AlreadyPurchased(order), false),
        "SOLD_OUT" => (Outcome::SoldOut, false),
        _ => return None,
    };
    (body.success == Some(success)).then_some(outcome)
}

/// A closed sale, or `None` if the body is not an error of the API.
fn not_active(body: &[u8]) -> Option<Outcome<'_>> {
    let problem: Problem<'_> = serde_json::from_slice(body).ok()?;
    let order = order_id(problem.order_id)?;
    (problem.status_code == StatusCode::BAD_REQUEST.as_u16()).then_some(Outcome::NotActive(order))
}

/// An order id, where there is one; `None` for one that is too long.
fn order_id(id: Option<Text<'_>>) -> Option<Option<Cow<'_, str>>> {
    let id = id.map(|text| text.0).filter(|id| !id.is_empty());
    let bounded = id.as_ref().is_none_or(|id| id.len() <= LONGEST_ORDER_ID);
    bounded.then_some(id)
}

/// Whether a SUCCESS says that it rests on less than it should for now.
pub(crate) fn is_provisional(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Durability {
        durability: Option<String>,
    }
    serde_json::from_slice::<Durability>(body).is_ok_and(|body| body.durability.is_some())
}

/// The beginning of a body, on one line, fit for a terminal.
pub(crate) fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut quoted: String =
        text.chars().take(QUOTED).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(QUOTED).is_some() {
        quoted.push('…');
    }
    if quoted.is_empty() { "(empty body)".to_owned() } else { quoted }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(body: &str) -> Outcome<'_> {
        read(StatusCode::OK, false, body.as_bytes())
    }

    #[test]
    fn the_three_decisions() {
        let order = Some(Cow::Borrowed("o-1"));
        let success = r#"{"success":true,"status":"SUCCESS","message":"m","orderId":"o-1","more":[1]}"#;
        assert_eq!(ok(success), Outcome::Success(order.clone()));
        let again = r#"{"success":false,"status":"ALREADY_PURCHASED","message":"m","orderId":"o-1"}"#;
        assert_eq!(ok(again), Outcome::AlreadyPurchased(order));
        let sold_out = r#"{"success":false,"status":"SOLD_OUT","message":"Sale is sold out"}"#;
        assert_eq!(ok(sold_out), Outcome::SoldOut);
    }

    #[test]
    fn an_order_id_is_borrowed_and_a_null_or_empty_one_is_none() {
        let reply = r#"{"success":true,"status":"SUCCESS","orderId":"o-1"}"#;
        assert!(matches!(ok(reply), Outcome::Success(Some(Cow::Borrowed("o-1")))));
        let escaped = r#"{"success":true,"status":"SUCCESS","orderId":"o\u002d1"}"#;
        assert_eq!(ok(escaped), Outcome::Success(Some("o-1".into())));
        for id in ["null", r#""""#] {
            let reply = format!(r#"{{"success":true,"status":"SUCCESS","orderId":{id}}}"#);
            assert_eq!(ok(&reply), Outcome::Success(None), "{id}");
        }
    }

    fn bad_request(body: &str) -> Outcome<'_> {
        read(StatusCode::BAD_REQUEST, false, body.as_bytes())
    }

    #[test]
    fn a_closed_sale_is_told_by_the_status_code_whatever_the_words() {
        // "message is for people and may be worded differently tomorrow", and then every such answer was a failure.
        for message in ["Sale is not currently active", "Der Verkauf ist nicht offen"] {
            let closed =
                format!(r#"{{"status":400,"statusCode":400,"message":"{message}","error":"Bad Request"}}"#);
            assert_eq!(bad_request(&closed), Outcome::NotActive(None));
        }
        let holder = r#"{"statusCode":400,"message":"m","orderId":"o-1"}"#;
        assert_eq!(bad_request(holder), Outcome::NotActive(Some("o-1".into())));
        for other in ["", "<html>", "{}", r#"{"statusCode":404}"#, r#"{"statusCode":"400"}"#] {
            assert!(matches!(bad_request(other), Outcome::Failed(_)), "{other}");
        }
    }

    #[test]
    fn an_order_id_is_at_most_64_bytes_long() {
        // A server could fill the memory with ids of 60 KiB each.
        for (length, read) in [(64, true), (65, false)] {
            let id = "x".repeat(length);
            let reply = format!(r#"{{"success":true,"status":"SUCCESS","orderId":"{id}"}}"#);
            assert_eq!(matches!(ok(&reply), Outcome::Success(Some(_))), read, "{length}");
            let reply = format!(r#"{{"statusCode":400,"orderId":"{id}"}}"#);
            assert_eq!(matches!(bad_request(&reply), Outcome::NotActive(Some(_))), read, "{length}");
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_again() {
        for status in [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
            assert_eq!(read(status, true, b""), Outcome::Refused);
            assert!(matches!(read(status, false, b""), Outcome::Failed(_)));
        }
    }

    #[test]
    fn nonsense_is_a_failure_and_is_quoted_short_and_clean() {
        for body in [
            "",
            "<html>",
            "{}",
            r#"{"success":true,"status":"MAYBE"}"#,
            r#"{"success":false,"status":"SUCCESS"}"#,
            r#"{"success":true,"status":"SOLD_OUT"}"#,
            r#"{"status":"SUCCESS","orderId":"o-1"}"#,
        ] {
            assert!(matches!(ok(body), Outcome::Failed(_)), "{body}");
        }
        assert_eq!(quote(b"a\x1b[2J\nb"), "a [2J b");
        assert_eq!(quote("é".repeat(101).as_bytes()), format!("{}…", "é".repeat(100)));
        assert_eq!(quote(b""), "(empty body)");
    }
}
