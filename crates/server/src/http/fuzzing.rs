//! What must hold of bodies, headers and exports, for any bytes; see `crate::fuzzing`.

use flashsale_core::{
    audit::{AuditEvent, EventType},
    clock::Timestamp,
    error::Invalid,
    ids::{Epoch, OrderId, SaleId, Unit, UserId},
    order::{Order, OrderStatus},
    product::DESCRIPTION_MAX,
    sale::{NAME_MAX, NewSale, TOTAL_STOCK_MAX, Window},
    service::SaleRequest,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::{
    admin::{ChangeSale, CreateSale, ResetSale},
    body,
    export::{Format, Row, rows},
    problem::Problem,
    purchase::PurchaseRequest,
};
use crate::{
    admission::is_ours,
    fuzzing::{is_sale_id, is_user_id},
    web::{Words, assets::accepts_gzip},
};

/// The body of a purchase: accepted is an object of exactly two texts, and what becomes ids keeps to their rules.
pub fn purchase_body(data: &[u8]) {
    let PurchaseRequest { sale_id, user_id } = match body::parse(data) {
        Ok(request) => request,
        Err(problem) => return is_a_clear_refusal(&problem, data),
    };
    let said: Value = serde_json::from_slice(data).expect("another reader takes it as well");
    assert_eq!(said, json!({ "saleId": sale_id, "userId": user_id }));
    assert_eq!(sale_id.parse::<SaleId>().is_ok(), is_sale_id(&sale_id), "{sale_id:?}");
    assert_eq!(user_id.parse::<UserId>().is_ok(), is_user_id(&user_id), "{user_id:?}");
}

/// The body of an operator's request. Its first byte chooses which.
pub fn admin_body(data: &[u8]) {
    let [which, body @ ..] = data else { return };
    let refused = match which {
        b'c' => body::parse::<CreateSale>(body).map(created).err(),
        b'p' => body::parse::<ChangeSale>(body).map(changed).err(),
        _ => body::parse::<ResetSale>(body).map(|reset| drop(reset.sale_id.parse::<SaleId>())).err(),
    };
    if let Some(problem) = refused {
        is_a_clear_refusal(&problem, body);
    }
}

fn created(body: CreateSale) {
    if let Ok(request) = body.request() {
        // What the service makes of it.
        let _ = new_sale(request);
    }
}

/// A sale as it is asked for, which then keeps to the rules, or the value that does not.
pub(super) fn new_sale(request: SaleRequest) -> Result<(), Invalid> {
    let SaleRequest { sale_id, name, total_stock, starts_at, ends_at, product } = request;
    let id: SaleId = sale_id.as_deref().unwrap_or("made").parse()?;
    let new = NewSale::new(id, name, total_stock, Window::new(starts_at, ends_at)?)?.with_product(product)?;
    let sale = new.open(Epoch(1));
    assert!(is_sale_id(sale.id.as_str()), "{:?}", sale.id);
    assert!((1..=NAME_MAX).contains(&sale.name.chars().count()), "{:?}", sale.name);
    assert!(!sale.name.chars().any(char::is_control), "{:?}", sale.name);
    assert!((1..=TOTAL_STOCK_MAX).contains(&sale.total_stock), "{}", sale.total_stock);
    assert!(sale.window.starts_at() < sale.window.ends_at());
    let description = sale.product.description.as_deref().unwrap_or("-");
    assert!((1..=DESCRIPTION_MAX).contains(&description.chars().count()), "{description:?}");
    // A page puts it into an attribute, and the trail into JSON.
    let image = sale.product.image_url.as_deref().unwrap_or_default();
    assert!(!image.contains(['"', '\'', '<', '>', ' ', '\\']) && !image.starts_with("//"), "{image:?}");
    serde_json::to_value(sale.set_up()).expect("a set-up is plain data");
    Ok(())
}

fn changed(body: ChangeSale) {
    let Ok(change) = body.change() else { return };
    let at = Timestamp::from_millis;
    let window = Window::new(at(0), at(1)).expect("one second");
    let sale = NewSale::new("made".parse().expect("an id"), "Sale".to_owned(), 1, window).expect("a sale");
    let sale = sale.open(Epoch(7));
    let Ok(changed) = sale.changed(&change) else { return };
    assert_eq!((&changed.id, changed.epoch), (&sale.id, sale.epoch), "only a reset raises the epoch");
    assert_eq!(changed.changed(&change).as_ref(), Ok(&changed), "to change it so again changes nothing");
}

/// A 4xx whose length is bounded by that of the body.
fn is_a_clear_refusal(problem: &Problem, body: &[u8]) {
    assert_eq!(problem.status, StatusCode::BAD_REQUEST);
    assert!(problem.message.len() <= 6 * body.len() + 1_024, "{}", problem.message);
}

/// Headers that something is decided by: one a line, its first letter choosing its name.
pub fn headers(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(16) {
        let [which, value @ ..] = line else { continue };
        let name = match which {
            b'a' => "accept",
            b'l' => "accept-language",
            b'e' => "accept-encoding",
            b's' => "sec-fetch-site",
            b'o' => "origin",
            _ => "host",
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    }
    assert!(["en", "de"].contains(&Words::asked_for(&headers).lang));
    if accepts_gzip(&headers) {
        let named = headers.get_all("accept-encoding").into_iter();
        assert!(named.filter_map(|line| line.to_str().ok()).any(|line| line.to_lowercase().contains("gzip")));
    }
    if let Err(problem) = Format::accepted(&headers) {
        assert_eq!(problem.status, StatusCode::NOT_ACCEPTABLE);
    }
    if is_ours(&headers) && !headers.contains_key("sec-fetch-site") {
        assert_ne!(headers.get("origin"), Some(&HeaderValue::from_static("null")));
    }
}

/// The rows of an export, of a user and with a text in their details: a reader gets back what was written.
pub fn export(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (user, detail) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(user_id) = user.parse::<UserId>() else { return };
    let sale_id: SaleId = "sale_1".parse().expect("an id");
    let created_at = Timestamp::from_millis(1_771_815_600_000);
    let order = Order {
        id: OrderId(uuid::Uuid::nil()),
        sale_id: sale_id.clone(),
        epoch: Epoch(1),
        unit: Unit(7),
        user_id: user_id.clone(),
        status: OrderStatus::Confirmed,
        reserved_at: created_at,
        created_at,
        confirmed_at: Some(created_at),
        released_at: None,
    };
    let metadata = json!({ "reason": detail }).to_string();
    let event_type = EventType::FailedDb;
    let event = AuditEvent { id: 1, sale_id, user_id, event_type, metadata: metadata.clone(), created_at };

    is_read_as_it_is_written(&[&order, &order]);
    is_read_as_it_is_written(&[&event]);
    let lines = rows(Format::Ndjson, std::slice::from_ref(&event)).expect("it is written");
    let line: Value = serde_json::from_slice(&lines).expect("a line is JSON");
    assert_eq!(line["userId"], user);
    assert_eq!(line["metadata"].to_string(), metadata);
}

fn is_read_as_it_is_written<R: Row + Clone>(exported: &[&R]) {
    let exported: Vec<R> = exported.iter().copied().cloned().collect();
    let csv = rows(Format::Csv, &exported).expect("it is written");
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(&csv[..]);
    let read: Vec<Vec<String>> = reader.deserialize().map(|row| row.expect("a row is CSV")).collect();
    assert_eq!(read, exported.iter().map(R::cells).collect::<Vec<_>>());
    assert!(read.iter().all(|row| row.len() == R::COLUMNS.len()));

    let lines = rows(Format::Ndjson, &exported).expect("it is written");
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), exported.len(), "a line a row");
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        assert!(serde_json::from_slice::<Value>(line).is_ok_and(|line| line.is_object()));
    }
}
