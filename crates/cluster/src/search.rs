//! Orders and events that somebody looks for, newest first, through indexes or within a bounded stretch.

use flashsale_core::{
    Result,
    audit::{AuditEvent, EventType},
    ids::{SaleId, UserId},
    order::{Order, OrderStatus},
    ports::{FindEvents, FindOrders, Found},
};
use sqlx::{PgConnection, Row};

use crate::store::{LONGEST, events, kind, number, order, within};

/// Units that one page of a search looks through at most.
const UNITS: i64 = 50_000;
/// Rows of the trail that one page of a search looks through at most.
const ROWS: i64 = 500_000;

const ORDERS: &str = "SELECT seq, orders.id, sale_id, orders.epoch, unit, user_id, status, \
     (extract(epoch FROM reserved_at) * 1000)::bigint AS reserved_at, \
     (extract(epoch FROM orders.created_at) * 1000)::bigint AS created_at, \
     (extract(epoch FROM confirmed_at) * 1000)::bigint AS confirmed_at, \
     (extract(epoch FROM released_at) * 1000)::bigint AS released_at \
     FROM orders JOIN sales ON sales.id = orders.sale_id AND sales.epoch = orders.epoch WHERE sale_id = $1";
const LAST_UNIT: &str = "SELECT coalesce(max(unit), 0)::bigint FROM orders \
     JOIN sales ON sales.id = orders.sale_id AND sales.epoch = orders.epoch \
     WHERE sale_id = $1 AND released_at IS NULL";

// The stretch is read along the primary key, and no further than to the last row of the page.
const EVENTS: &str = "SELECT id, kind, epoch, place, user_id, unit, order_id, detail::text AS detail, \
     (extract(epoch FROM at) * 1000)::bigint AS at, \
     (extract(epoch FROM confirmed_at) * 1000)::bigint AS confirmed_at \
     FROM (SELECT * FROM trail WHERE sale_no = $1 AND id < $2 ORDER BY id DESC LIMIT $3) AS stretch \
     WHERE kind BETWEEN $4 AND $5 AND ($6::text IS NULL OR user_id = $6) AND (NOT $7 OR confirmed_at IS NOT NULL) \
     ORDER BY id DESC LIMIT $8";
const END_OF_STRETCH: &str =
    "SELECT id FROM trail WHERE sale_no = $1 AND id < $2 ORDER BY id DESC OFFSET $3 LIMIT 1";

/// Orders of a sale.
pub(crate) async fn find_orders(
    connection: &mut PgConnection,
    sale: &SaleId,
    find: &FindOrders,
) -> Result<Found<Order>> {
    number(connection, sale).await?;
    let mut found = if let Some(id) = find.order {
        let sql = format!("{ORDERS} AND orders.id = $2");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(sale.as_str()).bind(id.0);
        read(within(LONGEST, query.fetch_all(connection)).await?.iter(), None)?
    } else if matches!(find.status, Some(OrderStatus::Expired | OrderStatus::Cancelled)) {
        released(connection, sale, find).await?
    } else if let Some(user) = &find.user {
        let sql = format!("{ORDERS} AND released_at IS NULL AND user_id = $2");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(sale.as_str()).bind(user.as_str());
        read(within(LONGEST, query.fetch_all(connection)).await?.iter(), None)?
    } else {
        live(connection, sale, find).await?
    };
    let wanted = |order: &Order| {
        find.user.as_ref().is_none_or(|user| order.user_id == *user)
            && find.status.is_none_or(|status| order.status == status)
    };
    found.rows.retain(wanted);
    Ok(found)
}

fn read<'a>(
    rows: impl Iterator<Item = &'a sqlx::postgres::PgRow>,
    next: Option<i64>,
) -> Result<Found<Order>> {
    Ok(Found { rows: rows.map(order).collect::<Result<_>>()?, next })
}

