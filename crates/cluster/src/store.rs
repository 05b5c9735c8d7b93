//! The order store: PostgreSQL. Confirms in one statement, reads in snapshots.

use std::{
    collections::{HashMap, HashSet},
    iter::Peekable,
    sync::Arc,
    time::Duration,
    vec,
};

use async_trait::async_trait;
use flashsale_core::{
    Error, Result,
    audit::{AuditEvent, EventType},
    clock::Timestamp,
    ids::{Epoch, OrderId, SaleId, Unit},
    order::{Confirmation, Order, Reservation},
    ports::{Figures, FindEvents, FindOrders, Found, OrderStore, Page},
};
use futures_util::TryStreamExt;
use serde::Serialize;
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use tokio::time::timeout;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    audit::Audit,
    broker::Broker,
    search,
    stock::{Stock, Trouble, generation_of},
};

/// The kinds of the trail's rows, as `trail_kinds` has them.
pub(crate) mod kind {
    pub(crate) const RESERVED: i16 = 1;
    pub(crate) const REJECTED_SOLD_OUT: i16 = 2;
    pub(crate) const REJECTED_DUPLICATE: i16 = 3;
    pub(crate) const REJECTED_NOT_ACTIVE: i16 = 4;
    pub(crate) const EXPIRED: i16 = 6;
    pub(crate) const CANCELLED: i16 = 7;
    pub(crate) const FAILED_DB: i16 = 8;
    pub(crate) const ADMIN_CREATED: i16 = 9;
    pub(crate) const ADMIN_CHANGED: i16 = 10;
    pub(crate) const ADMIN_RESET: i16 = 11;
    pub(crate) const ADMIN_DELETED: i16 = 12;
    pub(crate) const RECOVERED: i16 = 13;
}

/// How long a batch may take. A worker that is cut off from PostgreSQL must not hold its messages for long.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long anything else may take: PostgreSQL gives up before, if it is there.
pub(crate) const LONGEST: Duration = Duration::from_secs(150);

/// What the messages are told to other systems as.
const CONFIRMED_TOPIC: &str = "order.confirmed";

// The locks keep a reset, and the end of a recovery's drain, out until the batch is committed: what is of an older epoch
// (P7), or of a generation that is over, by then is passed over.
const CONFIRM: &str = "
WITH border AS (
    SELECT settled FROM installation FOR SHARE
), live AS (
    SELECT id, no, epoch FROM sales WHERE id = ANY($8) ORDER BY id FOR SHARE
), input AS (
    SELECT DISTINCT ON (one.id) one.*, live.no
    FROM unnest($1::uuid[], $2::text[], $3::int[], $4::bigint[], $5::int[], $6::text[], $7::bigint[])
        AS one (id, sale_id, epoch, place, unit, user_id, at)
    JOIN live ON live.id = one.sale_id AND live.epoch = one.epoch
    JOIN border ON one.place >> 32 >= border.settled
), added AS (
    INSERT INTO orders (id, sale_id, epoch, unit, user_id, status, place, reserved_at, confirmed_at)
    SELECT id, sale_id, epoch, unit, user_id, 'CONFIRMED', place,
           'epoch'::timestamptz + at * interval '1 millisecond', now()
    FROM input ORDER BY place
    ON CONFLICT DO NOTHING
    RETURNING id
), logged AS (
    INSERT INTO trail (sale_no, kind, epoch, place, at, user_id, unit, order_id, confirmed_at)
    SELECT no, 1, epoch, place, 'epoch'::timestamptz + at * interval '1 millisecond', user_id, unit, id, now()
    FROM input JOIN added USING (id) ORDER BY place
)
SELECT id FROM added";

// Once, however often it is tried.
const PUT_ASIDE: &str = "INSERT INTO trail (sale_no, kind, epoch, place, at, user_id, unit, order_id, detail) \
     SELECT no, 8, $2, $3, now(), $4, $5, $6, jsonb_build_object('reason', $7::text) FROM sales WHERE id = $1 \
     ON CONFLICT (sale_no, order_id) WHERE kind = 8 DO NOTHING";

const KNOWN: &str = "SELECT id, released_at IS NOT NULL AS ended FROM orders WHERE id = ANY($1)";
const EPOCHS: &str = "SELECT id, epoch FROM sales WHERE id = ANY($1)";
const SETTLED: &str = "SELECT settled FROM installation";

