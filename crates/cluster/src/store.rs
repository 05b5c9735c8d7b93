//! The order store: PostgreSQL. Confirms in one statement, reads in snapshots.

use std::{
    collections::{HashMap, HashSet},
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
use serde::Serialize;
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use tokio::time::timeout;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{
    audit::Audit,
    broker::Broker,
    figures::count,
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