/// Live orders, by unit downwards, which the index of units has in this order.
async fn live(connection: &mut PgConnection, sale: &SaleId, find: &FindOrders) -> Result<Found<Order>> {
    let before = match find.before {
        Some(before) => before,
        None => {
            let last = sqlx::query_scalar::<_, i64>(LAST_UNIT).bind(sale.as_str());
            within(LONGEST, last.fetch_one(&mut *connection)).await? + 1
        }
    };
    let (stretch, limit) = (before.saturating_sub(UNITS).max(1), i64::from(find.limit.max(1)));
    let sql = format!(
        "{ORDERS} AND released_at IS NULL AND unit < $2 AND unit >= $3 AND ($4::text IS NULL OR status = $4) \
         ORDER BY unit DESC LIMIT $5"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(sale.as_str())
        .bind(before)
        .bind(stretch)
        .bind(find.status.map(OrderStatus::as_str))
        .bind(limit);
    let rows = within(LONGEST, query.fetch_all(connection)).await?;
    let full = rows.len() as i64 == limit;
    let seen = rows.last().filter(|_| full).map_or(stretch, |row| i64::from(row.get::<i32, _>("unit")));
    read(rows.iter(), Some(seen).filter(|seen| *seen > 1))
}

/// Orders that ended, the newest first.
async fn released(connection: &mut PgConnection, sale: &SaleId, find: &FindOrders) -> Result<Found<Order>> {
    let limit = i64::from(find.limit.max(1));
    let sql = format!("{ORDERS} AND released_at IS NOT NULL AND seq < $2 ORDER BY seq DESC LIMIT $3");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(sale.as_str())
        .bind(find.before.unwrap_or(i64::MAX))
        .bind(limit);
    let rows = within(LONGEST, query.fetch_all(connection)).await?;
    let next = rows.last().filter(|_| rows.len() as i64 == limit).map(|row| row.get("seq"));
    read(rows.iter(), next)
}

/// Events of a sale's trail.
pub(crate) async fn find_events(
    connection: &mut PgConnection,
    sale: &SaleId,
    find: &FindEvents,
) -> Result<Found<AuditEvent>> {
    let no = number(connection, sale).await?;
    let (before, limit) = (find.before.unwrap_or(i64::MAX), i64::from(find.limit.max(1)));
    let (from, to) = kinds(find.event_type);
    let query = sqlx::query(EVENTS)
        .bind(no)
        .bind(before)
        .bind(ROWS)
        .bind(from)
        .bind(to)
        .bind(find.user.as_ref().map(UserId::as_str))
        .bind(find.event_type == Some(EventType::Confirmed))
        .bind(limit);
    let found = within(LONGEST, query.fetch_all(&mut *connection)).await?;
    let next = if found.len() as i64 == limit {
        found.last().map(|row| row.get("id"))
    } else {
        let end = sqlx::query_scalar::<_, i64>(END_OF_STRETCH).bind(no).bind(before).bind(ROWS - 1);
        within(LONGEST, end.fetch_optional(connection)).await?
    };
    let mut rows = Vec::with_capacity(2 * found.len());
    for row in &found {
        let wanted = |event: &AuditEvent| find.event_type.is_none_or(|wanted| event.event_type == wanted);
        rows.extend(events(sale, row)?.into_iter().rev().filter(wanted));
    }
    Ok(Found { rows, next })
}

/// The kinds of the trail's rows that show as such an event, from and to.
fn kinds(event_type: Option<EventType>) -> (i16, i16) {
    let one = |kind| (kind, kind);
    match event_type {
        None => (kind::RESERVED, kind::RECOVERED),
        Some(EventType::Attempted) => (kind::RESERVED, kind::REJECTED_NOT_ACTIVE),
        // A confirmation is a mark on the row of the reservation.
        Some(EventType::Reserved | EventType::Confirmed) => one(kind::RESERVED),
        Some(EventType::RejectedSoldOut) => one(kind::REJECTED_SOLD_OUT),
        Some(EventType::RejectedDuplicate) => one(kind::REJECTED_DUPLICATE),
        Some(EventType::RejectedNotActive) => one(kind::REJECTED_NOT_ACTIVE),
        Some(EventType::Expired) => one(kind::EXPIRED),
        Some(EventType::Cancelled) => one(kind::CANCELLED),
        Some(EventType::FailedDb) => one(kind::FAILED_DB),
        Some(EventType::AdminChanged) => one(kind::ADMIN_CHANGED),
        Some(EventType::AdminReset) => one(kind::ADMIN_RESET),
        Some(EventType::AdminDeleted) => one(kind::ADMIN_DELETED),
        Some(EventType::Recovered) => one(kind::RECOVERED),
    }
}