const ORDERS: &str = "SELECT seq, id, sale_id, epoch, unit, user_id, status, \
     (extract(epoch FROM reserved_at) * 1000)::bigint AS reserved_at, \
     (extract(epoch FROM created_at) * 1000)::bigint AS created_at, \
     (extract(epoch FROM confirmed_at) * 1000)::bigint AS confirmed_at, \
     (extract(epoch FROM released_at) * 1000)::bigint AS released_at \
     FROM orders WHERE sale_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";

const NUMBER: &str =
    "SELECT no FROM sales WHERE id = $1 UNION ALL SELECT no FROM retired_sales WHERE id = $1";

const EPOCH: &str =
    "SELECT epoch FROM sales WHERE id = $1 UNION ALL SELECT epoch FROM retired_sales WHERE id = $1";

const TRAIL: &str = "SELECT id, kind, epoch, place, user_id, unit, order_id, detail::text AS detail, \
     (extract(epoch FROM at) * 1000)::bigint AS at, \
     (extract(epoch FROM confirmed_at) * 1000)::bigint AS confirmed_at \
     FROM trail WHERE sale_no = $1 AND id > $2 ORDER BY id LIMIT $3";

const ORDER_FIGURES: &str = "SELECT \
     count(*) FILTER (WHERE epoch = $2 AND status = 'CONFIRMED'), \
     count(*) FILTER (WHERE epoch = $2 AND released_at IS NOT NULL), \
     count(*) FILTER (WHERE epoch <> $2), \
     count(*) FILTER (WHERE epoch = $2 AND released_at IS NULL AND unit NOT BETWEEN 1 AND $3), \
     count(DISTINCT unit) FILTER (WHERE epoch = $2 AND released_at IS NULL AND unit BETWEEN 1 AND $3) \
     FROM orders WHERE sale_id = $1";
const USERS_WITH_TWO: &str = "SELECT count(*) FROM (SELECT FROM orders \
     WHERE sale_id = $1 AND epoch = $2 AND released_at IS NULL GROUP BY user_id HAVING count(*) > 1) AS two";
const UNITS_SOLD_TWICE: &str = "SELECT count(*) FROM (SELECT FROM orders \
     WHERE sale_id = $1 AND epoch = $2 AND released_at IS NULL GROUP BY unit HAVING count(*) > 1) AS two";
const TRAIL_FIGURES: &str = "SELECT \
     count(*), \
     count(*) FILTER (WHERE kind BETWEEN 2 AND 4), \
     count(*) FILTER (WHERE kind = 1 AND epoch = $2), \
     count(*) FILTER (WHERE kind = 2 AND epoch = $2), \
     count(*) FILTER (WHERE kind = 3 AND epoch = $2), \
     count(*) FILTER (WHERE kind = 4 AND epoch = $2), \
     count(*) FILTER (WHERE kind = 1 AND epoch = $2 AND confirmed_at IS NOT NULL), \
     count(*) FILTER (WHERE kind = 8 AND epoch = $2), \
     count(*) FILTER (WHERE kind NOT BETWEEN 6 AND 13 AND epoch = $2) \
     FROM trail WHERE sale_no = $1";
const RUNS: &str = "SELECT coalesce(sum(last), 0)::bigint FROM runs WHERE sale_no = $1";
const WITHOUT_RECORD: &str = "SELECT count(*) FROM \
     (SELECT id, place, unit, user_id FROM orders WHERE sale_id = $1) AS had FULL JOIN \
     (SELECT order_id, place, unit, user_id FROM trail WHERE sale_no = $3 AND kind = 1 AND epoch = $2) AS told \
     ON told.order_id = had.id AND told.place = had.place AND told.unit = had.unit AND told.user_id = had.user_id \
     WHERE had.id IS NULL OR told.order_id IS NULL";
const ENDINGS_WITHOUT_RECORD: &str = "SELECT count(*) FROM \
     (SELECT id, status FROM orders WHERE sale_id = $1 AND epoch = $2 AND released_at IS NOT NULL) AS had FULL JOIN \
     (SELECT order_id, event_type FROM trail JOIN trail_kinds USING (kind) \
      WHERE sale_no = $3 AND kind IN (6, 7) AND epoch = $2) AS told \
     ON told.order_id = had.id AND told.event_type = had.status WHERE had.id IS NULL OR told.order_id IS NULL";
