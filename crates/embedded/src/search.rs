//! Orders and events that somebody looks for, newest first, through indexes or within a bounded stretch.

use flashsale_core::{
    audit::{AuditEvent, EventType},
    ids::{SaleId, UserId},
    order::{Order, OrderStatus},
    ports::{FindEvents, FindOrders, Found},
};
use rusqlite::{Connection, Params};

use crate::{
    ledger::record::{PLACE_BITS, keys_of, kind},
    store::{AUDIT, audit_event, ended_order, live_order, number, order},
};

/// Units that one page of a search looks through at most.
const UNITS: i64 = 50_000;
/// Places that one page of a search looks through at most: about a quarter of a second.
const PLACES: i64 = 1_000_000;

const BY_ID: &str = concat!(live_order!(), " WHERE id = ?1 AND key > ?2 AND key < ?3");
const ENDED_BY_ID: &str = concat!(ended_order!(), " WHERE id = ?1 AND key > ?2 AND key < ?3");
const BY_USER: &str = concat!(live_order!(), " WHERE user_id = ?1 AND key >> 40 = ?2");
const DOWN_FROM: &str = concat!(
    live_order!(),
    " WHERE key < ?1 AND key >= ?2 AND (?3 IS NULL OR confirmed = ?3) ORDER BY key DESC LIMIT ?4"
);
const ENDED_DOWN_FROM: &str =
    concat!(ended_order!(), " WHERE key < ?1 AND key > ?2 ORDER BY key DESC LIMIT ?3");

/// Orders of a sale; `None` when there is no such sale.
pub(crate) fn orders(
    connection: &Connection,
    sale: &SaleId,
    find: &FindOrders,
) -> rusqlite::Result<Option<Found<Order>>> {
    let Some((no, _)) = number(connection, sale)? else { return Ok(None) };
    let search = Search { connection, sale, no, find };
    let mut found = if let Some(id) = find.order {
        let (first, end) = keys_of(no);
        let mut rows = search.rows(BY_ID, (id.0.as_bytes(), first, end))?;
        rows.extend(search.rows(ENDED_BY_ID, (id.0.as_bytes(), first, end))?);
        Found { rows, next: None }
    } else if is_released(find.status) {
        search.ended()?
    } else if let Some(user) = &find.user {
        Found { rows: search.rows(BY_USER, (user.as_str(), no))?, next: None }
    } else {
        search.live()?
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

/// A search for orders of a sale.
struct Search<'a> {
    connection: &'a Connection,
    sale: &'a SaleId,
    no: u32,
    find: &'a FindOrders,
}

impl Search<'_> {
    fn rows(&self, sql: &str, values: impl Params) -> rusqlite::Result<Vec<Order>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.query_map(values, |row| order(row, self.sale))?.collect()
    }

    /// Live orders, by unit downwards.
    fn live(&self) -> rusqlite::Result<Found<Order>> {
        let (first, end) = keys_of(self.no);
        let before = match self.find.before {
            Some(unit) => first + unit.clamp(0, end - first),
            None => self.connection.query_row(
                "SELECT 1 + coalesce(max(key), ?1) FROM live_orders WHERE key >= ?1 AND key < ?2",
                (first, end),
                |row| row.get(0),
            )?,
        };
        let stretch = before.saturating_sub(UNITS).max(first + 1);
        let confirmed = self.find.status.map(|status| status == OrderStatus::Confirmed);
        let limit = self.find.limit.max(1);
        let rows = self.rows(DOWN_FROM, (before, stretch, confirmed, limit))?;
        let next = if rows.len() == limit as usize {
            rows.last().map(|order| i64::from(order.unit.0))
        } else {
            Some(stretch - first)
        };
        Ok(Found { rows, next: next.filter(|unit| *unit > 1) })
    }

    /// Orders that ended, the newest first.
    fn ended(&self) -> rusqlite::Result<Found<Order>> {
        let (first, end) = keys_of(self.no);
        let limit = self.find.limit.max(1);
        let before = self.find.before.map_or(end, |place| first + place.clamp(0, end - first));
        let mut statement = self.connection.prepare_cached(ENDED_DOWN_FROM)?;
        let rows = statement.query_map((before, first, limit), |row| {
            Ok((row.get::<_, i64>(0)? - first, order(row, self.sale)?))
        })?;
        let (places, rows): (Vec<i64>, Vec<Order>) =
            rows.collect::<rusqlite::Result<Vec<_>>>()?.into_iter().unzip();
        let full = rows.len() == limit as usize;
        Ok(Found { rows, next: places.last().copied().filter(|_| full) })
    }
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
