//! Orders and events that somebody looks for, newest first, through indexes or within a bounded stretch.

use flashsale_core::{
    audit::{AuditEvent, EventType},
    ids::{SaleId, UserId},
    order::{Order, OrderStatus},
    ports::{FindEvents, FindOrders, Found},
};
use rusqlite::{Connection, Params};

use crate::{
    ledger::record::{PLACE_BITS, kind},
    store::{AUDIT, audit_event, number, order},
};

/// Units that one page of a search looks through at most.
const UNITS: i64 = 50_000;
/// Places that one page of a search looks through at most: about a quarter of a second.
const PLACES: i64 = 1_000_000;

const COLUMNS: &str = "SELECT orders.seq, orders.id, sale_id, orders.epoch, unit, user_id, status, reserved_at, \
     orders.created_at, confirmed_at, released_at";
const PRESENT: &str = "FROM orders JOIN sales ON sales.id = orders.sale_id AND sales.epoch = orders.epoch \
     WHERE sale_id = ?1";

/// Orders of a sale; `None` when there is no such sale.
pub(crate) fn orders(
    connection: &Connection,
    sale: &SaleId,
    find: &FindOrders,
) -> rusqlite::Result<Option<Found<Order>>> {
    if number(connection, sale)?.is_none() {
        return Ok(None);
    }
    let sale = sale.as_str();
    let mut found = if let Some(id) = find.order {
        Found { rows: query(connection, "AND orders.id = ?2", (sale, id.to_string()))?, next: None }
    } else if is_released(find.status) {
        released(connection, sale, find)?
    } else if let Some(user) = &find.user {
        Found {
            rows: query(connection, "AND released_at IS NULL AND user_id = ?2", (sale, user.as_str()))?,
            next: None,
        }
    } else {
        live(connection, sale, find)?
    };
    let wanted = |order: &Order| {
        find.user.as_ref().is_none_or(|user| order.user_id == *user)
            && find.status.is_none_or(|status| order.status == status)
    };
    found.rows.retain(wanted);
    Ok(Some(found))
}

fn is_released(status: Option<OrderStatus>) -> bool {
    matches!(status, Some(OrderStatus::Expired | OrderStatus::Cancelled))
}

fn query(connection: &Connection, condition: &str, values: impl Params) -> rusqlite::Result<Vec<Order>> {
    let mut statement = connection.prepare_cached(&format!("{COLUMNS} {PRESENT} {condition}"))?;
    statement.query_map(values, order)?.map(|row| row.map(|(_, order)| order)).collect()
}

/// Live orders, by unit downwards, which the index of units has in this order.
fn live(connection: &Connection, sale: &str, find: &FindOrders) -> rusqlite::Result<Found<Order>> {
    let mut last = connection.prepare_cached(
        "SELECT coalesce(max(unit), 0) FROM orders JOIN sales ON sales.id = orders.sale_id \
         AND sales.epoch = orders.epoch WHERE sale_id = ?1 AND released_at IS NULL",
    )?;
    let before = match find.before {
        Some(before) => before,
        None => last.query_row([sale], |row| row.get::<_, i64>(0))?.saturating_add(1),
    };
    let stretch = before.saturating_sub(UNITS).max(1);
    let status = find.status.map(OrderStatus::as_str);
    let limit = find.limit.max(1);
    let rows = query(
        connection,
        "AND released_at IS NULL AND unit < ?2 AND unit >= ?3 AND (?4 IS NULL OR status = ?4) \
         ORDER BY unit DESC LIMIT ?5",
        (sale, before, stretch, status, limit),
    )?;
    let next = if rows.len() == limit as usize {
        rows.last().map(|order| i64::from(order.unit.0)).filter(|unit| *unit > 1)
    } else {
        Some(stretch).filter(|stretch| *stretch > 1)
    };
    Ok(Found { rows, next })
}