const CONFIRMATIONS_WITHOUT_RECORD: &str = "SELECT count(*) FROM \
     (SELECT id FROM orders WHERE sale_id = $1 AND epoch = $2 AND confirmed_at IS NOT NULL) AS had FULL JOIN \
     (SELECT order_id FROM trail WHERE sale_no = $3 AND kind = 1 AND epoch = $2 AND confirmed_at IS NOT NULL) AS told \
     ON told.order_id = had.id WHERE had.id IS NULL OR told.order_id IS NULL";
const EVENTS: &str = "SELECT place, kind, epoch = $2 AS counted, (detail ->> 'totalStock')::bigint AS total FROM trail \
     WHERE sale_no = $1 AND kind IN (1, 6, 7, 9, 10, 11, 12, 13) ORDER BY place";
const SOLD_OUTS: &str = "SELECT place, count(*) FILTER (WHERE epoch = $2) AS counted FROM trail \
     WHERE sale_no = $1 AND kind = 2 GROUP BY place ORDER BY place";

/// What PostgreSQL says, in the words of the one who has to act on it.
#[expect(clippy::needless_pass_by_value, reason = "it is for `map_err`")]
pub(crate) fn database(error: sqlx::Error) -> Error {
    if let sqlx::Error::Database(said) = &error
        && said.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
    {
        return Error::Refused(said.message().to_owned());
    }
    // What it says may name hosts and users, and is for the operator.
    warn!(%error, "PostgreSQL cannot do it");
    Error::Unavailable { reason: "PostgreSQL is away".to_owned(), retry_after: Duration::from_secs(2) }
}

/// It may be there, and says nothing: its host is gone.
pub(crate) fn mute() -> Error {
    Error::unavailable("PostgreSQL does not answer")
}

/// What PostgreSQL says, if it says anything in time.
pub(crate) async fn within<T>(patience: Duration, reply: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    timeout(patience, reply).await.map_err(|_| mute())?.map_err(database)
}

/// The store.
pub(crate) struct Store {
    pool: PgPool,
    /// Where orders are marked as stored; none when only the records are looked at.
    stock: Option<Stock>,
    broker: Option<Arc<Broker>>,
    /// Rows that whoever reads must find.
    audit: Option<Arc<Audit>>,
}

impl Store {
    pub(crate) fn new(
        pool: PgPool,
        stock: Option<Stock>,
        broker: Option<Arc<Broker>>,
        audit: Option<Arc<Audit>>,
    ) -> Self {
        Self { pool, stock, broker, audit }
    }

    async fn flush(&self) {
        if let Some(audit) = &self.audit {
            audit.flush().await;
        }
    }

    /// Marks orders in Redis. Where Redis is being rebuilt the mark is not needed: it is read from here.
    async fn mark(&self, reservations: &[Reservation], confirmations: &[Confirmation]) -> Result<()> {
        let Some(stock) = &self.stock else { return Ok(()) };
        for (sale, epoch, orders) in by_sale(reservations, confirmations) {
            let orders: Vec<_> =
                orders.iter().map(|order| (order.user_id.as_str(), order.order_id.to_string())).collect();
            match stock.confirm(sale, epoch, &orders).await {
                Ok(()) => {}
                Err(Trouble::Away(why)) => return Err(Trouble::Away(why).into()),
                Err(trouble) => debug!(%sale, ?trouble, "confirmed orders are not marked"),
            }
        }
        Ok(())
    }

    /// Puts a reservation aside that is refused for good: on record, and to the dead letters with the reason.
    pub(crate) async fn put_aside(&self, one: &Reservation, reason: &str) -> Result<()> {
        let record = sqlx::query(PUT_ASIDE)
            .bind(one.sale_id.as_str())
            .bind(signed(one.epoch.0))
            .bind(one.place.0.cast_signed())
            .bind(one.user_id.as_str())
            .bind(signed(one.unit.0))
            .bind(one.order_id.0)
            .bind(reason);
        within(PATIENCE, record.execute(&self.pool)).await?;
        let Some(broker) = &self.broker else { return Ok(()) };
        let payload = serde_json::to_vec(one).expect("a reservation is plain data");
        broker.bury(&payload, reason).await
    }

    /// Tells other systems.
    async fn tell(&self, reservations: &[Reservation], confirmations: &[Confirmation]) {
        let Some(broker) = &self.broker else { return };
        for (sale, epoch, orders) in by_sale(reservations, confirmations) {
            let event = Confirmed { version: 1, sale_id: sale, epoch, orders: &orders };
            let payload = serde_json::to_vec(&event).expect("an event is plain data");
            broker.tell(&format!("{CONFIRMED_TOPIC}.{sale}"), &payload).await;
        }
    }
}

