//! What must hold of everything that this crate reads, for any bytes: called by the fuzzer in `fuzz/`, and with its
//! seeds by an ordinary test. Each function panics where a property is broken.

use hyper::{StatusCode, Uri};
use serde_json::Value;

use crate::{
    reply::{self, Outcome},
    sale::SaleStatus,
    target::{Base, status_path, user_path},
};

/// The longest reason that a verdict quotes, in characters.
const REASON_MAX: usize = 120;

/// A reply to a purchase. Its first two bytes choose the status and whether it has a `Retry-After`.
pub fn reply(data: &[u8]) {
    let [status, retry_after, body @ ..] = data else { return };
    let status = match status {
        b'2' => StatusCode::OK,
        b'4' => StatusCode::BAD_REQUEST,
        b'9' => StatusCode::TOO_MANY_REQUESTS,
        b'5' => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let retry_after = *retry_after == b'r';
    match reply::read(status, retry_after, body) {
        Outcome::Success(order) => decided(body, "SUCCESS", true, order.as_deref(), status),
        Outcome::AlreadyPurchased(order) => {
            decided(body, "ALREADY_PURCHASED", false, order.as_deref(), status);
        }
        Outcome::SoldOut => decided(body, "SOLD_OUT", false, None, status),
        Outcome::NotActive(order) => {
            assert_eq!(status, StatusCode::BAD_REQUEST);
            if let Ok(said) = serde_json::from_slice::<Value>(body) {
                assert_eq!(said["statusCode"], 400);
                assert_eq!(said["orderId"].as_str().filter(|id| !id.is_empty()), order.as_deref());
            }
        }
        Outcome::Refused => {
            assert!(retry_after, "a refusal says when to come again");
            assert!(matches!(status.as_u16(), 429 | 503));
        }
        Outcome::Failed(reason) => {
            assert!(reason.chars().count() <= REASON_MAX, "{reason}");
            assert!(!reason.chars().any(char::is_control), "{reason:?} is fit for a terminal");
        }
    }
}

/// A verdict on the server rests on this, so another reader has to see the same. It may refuse what ours only skips, such
/// as a number beyond all bounds in a field that nobody asks for.
fn decided(body: &[u8], status: &str, success: bool, order: Option<&str>, http: StatusCode) {
    assert_eq!(http, StatusCode::OK);
    let Ok(said) = serde_json::from_slice::<Value>(body) else { return };
    assert_eq!((&said["status"], &said["success"]), (&status.into(), &success.into()));
    if status != "SOLD_OUT" {
        assert_eq!(said["orderId"].as_str().filter(|id| !id.is_empty()), order);
    }
}

/// The state of a sale.
pub fn sale_status(data: &[u8]) {
    let Ok(status) = serde_json::from_slice::<SaleStatus>(data) else { return };
    let written = serde_json::to_vec(&status).expect("a state is plain data");
    assert_eq!(serde_json::from_slice::<SaleStatus>(&written).expect("it was written so"), status);
}

/// A server's address; and, as a sale's and a user's id, the paths that are made with them.
pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for path in [status_path(text), user_path(text, text)] {
        let uri: Uri = path.parse().expect("a percent-encoded path is a uri");
        assert_eq!((uri.path(), uri.query()), (path.as_str(), None), "ids stay within their segments");
        assert!(matches!(path.split('/').count(), 6 | 8), "{path}");
    }
    let Ok(base) = Base::parse(text) else { return };
    assert!(text.len() > "http://".len() && !base.authority.contains('@') && !base.host.is_empty());
    assert_eq!(Base::parse(&format!("http://{}", base.authority)).expect("it is an address"), base);
    if base.port != 80 {
        assert!(base.authority.ends_with(&base.port.to_string()), "{} {}", base.authority, base.port);
    }
}
