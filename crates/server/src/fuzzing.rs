//! What must hold of everything that is read from outside, for any bytes.
//!
//! Each function takes what came in, and panics where a property is broken: that what is accepted keeps to the rules,
//! that what was written is read again, that what is refused is refused clearly. The fuzzer in `fuzz/` calls them, and
//! `tests/it/seeds.rs` does with the seeds that lie there.

use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
pub use flashsale_cluster::fuzzing::{holding, message, outbox, reply, secret, shown, spool};
use flashsale_core::{
    clock::Timestamp,
    ids::{OrderId, SaleId, UserId},
    product::Price,
};
pub use flashsale_loadtest::fuzzing::{reply as stress_reply, sale_status, target};
use http::{HeaderMap, HeaderValue, header};

use crate::{
    admission::{self, AdminToken, COOKIE, Door},
    cli::{Action, Cli},
    config, telemetry,
};
pub use crate::{
    board::fuzzing::pulses,
    http::{
        console::fuzzing::{field, form, query, way_on},
        fuzzing::{admin_body, export, headers, purchase_body},
    },
};

/// What is called with bytes, by the name that it has in `fuzz/`.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 24] = [
    ("admin_body", admin_body),
    ("config", config),
    ("cookie", cookie),
    ("export", export),
    ("field", field),
    ("form", form),
    ("headers", headers),
    ("holding", holding),
    ("ids", ids),
    ("message", message),
    ("moment", moment),
    ("outbox", outbox),
    ("pulses", pulses),
    ("purchase_body", purchase_body),
    ("query", query),
    ("reply", reply),
    ("sale_status", sale_status),
    ("secret", secret),
    ("setting", setting),
    ("shown", shown),
    ("spool", spool),
    ("stress_reply", stress_reply),
    ("target", target),
    ("way_on", way_on),
];

/// Whether a text may name a sale; the design's words once more, beside the code that it judges.
pub(crate) fn is_sale_id(text: &str) -> bool {
    let letter = |byte| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    !text.is_empty() && text.len() <= 64 && text.bytes().all(letter)
}

/// Whether a text may name a user.
pub(crate) fn is_user_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && !text.chars().any(char::is_control)
}

/// The names of things.
pub fn ids(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let sale = text.parse::<SaleId>();
    assert_eq!(sale.is_ok(), is_sale_id(text), "{text:?}");
    let user = text.parse::<UserId>();
    assert_eq!(user.is_ok(), is_user_id(text), "{text:?}");
    assert!(sale.is_ok_and(|id| id.as_str() == text) || !is_sale_id(text));
    assert!(user.is_ok_and(|id| id.as_str() == text) || !is_user_id(text));
    if let Ok(order) = text.parse::<OrderId>() {
        assert_eq!(order.to_string().parse::<OrderId>(), Ok(order));
    }
}

/// Points and spans of time, and prices: an amount and a currency between which a space lies.
pub fn moment(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(moment) = text.parse::<Timestamp>() {
        assert!((Timestamp::MIN..=Timestamp::MAX).contains(&moment));
        assert_eq!(moment.to_string().parse::<Timestamp>(), Ok(moment), "{text:?} as {moment}");
        assert_eq!(moment.to_string().len(), "2026-02-23T03:00:00.000Z".len());
    }
    if let Ok(time) = config::time(text) {
        assert!(
            (Duration::from_millis(1)..=Duration::from_secs(3_600)).contains(&time),
            "{text:?} is {time:?}"
        );
    }
    if let Some((amount, currency)) = text.split_once(' ')
        && let Ok(price) = Price::new(amount, currency)
    {
        assert_eq!(Price::new(&price.amount(), price.currency()), Ok(price), "{text:?} as {price}");
        assert!(serde_json::from_str::<f64>(&price.amount()).is_ok(), "an amount is a JSON number");
    }
}

/// A session's cookie, or a whole line of them: only what was sealed here is a session, and it has one spelling.
pub fn cookie(data: &[u8]) {
    let token = AdminToken::new("secret");
    let (door, now) = (Door::new(&token), Timestamp::from_millis(1_771_815_600_000));
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(session) = door.sessions.unseal(text, now)
    {
        assert_eq!(door.sessions.seal(&session), text, "one spelling");
        let csrf = door.sessions.csrf(&session);
        assert!(door.sessions.is_csrf(&session, &csrf) && !door.sessions.is_csrf(&session, text));
    }
    let Ok(line) = HeaderValue::from_bytes(data) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(header::COOKIE, line);
    if let Some(session) = door.session(&headers, now) {
        let sealed = door.sessions.seal(&session);
        assert!(admission::cookies(&headers, COOKIE).any(|cookie| cookie == sealed), "it stands in the line");
    }
}

/// A value of one setting, read as that of each that has a form of its own.
pub fn setting(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(address) = config::address(text) {
        assert_eq!(address.to_string().parse(), Ok(address));
    }
    if let Ok(namespace) = config::namespace(text) {
        assert!(namespace.len() <= 64 && namespace.is_ascii() && !namespace.contains([' ', '{', '}', '*']));
    }
    if config::admin_token(text).is_ok() {
        assert!(!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    }
    if let Ok(origin) = config::framing_origin(text) {
        let origin = origin.to_str().expect("an origin is ASCII");
        assert!(!origin.contains([';', ',', ' ', '\'']), "{origin:?} stays one source of the policy");
    }
    if let Ok(origin) = config::origin(text) {
        assert!(origin == "*" || origin.as_bytes().starts_with(b"http"), "{origin:?}");
    }
    if let Ok(log) = config::log_filter(text) {
        telemetry::filter(&log);
    }
}

/// A config file: what is accepted is in force, and within the bounds of the flags.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let command = match config::with_values(Cli::command(), text, "the file") {
        Ok(command) => command,
        Err(error) => return assert!(!format!("{error:#}").is_empty()),
    };
    let matches = command.try_get_matches_from(["flashsale", "serve"]);
    let mut matches = matches.expect("values that were checked one by one make a command line");
    let cli = Cli::from_arg_matches_mut(&mut matches).expect("which makes settings");
    let Action::Serve(serve) = cli.action else { panic!("serve was asked for") };
    assert!((1..=1_000_000).contains(&serve.http.max_connections));
    for time in [serve.http.header_timeout, serve.http.body_timeout, serve.http.drain_timeout] {
        assert!((Duration::from_millis(1)..=Duration::from_secs(3_600)).contains(&time));
    }
    assert!((3..=1_000).contains(&serve.stand.services.database_connections));
}