/// What other systems hear.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Confirmed<'a> {
    version: u32,
    sale_id: &'a SaleId,
    epoch: Epoch,
    orders: &'a [&'a Reservation],
}

/// What is confirmed, by sale and epoch.
fn by_sale<'a>(
    reservations: &'a [Reservation],
    confirmations: &[Confirmation],
) -> Vec<(&'a SaleId, Epoch, Vec<&'a Reservation>)> {
    let mut sales: HashMap<(&SaleId, Epoch), Vec<&Reservation>> = HashMap::new();
    for (reservation, confirmation) in reservations.iter().zip(confirmations) {
        if *confirmation != Confirmation::Stale {
            sales.entry((&reservation.sale_id, reservation.epoch)).or_default().push(reservation);
        }
    }
    sales.into_iter().map(|((sale, epoch), orders)| (sale, epoch, orders)).collect()
}

/// Writes what is new, and says what became of each.
async fn record(pool: &PgPool, reservations: &[Reservation]) -> Result<Vec<Confirmation>> {
    let ids: Vec<Uuid> = reservations.iter().map(|one| one.order_id.0).collect();
    let sales: Vec<&str> = reservations.iter().map(|one| one.sale_id.as_str()).collect();
    let epochs: Vec<i32> = reservations.iter().map(|one| signed(one.epoch.0)).collect();
    let places: Vec<i64> = reservations.iter().map(|one| one.place.0.cast_signed()).collect();
    let units: Vec<i32> = reservations.iter().map(|one| signed(one.unit.0)).collect();
    let users: Vec<&str> = reservations.iter().map(|one| one.user_id.as_str()).collect();
    let times: Vec<i64> = reservations.iter().map(|one| one.reserved_at.as_millis()).collect();
    let mut different = sales.clone();
    different.sort_unstable();
    different.dedup();
    let insert = sqlx::query_scalar::<_, Uuid>(CONFIRM)
        .bind(&ids)
        .bind(&sales)
        .bind(&epochs)
        .bind(&places)
        .bind(&units)
        .bind(&users)
        .bind(&times)
        .bind(&different);
    let mut added: HashSet<Uuid> = within(PATIENCE, insert.fetch_all(pool)).await?.into_iter().collect();
    if added.len() == ids.len() {
        return Ok(vec![Confirmation::Confirmed; ids.len()]);
    }
    let rest: Vec<Uuid> = ids.iter().copied().filter(|id| !added.contains(id)).collect();
    let rest = Rest::read(pool, &rest, &different).await?;
    reservations
        .iter()
        // A second time in the same batch is a message that came twice.
        .map(|one| match added.remove(&one.order_id.0) {
            true => Ok(Confirmation::Confirmed),
            false => rest.judge(one),
        })
        .collect()
}

/// What is known of the reservations that were not inserted.
struct Rest {
    orders: HashMap<Uuid, bool>,
    epochs: HashMap<String, i32>,
    /// Nothing is under way of generations before this one.
    settled: i32,
}

impl Rest {
    async fn read(pool: &PgPool, ids: &[Uuid], sales: &[&str]) -> Result<Self> {
        // First, so that what a recovery stores meanwhile is found.
        let settled = within(PATIENCE, sqlx::query_scalar(SETTLED).fetch_one(pool)).await?;
        let orders = within(PATIENCE, sqlx::query(KNOWN).bind(ids).fetch_all(pool)).await?;
        let epochs = within(PATIENCE, sqlx::query(EPOCHS).bind(sales).fetch_all(pool)).await?;
        Ok(Self {
            settled,
            orders: orders.iter().map(|row| (row.get("id"), row.get("ended"))).collect(),
            epochs: epochs.iter().map(|row| (row.get("id"), row.get("epoch"))).collect(),
        })
    }

