//! The order store of the embedded profile: confirms through the ledger, reads beside it.

use std::sync::Arc;

use async_trait::async_trait;
use flashsale_core::{
    Error, Result,
    audit::AuditEvent,
    ids::{Epoch, SaleId, Unit},
    order::{Confirmation, Order, Reservation},
    ports::{Figures, FindEvents, FindOrders, Found, OrderStore, Page},
};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::{
    figures::count,
    inventory::Engine,
    ledger::{
        Readers, moment, order_id, parsed,
        record::{PLACE_BITS, keys_of},
        unreadable,
    },
    search,
};

/// The columns of a live order, of one sale.
macro_rules! live_order {
    () => {
        "SELECT key, id, epoch, key & 0xFFFFFFFFFF, user_id, CASE confirmed WHEN 1 THEN 'CONFIRMED' ELSE 'RESERVED' END, \
         reserved_at, CASE confirmed WHEN 1 THEN confirmed_at END, NULL FROM live_orders"
    };
}
/// The same of one that ended.
macro_rules! ended_order {
    () => {
        "SELECT key, id, epoch, unit, user_id, status, reserved_at, confirmed_at, released_at FROM ended_orders"
    };
}
pub(crate) use {ended_order, live_order};

/// A page needs at least one row, or it would never come to an end.
const LIMIT_MIN: u32 = 1;

/// Where the cursor of a sale's orders leaves the units of the live ones for the places of those that ended.
const ENDED: i64 = 1 << PLACE_BITS;

const LIVE_ORDERS: &str = concat!(live_order!(), " WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3");
const ENDED_ORDERS: &str = concat!(ended_order!(), " WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3");
pub(crate) const AUDIT: &str = "SELECT id, ?1, user_id, event_type, metadata, created_at FROM trail_events \
     WHERE key > ?2 AND key <= ?3 ORDER BY key, id";
const NUMBER: &str = "SELECT no, last_place FROM sales WHERE id = ?1 \
     UNION ALL SELECT no, last_place FROM retired_sales WHERE id = ?1";
const EPOCH: &str =
    "SELECT epoch FROM sales WHERE id = ?1 UNION ALL SELECT epoch FROM retired_sales WHERE id = ?1";
/// The store of a running server. Whoever reads it finds everything that was answered before.
pub(crate) struct Store {
    engine: Arc<Engine>,
    records: Records,
}

impl Store {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        let records = Records::new(engine.ledger().readers.clone());
        Self { engine, records }
    }
}

/// What can be read of the ledger, by a running server or beside it.
pub(crate) struct Records {
    readers: Arc<Readers>,
}

impl Records {
    pub(crate) fn new(readers: Arc<Readers>) -> Self {
        Self { readers }
    }

    async fn read<T: Send + 'static>(
        &self,
        sale: &SaleId,
        read: impl FnOnce(&Connection, &SaleId) -> rusqlite::Result<Option<T>> + Send + 'static,
    ) -> Result<T> {
        let sale = sale.clone();
        let read = move |connection: &Connection| {
            // One snapshot for all the statements of a read; dropping it ends it.
            let snapshot = connection.unchecked_transaction().map_err(|error| unreadable(&error))?;
            let found = read(&snapshot, &sale).map_err(|error| unreadable(&error))?;
            found.ok_or(Error::UnknownSale(sale))
        };
        self.readers.run(read).await
    }
}

#[async_trait]
impl OrderStore for Store {
    async fn confirm(&self, reservations: &[Reservation]) -> Result<Vec<Confirmation>> {
        self.engine.confirm_all(reservations).await
    }

    async fn epoch(&self, sale: &SaleId) -> Result<Epoch> {
        self.records.epoch(sale).await
    }

    async fn orders(&self, sale: &SaleId, after: i64, limit: u32) -> Result<Page<Order>> {
        self.engine.ledger().queue.flush().await?;
        self.records.orders(sale, after, limit).await
    }

    async fn audit(&self, sale: &SaleId, after: i64, limit: u32) -> Result<Page<AuditEvent>> {
        self.engine.ledger().queue.flush().await?;
        self.records.audit(sale, after, limit).await
    }

    async fn find_orders(&self, sale: &SaleId, find: &FindOrders) -> Result<Found<Order>> {
        self.engine.ledger().queue.flush().await?;
        self.records.find_orders(sale, find).await
    }

    async fn find_events(&self, sale: &SaleId, find: &FindEvents) -> Result<Found<AuditEvent>> {
        self.engine.ledger().queue.flush().await?;
        self.records.find_events(sale, find).await
    }

    async fn sale_ids(&self) -> Result<Vec<SaleId>> {
        self.records.sale_ids().await
    }

    async fn figures(&self, sale: &SaleId) -> Result<Figures> {
        self.engine.ledger().queue.flush().await?;
        self.records.figures(sale).await
    }
}

#[async_trait]
impl OrderStore for Records {
    async fn confirm(&self, _: &[Reservation]) -> Result<Vec<Confirmation>> {
        Err(Error::Conflict("The ledger is open for reading only".to_owned()))
    }

