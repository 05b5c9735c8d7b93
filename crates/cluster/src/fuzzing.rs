//! What must hold of everything that this crate reads, for any bytes: called by the fuzzer in `fuzz/`, and with its
//! seeds by an ordinary test. Each function panics where a property is broken.

use flashsale_core::ids::{SALE_ID_MAX, SaleId, USER_ID_MAX};
use redis::{Value, streams::StreamId};

use crate::{
    audit::Rejection,
    message::{Message, VERSION},
    options::Secret,
    stock::{self, Answer, Entry, Holding, Reply},
};

/// What lies between the fields of a record in the seeds.
const BETWEEN: char = '\u{1f}';

/// A message of the order queue: what is accepted keeps to the rules, and is the same after it was written and read.
pub fn message(data: &[u8]) {
    let Ok(message) = Message::read(data) else { return };
    assert_eq!(message.version, VERSION);
    keeps_to_the_rules(&message);
    let written = message.written();
    assert_eq!(Message::read(&written).as_ref(), Ok(&message), "written and read again");
    assert_eq!(Message::read(&written).map(|message| message.written()), Ok(written), "one form only");
}

/// A record of the outbox: as text, its name and its fields `g`, `e`, `t`, `p` and `r`.
pub fn outbox(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(6, BETWEEN);
    let mut row = StreamId { id: parts.next().unwrap_or_default().to_owned(), ..StreamId::default() };
    for (name, value) in ["g", "e", "t", "p", "r"].into_iter().zip(parts) {
        row.map.insert(name.to_owned(), Value::BulkString(value.as_bytes().to_vec()));
    }
    let Some(entry) = Entry::read(&row) else { return };
    let (generation, first, rows) = (entry.generation, entry.first, entry.rows.len());
    let Some(message) = Message::of(&sale(), entry) else { return };
    keeps_to_the_rules(&message);
    assert_eq!(message.reservations.len(), rows, "no reservation is dropped");
    for (count, reserved) in (first..).zip(&message.reservations) {
        assert_eq!(stock::generation_of(reserved.place), generation);
        assert_eq!(stock::count_of(reserved.place), count, "places follow each other");
    }
    assert_eq!(Message::read(&message.written()), Ok(message), "the order queue reads what the outbox holds");
}

fn keeps_to_the_rules(message: &Message) {
    let sale = message.sale_id.as_str();
    assert!((1..=SALE_ID_MAX).contains(&sale.len()), "{sale:?}");
    assert!(sale.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)), "{sale:?}");
    for reservation in message.reservations() {
        let user = reservation.user_id.as_str();
        assert!((1..=USER_ID_MAX).contains(&user.len()) && !user.chars().any(char::is_control), "{user:?}");
        assert_eq!((reservation.epoch, &reservation.sale_id), (message.epoch, &message.sale_id));
    }
}

/// A reply of Redis, as it comes over the line, read as that of each function.
pub fn reply(data: &[u8]) {
    let Ok(Value::Array(values)) = redis::parse_redis_value(data) else { return };
    let Ok(reply) = Reply::of(values) else { return };
    if let Ok(decided) = reply.decided() {
        assert_eq!(stock::generation_of(decided.changed), decided.generation);
        assert!(decided.entry.is_none_or(|entry| !entry.is_empty()));
        for answer in &decided.answers {
            if let Answer::Reserved(held) | Answer::Held(held) = answer {
                is_read_as_it_is_written(held);
            }
        }
    }
    if let Ok((_, Some(held))) = reply.held() {
        is_read_as_it_is_written(&held);
    }
    if let Ok((_, sales)) = reply.listed() {
        assert!(sales.is_sorted_by_key(|(_, no)| *no));
    }
    if let Ok(state) = stock::state_of(&sale(), &reply) {
        assert!(state.available <= state.sale.total_stock);
        assert!(state.sale.window.starts_at() < state.sale.window.ends_at());
        assert_eq!(stock::generation_of(state.place), state.generation);
    }
}

/// What Redis keeps of a user's unit.
pub fn holding(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(held) = text.parse::<Holding>() {
        is_read_as_it_is_written(&held);
    }
}

fn is_read_as_it_is_written(held: &Holding) {
    assert_eq!(held.written().parse::<Holding>().as_ref(), Ok(held));
}

/// A line of the audit rows that wait in a file.
pub fn spool(data: &[u8]) {
    let Ok(row) = serde_json::from_slice::<Rejection>(data) else { return };
    let written = serde_json::to_string(&row).expect("a row is plain data");
    assert!(!written.contains('\n'), "a row is one line");
    assert_eq!(serde_json::from_str::<Rejection>(&written).expect("it was written so"), row);
}

/// What a replica shows beside its name.
pub fn shown(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some((at, figures)) = stock::shown_at(text) {
        assert_eq!(stock::shown_at(&format!("{at}|{figures}")), Some((at, figures)));
    }
}

/// An address with `secret` as its user, password or parameter: it never shows that.
pub fn secret(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let shown = Secret::from(text.to_owned()).to_string();
    assert!(shown.len() <= text.len().max("(an address)".len()) + '…'.len_utf8(), "{shown}");
    // Where a well-formed address has its secrets, whatever they are.
    let password: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    for address in [
        format!("postgres://shop:pw-{password}@db:5432/shop"),
        format!("redis://:pw-{password}@cache:6379/1"),
        format!("amqps://mq/%2f?password=pw-{password}"),
    ] {
        assert!(!Secret::from(address).to_string().contains("pw-"), "{password}");
    }
}

fn sale() -> SaleId {
    "sale_1".parse().expect("a sale's id")
}