    fn judge(&self, one: &Reservation) -> Result<Confirmation> {
        let own = signed(one.epoch.0);
        match (self.epochs.get(one.sale_id.as_str()), self.orders.get(&one.order_id.0)) {
            // A deleted sale, or an older epoch (P7).
            (None, _) => Ok(Confirmation::Stale),
            (Some(epoch), _) if *epoch > own => Ok(Confirmation::Stale),
            (Some(epoch), _) if *epoch < own => {
                Err(Error::Refused(format!("it is of epoch {own}, and the records know {epoch} only")))
            }
            (_, Some(true)) => Ok(Confirmation::Stale),
            (_, Some(false)) => Ok(Confirmation::AlreadyConfirmed),
            (_, None) if signed(generation_of(one.place)) < self.settled => {
                Err(Error::Refused("it is of a generation that is over".to_owned()))
            }
            (_, None) => Err(Error::Refused(format!(
                "order {} is for unit {} and user {}, one of which another live order has",
                one.order_id, one.unit, one.user_id
            ))),
        }
    }
}

#[async_trait]
impl OrderStore for Store {
    async fn confirm(&self, reservations: &[Reservation]) -> Result<Vec<Confirmation>> {
        let confirmations = record(&self.pool, reservations).await?;
        self.mark(reservations, &confirmations).await?;
        self.tell(reservations, &confirmations).await;
        Ok(confirmations)
    }

    async fn epoch(&self, sale: &SaleId) -> Result<Epoch> {
        let found = sqlx::query(EPOCH).bind(sale.as_str()).fetch_optional(&self.pool).await;
        let found = found.map_err(database)?.ok_or_else(|| Error::UnknownSale(sale.clone()))?;
        Ok(Epoch(unsigned(&found, "epoch")))
    }

    async fn orders(&self, sale: &SaleId, after: i64, limit: u32) -> Result<Page<Order>> {
        let limit = limit.max(1);
        let mut connection = self.pool.acquire().await.map_err(database)?;
        number(&mut connection, sale).await?;
        let query = sqlx::query(ORDERS).bind(sale.as_str()).bind(after).bind(i64::from(limit));
        let found = within(LONGEST, query.fetch_all(&mut *connection)).await?;
        let next = found.last().filter(|_| found.len() == limit as usize).map(|row| row.get("seq"));
        Ok(Page { rows: found.iter().map(order).collect::<Result<_>>()?, next })
    }

    async fn audit(&self, sale: &SaleId, after: i64, limit: u32) -> Result<Page<AuditEvent>> {
        self.flush().await;
        let limit = limit.max(1);
        let mut connection = self.pool.acquire().await.map_err(database)?;
        let no = number(&mut connection, sale).await?;
        let query = sqlx::query(TRAIL).bind(no).bind(after).bind(i64::from(limit));
        let found = within(LONGEST, query.fetch_all(&mut *connection)).await?;
        let next = found.last().filter(|_| found.len() == limit as usize).map(|row| row.get("id"));
        let rows = found.iter().map(|row| events(sale, row)).collect::<Result<Vec<_>>>()?;
        Ok(Page { rows: rows.into_iter().flatten().collect(), next })
    }

    async fn find_orders(&self, sale: &SaleId, find: &FindOrders) -> Result<Found<Order>> {
        let mut connection = self.pool.acquire().await.map_err(database)?;
        search::find_orders(&mut connection, sale, find).await
    }

    async fn find_events(&self, sale: &SaleId, find: &FindEvents) -> Result<Found<AuditEvent>> {
        self.flush().await;
        let mut connection = self.pool.acquire().await.map_err(database)?;
        search::find_events(&mut connection, sale, find).await
    }

    async fn sale_ids(&self) -> Result<Vec<SaleId>> {
        let ids = sqlx::query_scalar::<_, String>("SELECT id FROM sales ORDER BY id COLLATE \"C\"");
        let ids = ids.fetch_all(&self.pool).await.map_err(database)?;
        ids.iter().map(|id| id.parse().map_err(Error::from)).collect()
    }

    async fn figures(&self, sale: &SaleId) -> Result<Figures> {
        self.flush().await;
        let mut figures = timeout(2 * LONGEST, count(&self.pool, sale)).await.map_err(|_| mute())??;
        let Some(stock) = &self.stock else { return Ok(figures) };
        match stock.status(sale).await {
            Ok(state) if state.sale.epoch == figures.epoch => {
                let held = u64::from(state.sale.total_stock - state.available);
                figures.reserved = held.saturating_sub(figures.confirmed);
                figures.available = u64::from(state.available);
                // A reservation on its way is on record in the outbox, and its row comes with its order.
                figures.attempts_reserved += figures.reserved;
                figures.attempted += figures.reserved;
                figures.places_missing = figures.places_missing.saturating_sub(figures.reserved);
            }
            Ok(_) => warn!(%sale, "Redis is in another epoch; only the records are counted"),
            Err(trouble) => warn!(%sale, ?trouble, "Redis says nothing; only the records are counted"),
        }
        Ok(figures)
    }
}