/// Orders that ended, the newest first.
fn released(connection: &Connection, sale: &str, find: &FindOrders) -> rusqlite::Result<Found<Order>> {
    let limit = find.limit.max(1);
    let sql = format!(
        "{COLUMNS} {PRESENT} AND released_at IS NOT NULL AND orders.seq < ?2 ORDER BY orders.seq DESC LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map((sale, find.before.unwrap_or(i64::MAX), limit), order)?;
    let (keys, rows): (Vec<i64>, Vec<Order>) =
        rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().unzip();
    let full = rows.len() == limit as usize;
    Ok(Found { rows, next: keys.last().copied().filter(|_| full) })
}

/// Events of a sale's trail; `None` when there is no such sale.
pub(crate) fn events(
    connection: &Connection,
    sale: &SaleId,
    find: &FindEvents,
) -> rusqlite::Result<Option<Found<AuditEvent>>> {
    let Some((no, last_place)) = number(connection, sale)? else { return Ok(None) };
    let Some((from, to)) = kinds(find.event_type) else { return Ok(Some(Found::nothing())) };
    let first = i64::from(no) << PLACE_BITS;
    let before = find.before.unwrap_or(i64::MAX).min(first + last_place + 1);
    let stretch = before.saturating_sub(PLACES).max(first + 1);
    let limit = find.limit.max(1);
    let mut keys = connection.prepare_cached(
        "SELECT key FROM trail WHERE key < ?1 AND key >= ?2 AND kind BETWEEN ?3 AND ?4 \
         AND (?5 IS NULL OR user_id = ?5) ORDER BY key DESC LIMIT ?6",
    )?;
    let user = find.user.as_ref().map(UserId::as_str);
    let keys = keys.query_map((before, stretch, from, to, user, limit), |row| row.get(0))?;
    let keys: Vec<i64> = keys.collect::<rusqlite::Result<_>>()?;
    let mut rows = Vec::with_capacity(2 * keys.len());
    let mut of_key = connection.prepare_cached(AUDIT)?;
    for key in &keys {
        let events = of_key.query_map((sale.as_str(), key - 1, key), audit_event)?;
        let events: Vec<AuditEvent> = events.collect::<rusqlite::Result<_>>()?;
        let wanted = |event: &AuditEvent| find.event_type.is_none_or(|wanted| event.event_type == wanted);
        rows.extend(events.into_iter().rev().filter(wanted));
    }
    let seen = if keys.len() == limit as usize { keys[keys.len() - 1] } else { stretch };
    Ok(Some(Found { rows, next: Some(seen).filter(|seen| *seen > first + 1) }))
}

/// The kinds of the trail's rows that show as such an event, from and to; `None` where none does.
fn kinds(event_type: Option<EventType>) -> Option<(u8, u8)> {
    let one = |kind| Some((kind, kind));
    match event_type {
        None => Some((kind::RESERVED, kind::ADMIN_DELETED)),
        Some(EventType::Attempted) => Some((kind::RESERVED, kind::REJECTED_NOT_ACTIVE)),
        Some(EventType::Reserved) => one(kind::RESERVED),
        Some(EventType::RejectedSoldOut) => one(kind::REJECTED_SOLD_OUT),
        Some(EventType::RejectedDuplicate) => one(kind::REJECTED_DUPLICATE),
        Some(EventType::RejectedNotActive) => one(kind::REJECTED_NOT_ACTIVE),
        Some(EventType::Confirmed) => one(kind::CONFIRMED),
        Some(EventType::Expired) => one(kind::EXPIRED),
        Some(EventType::Cancelled) => one(kind::CANCELLED),
        Some(EventType::FailedDb) => one(kind::FAILED_DB),
        Some(EventType::AdminChanged) => one(kind::ADMIN_CHANGED),
        Some(EventType::AdminReset) => one(kind::ADMIN_RESET),
        Some(EventType::AdminDeleted) => one(kind::ADMIN_DELETED),
        // Nothing in this profile is ever rebuilt while it runs.
        Some(EventType::Recovered) => None,
    }
}