    async fn epoch(&self, sale: &SaleId) -> Result<Epoch> {
        let read = |connection: &Connection, sale: &SaleId| {
            let mut statement = connection.prepare_cached(EPOCH)?;
            statement.query_row([sale.as_str()], |row| row.get(0).map(Epoch)).optional()
        };
        self.read(sale, read).await
    }

    async fn orders(&self, sale: &SaleId, after: i64, limit: u32) -> Result<Page<Order>> {
        let limit = limit.max(LIMIT_MIN);
        self.read(sale, move |connection, sale| {
            let Some((no, _)) = number(connection, sale)? else { return Ok(None) };
            orders_of(connection, (no, sale), after, limit as usize).map(Some)
        })
        .await
    }

    async fn audit(&self, sale: &SaleId, after: i64, limit: u32) -> Result<Page<AuditEvent>> {
        let limit = i64::from(limit.max(LIMIT_MIN));
        self.read(sale, move |connection, sale| {
            let Some((no, last_place)) = number(connection, sale)? else { return Ok(None) };
            // The places of a sequence have no gaps, so a range of them is a page.
            let (first, end) = (i64::from(no) << PLACE_BITS, (i64::from(no) << PLACE_BITS) + last_place);
            let from = after.max(first);
            let to = from.saturating_add(limit).min(end);
            let mut statement = connection.prepare_cached(AUDIT)?;
            let rows = statement.query_map((sale.as_str(), from, to), audit_event)?;
            let rows = rows.collect::<rusqlite::Result<Vec<_>>>()?;
            Ok(Some(Page { rows, next: (to < end).then_some(to) }))
        })
        .await
    }

    async fn find_orders(&self, sale: &SaleId, find: &FindOrders) -> Result<Found<Order>> {
        let find = find.clone();
        self.read(sale, move |connection, sale| search::orders(connection, sale, &find)).await
    }

    async fn find_events(&self, sale: &SaleId, find: &FindEvents) -> Result<Found<AuditEvent>> {
        let find = find.clone();
        self.read(sale, move |connection, sale| search::events(connection, sale, &find)).await
    }

    async fn sale_ids(&self) -> Result<Vec<SaleId>> {
        let read = |connection: &Connection| {
            let mut statement = connection.prepare_cached("SELECT id FROM sales ORDER BY id")?;
            statement.query_map([], |row| parsed(row, 0))?.collect::<rusqlite::Result<_>>()
        };
        self.readers.run(move |connection| read(connection).map_err(|error| unreadable(&error))).await
    }

    async fn figures(&self, sale: &SaleId) -> Result<Figures> {
        self.read(sale, count).await
    }
}

pub(crate) fn number(connection: &Connection, sale: &SaleId) -> rusqlite::Result<Option<(u32, i64)>> {
    let mut statement = connection.prepare_cached(NUMBER)?;
    statement.query_row([sale.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// The live orders of a sale by their units, then those that ended by their places. An order that ends meanwhile may
/// come twice, and none is missed.
fn orders_of(
    connection: &Connection,
    (no, sale): (u32, &SaleId),
    after: i64,
    limit: usize,
) -> rusqlite::Result<Page<Order>> {
    let (first, end) = keys_of(no);
    let mut rows = Vec::new();
    let mut last = after;
    for (sql, base) in [(LIVE_ORDERS, 0), (ENDED_ORDERS, ENDED)] {
        let most = limit - rows.len();
        if last >= base + ENDED || most == 0 {
            continue;
        }
        let from = first + (last - base).max(0);
        let mut statement = connection.prepare_cached(sql)?;
        let mut found = statement.query((from, end, most))?;
        while let Some(row) = found.next()? {
            last = base + row.get::<_, i64>(0)? - first;
            rows.push(order(row, sale)?);
        }
    }
    let full = rows.len() == limit;
    Ok(Page { rows, next: Some(last).filter(|_| full) })
}

/// An order of the columns that `live_order!` and `ended_order!` name.
pub(crate) fn order(row: &Row<'_>, sale: &SaleId) -> rusqlite::Result<Order> {
    let maybe = |column| match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => moment(row, column).map(Some),
    };
    let reserved_at = moment(row, 6)?;
    Ok(Order {
        id: order_id(row, 1)?,
        sale_id: sale.clone(),
        epoch: Epoch(row.get(2)?),
        unit: Unit(row.get(3)?),
        user_id: parsed(row, 4)?,
        status: parsed(row, 5)?,
        reserved_at,
        created_at: reserved_at,
        confirmed_at: maybe(7)?,
        released_at: maybe(8)?,
    })
}

pub(crate) fn audit_event(row: &Row<'_>) -> rusqlite::Result<AuditEvent> {
    Ok(AuditEvent {
        id: row.get(0)?,
        sale_id: parsed(row, 1)?,
        user_id: parsed(row, 2)?,
        event_type: parsed(row, 3)?,
        metadata: row.get(4)?,
        created_at: parsed(row, 5)?,
    })
}