pub(crate) async fn number(connection: &mut PgConnection, sale: &SaleId) -> Result<i32> {
    let found = sqlx::query_scalar(NUMBER).bind(sale.as_str()).fetch_optional(connection).await;
    found.map_err(database)?.ok_or_else(|| Error::UnknownSale(sale.clone()))
}

/// A column that the schema keeps non-negative.
pub(crate) fn unsigned(row: &PgRow, column: &str) -> u32 {
    u32::try_from(row.get::<i32, _>(column)).unwrap_or_default()
}

/// Epochs and units are far below the bound of either.
pub(crate) fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn moment(row: &PgRow, column: &str) -> Option<Timestamp> {
    row.get::<Option<i64>, _>(column).map(Timestamp::from_millis)
}

pub(crate) fn order(row: &PgRow) -> Result<Order> {
    Ok(Order {
        id: OrderId(row.get("id")),
        sale_id: row.get::<&str, _>("sale_id").parse()?,
        epoch: Epoch(unsigned(row, "epoch")),
        unit: Unit(unsigned(row, "unit")),
        user_id: row.get::<&str, _>("user_id").parse()?,
        status: row.get::<&str, _>("status").parse()?,
        reserved_at: moment(row, "reserved_at").unwrap_or(Timestamp::MIN),
        created_at: moment(row, "created_at").unwrap_or(Timestamp::MIN),
        confirmed_at: moment(row, "confirmed_at"),
        released_at: moment(row, "released_at"),
    })
}

/// The events that a row of the trail shows, as the view `order_audit_trail` does.
pub(crate) fn events(sale: &SaleId, row: &PgRow) -> Result<Vec<AuditEvent>> {
    use EventType as Type;
    let (outcome, attempt) = match row.get::<i16, _>("kind") {
        kind::RESERVED => (Type::Reserved, true),
        kind::REJECTED_SOLD_OUT => (Type::RejectedSoldOut, true),
        kind::REJECTED_DUPLICATE => (Type::RejectedDuplicate, true),
        kind::REJECTED_NOT_ACTIVE => (Type::RejectedNotActive, true),
        kind::EXPIRED => (Type::Expired, false),
        kind::CANCELLED => (Type::Cancelled, false),
        kind::FAILED_DB => (Type::FailedDb, false),
        kind::ADMIN_CHANGED => (Type::AdminChanged, false),
        kind::ADMIN_RESET => (Type::AdminReset, false),
        kind::ADMIN_DELETED => (Type::AdminDeleted, false),
        kind::RECOVERED => (Type::Recovered, false),
        // The making of a sale is before all attempts.
        _ => return Ok(Vec::new()),
    };
    let mut plain = serde_json::Map::new();
    plain.insert("epoch".into(), row.get::<i32, _>("epoch").into());
    plain.insert("place".into(), row.get::<i64, _>("place").into());
    let mut held = plain.clone();
    if let Some(unit) = row.get::<Option<i32>, _>("unit") {
        held.insert("unit".into(), unit.into());
    }
    if let Some(order) = row.get::<Option<Uuid>, _>("order_id") {
        held.insert("orderId".into(), order.to_string().into());
    }
    let mut full = held.clone();
    if let Some(Ok(serde_json::Value::Object(detail))) =
        row.get::<Option<&str>, _>("detail").map(serde_json::from_str)
    {
        full.extend(detail);
    }
    let (id, at) = (row.get::<i64, _>("id"), moment(row, "at").unwrap_or(Timestamp::MIN));
    let event = |part, event_type, metadata, created_at| {
        let user_id = row.get::<&str, _>("user_id").parse()?;
        let metadata = serde_json::Value::Object(metadata).to_string();
        Ok::<_, Error>(AuditEvent {
            id: 3 * id + part,
            sale_id: sale.clone(),
            user_id,
            event_type,
            metadata,
            created_at,
        })
    };
    let mut shown = Vec::new();
    if attempt {
        shown.push(event(0, Type::Attempted, plain, at)?);
    }
    shown.push(event(1, outcome, full, at)?);
    if let Some(confirmed_at) = moment(row, "confirmed_at") {
        shown.push(event(2, Type::Confirmed, held, confirmed_at)?);
    }
    Ok(shown)
}

/// Counts a sale row by row, in one snapshot.
async fn count(pool: &PgPool, sale: &SaleId) -> Result<Figures> {
    let mut snapshot = pool.begin().await.map_err(database)?;
    let read_only = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
    sqlx::query(read_only).execute(&mut *snapshot).await.map_err(database)?;
    let found = sqlx::query("SELECT no, epoch, total_stock FROM sales WHERE id = $1").bind(sale.as_str());
    let found = found.fetch_optional(&mut *snapshot).await.map_err(database)?;
    let found = found.ok_or_else(|| Error::UnknownSale(sale.clone()))?;
    let (no, epoch, total): (i32, i32, i32) = (found.get("no"), found.get("epoch"), found.get("total_stock"));

    let orders = sqlx::query(ORDER_FIGURES).bind(sale.as_str()).bind(epoch).bind(total);
    let orders = numbers(&orders.fetch_one(&mut *snapshot).await.map_err(database)?);
    let trail = sqlx::query(TRAIL_FIGURES).bind(no).bind(epoch);
    let trail = numbers(&trail.fetch_one(&mut *snapshot).await.map_err(database)?);
    let numbered = sqlx::query(RUNS).bind(no);
    let numbered = numbers(&numbered.fetch_one(&mut *snapshot).await.map_err(database)?)[0];
    let mut single = async |sql| -> Result<u64> {
        let query = sqlx::query(sql).bind(sale.as_str()).bind(epoch);
        Ok(numbers(&query.fetch_one(&mut *snapshot).await.map_err(database)?)[0])
    };
    let (users_with_two, units_sold_twice) = (single(USERS_WITH_TWO).await?, single(UNITS_SOLD_TWICE).await?);
    let mut without_record = async |sql| -> Result<u64> {
        let query = sqlx::query(sql).bind(sale.as_str()).bind(epoch).bind(no);
        Ok(numbers(&query.fetch_one(&mut *snapshot).await.map_err(database)?)[0])
    };
    let orders_without_record = without_record(WITHOUT_RECORD).await?;
    let endings_without_record = without_record(ENDINGS_WITHOUT_RECORD).await?;
    let confirmations_without_record = without_record(CONFIRMATIONS_WITHOUT_RECORD).await?;
    let walk = walk(&mut snapshot, no, epoch).await?;
    snapshot.commit().await.map_err(database)?;

    let total = u64::from(total.unsigned_abs());
    Ok(Figures {
        epoch: Epoch(epoch.unsigned_abs()),
        total_stock: total,
        available: total.saturating_sub(orders[4]),
        reserved: 0,
        confirmed: orders[0],
        released: orders[1],
        orders_of_other_epochs: orders[2],
        units_outside_stock: orders[3],
        users_with_two,
        units_sold_twice,
        attempted: trail[8],
        attempts_reserved: trail[2],
        attempts_sold_out: trail[3],
        attempts_duplicate: trail[4],
        attempts_not_active: trail[5],
        audited_confirmed: trail[6],
        orders_without_record,
        endings_without_record,
        confirmations_without_record,
        stock_on_record: u64::try_from(walk.total).unwrap_or_default(),
        records: trail[0],
        records_missing: numbered.saturating_sub(trail[1]),
        records_unexpected: trail[1].saturating_sub(numbered),
        // What is put aside keeps its place.
        places_missing: walk.missing.saturating_sub(trail[7]),
        orders_refused: trail[7],
        sold_out_too_early: walk.early,
    })
}

fn numbers(row: &PgRow) -> Vec<u64> {
    (0..row.len()).map(|column| u64::try_from(row.get::<i64, _>(column)).unwrap_or_default()).collect()
}

/// Along a sale's events: how many were told SOLD_OUT although, after the event that it rests on, a unit was free.
///
/// Those whose events are not all on record yet (reservations on their way) are not judged, nor those that rest on a
/// place that was lost with its generation. A recovery begins with what is on record, and with it the judging.
async fn walk(snapshot: &mut PgConnection, no: i32, epoch: i32) -> Result<Walk> {
    let sold_outs = sqlx::query(SOLD_OUTS).bind(no).bind(epoch).fetch_all(&mut *snapshot).await;
    let sold_outs = sold_outs.map_err(database)?.into_iter().map(|row| {
        let count = u64::try_from(row.get::<i64, _>("counted")).unwrap_or_default();
        (row.get::<i64, _>("place").cast_unsigned(), count)
    });
    let mut walk = Walk::new(sold_outs.collect());
    // One after the other: there may be tens of millions.
    let mut events = sqlx::query(EVENTS).bind(no).bind(epoch).fetch(snapshot);
    while let Some(row) = events.try_next().await.map_err(database)? {
        walk.pass(&Happened {
            place: row.get::<i64, _>("place").cast_unsigned(),
            kind: row.get("kind"),
            counted: row.get("counted"),
            total: row.get("total"),
        });
    }
    Ok(walk)
}

/// An event that changed the stock.
struct Happened {
    place: u64,
    kind: i16,
    /// Whether it is of the epoch that is counted.
    counted: bool,
    total: Option<i64>,
}

/// Along a sale's events, in their order.
struct Walk {
    /// By the place that they rest on, ascending: how many were told SOLD_OUT.
    sold_outs: Peekable<vec::IntoIter<(u64, u64)>>,
    live: i64,
    total: i64,
    last: Option<u64>,
    /// Whether all events since the generation's first are on record.
    complete: bool,
    early: u64,
    /// Places of the counted epoch that are on no record.
    missing: u64,
}

impl Walk {
    fn new(sold_outs: Vec<(u64, u64)>) -> Self {
        let sold_outs = sold_outs.into_iter().peekable();
        Self { sold_outs, live: 0, total: 0, last: None, complete: true, early: 0, missing: 0 }
    }

    fn pass(&mut self, event: &Happened) {
        // What rests on a place before this event, and on none that is on record, is not judged.
        while self.sold_outs.next_if(|(place, _)| *place < event.place).is_some() {}
        let begins = event.place.trailing_zeros() >= 32;
        if event.counted && !begins {
            let last = self.last.unwrap_or_default().max(event.place & !u64::from(u32::MAX));
            self.missing += event.place.saturating_sub(last + 1);
        }
        self.complete = begins || self.complete && self.last.is_none_or(|last| event.place == last + 1);
        self.last = Some(event.place);
        match event.kind {
            kind::RESERVED => self.live += 1,
            kind::EXPIRED | kind::CANCELLED => self.live -= 1,
            kind::ADMIN_RESET | kind::ADMIN_DELETED => self.live = 0,
            _ => {}
        }
        self.total = event.total.unwrap_or(self.total);
        if let Some((_, count)) = self.sold_outs.next_if(|(place, _)| *place == event.place)
            && self.complete
            && self.live < self.total
        {
            self.early += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(place: u64, kind: i16, total: Option<i64>) -> Happened {
        Happened { place, kind, counted: true, total }
    }

    fn walk(
        events: impl IntoIterator<Item = Happened>,
        sold_outs: impl IntoIterator<Item = (u64, u64)>,
    ) -> u64 {
        let mut walk = Walk::new(sold_outs.into_iter().collect());
        events.into_iter().for_each(|event| walk.pass(&event));
        walk.early
    }

    const FIRST: u64 = 1 << 32;

    fn history() -> Vec<Happened> {
        vec![
            event(FIRST, kind::ADMIN_CREATED, Some(2)),
            event(FIRST + 1, kind::RESERVED, None),
            event(FIRST + 2, kind::RESERVED, None),
            event(FIRST + 3, kind::CANCELLED, None),
            event(2 * FIRST, kind::RECOVERED, None),
        ]
    }

    #[test]
    fn after_a_place_that_is_lost_judging_begins_again_with_the_recovery() {
        let mut lossy = history();
        lossy.remove(1);
        assert_eq!(walk(lossy, [(2 * FIRST, 3)]), 3);
    }

    #[test]
    fn a_sold_out_is_judged_at_the_place_that_it_rests_on() {
        let judged = |place| walk(history(), [(place, 3)]);
        assert_eq!(judged(FIRST), 3);
        assert_eq!(judged(FIRST + 1), 3);
        assert_eq!(judged(FIRST + 2), 0);
        assert_eq!(judged(FIRST + 3), 3);
        assert_eq!(judged(2 * FIRST), 3, "the recovered sale has a unit free");
    }

    #[test]
    fn what_rests_on_a_place_that_nobody_recorded_is_not_judged() {
        let lost = walk(history(), [(FIRST + 9, 1)]);
        assert_eq!(lost, 0, "lost with its generation");
        let mut under_way = history();
        under_way.remove(1);
        let gap = walk(under_way, [(FIRST + 2, 1)]);
        assert_eq!(gap, 0, "a reservation before it is on its way");
    }
}
