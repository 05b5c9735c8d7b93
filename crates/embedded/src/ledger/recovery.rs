//! The way back from the file to memory, at every start.
//!
//! Memory is rebuilt from the ledger alone: each live order is replayed into its sale's state machine, which
//! refuses what contradicts itself (a unit held twice, a user with two units, a unit outside the stock).

use std::{collections::HashMap, path::Path, sync::Arc};

use flashsale_core::{
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, SaleId, Unit, UserId},
    inventory::{Event, Inventory},
    order::Reservation,
    product::{Price, Product},
    sale::{Sale, Window},
};
use rusqlite::{Connection, Row, types::Type};

use super::record::keys_of;
use crate::{Found, OpenError, sales::SaleCell};

const SALES: &str = "SELECT no, id, name, total_stock, starts_at, ends_at, epoch, paused, last_place, \
     description, image_url, price, currency FROM sales";
const NEXT_NO: &str = "SELECT 1 + max(coalesce((SELECT max(no) FROM sales), 0), \
     coalesce((SELECT max(no) FROM retired_sales), 0))";
const HELD: &str = "SELECT count(*) FROM live_orders WHERE key > ?1 AND key < ?2";
const LIVE_ORDERS: &str = "SELECT key >> 40, id, epoch, key & 0xFFFFFFFFFF, user_id, confirmed, reserved_at, place \
     FROM live_orders ORDER BY key";

/// What a start has read.
pub(crate) struct Recovered {
    pub(crate) cells: Vec<Arc<SaleCell>>,
    pub(crate) next_no: u32,
    pub(crate) found: Found,
}

/// Reads all sales and their live orders.
pub(crate) fn recover(connection: &Connection, path: &Path) -> Result<Recovered, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.display().to_string(), source };
    let mut sales = read_sales(connection).map_err(sqlite)?;
    let mut found = Found { sales: sales.len(), ..Found::default() };

    make_room(connection, &mut sales).map_err(sqlite)?;
    let mut statement = connection.prepare(LIVE_ORDERS).map_err(sqlite)?;
    let mut rows = statement.query([]).map_err(sqlite)?;
    while let Some(row) = rows.next().map_err(sqlite)? {
        let Some(inventory) = sales.get_mut(&row.get(0).map_err(sqlite)?) else { continue };
        let (order, confirmed) = read_order(row, &inventory.sale().id).map_err(sqlite)?;
        let user_id = order.user_id.clone();
        inventory.replay(&Event::Reserved(order))?;
        if confirmed {
            inventory.replay(&Event::Confirmed { user_id })?;
            found.confirmed += 1;
        } else {
            found.reserved += 1;
        }
    }
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(sqlite);
    let next_no = u32::try_from(number(NEXT_NO)?).expect("the schema holds numbers below a million");
    let cells = sales.into_iter().map(|(no, inventory)| Arc::new(SaleCell::new(no, inventory))).collect();
    Ok(Recovered { cells, next_no, found })
}

/// The sales by their numbers.
fn read_sales(connection: &Connection) -> rusqlite::Result<HashMap<u32, Inventory>> {
    let mut statement = connection.prepare(SALES)?;
    let rows = statement.query_map([], |row| {
        let no = row.get(0)?;
        let (starts_at, ends_at): (Timestamp, _) = (parsed(row, 4)?, parsed(row, 5)?);
        let window = Window::new(starts_at, ends_at).map_err(|error| broken(5, error))?;
        let sale = Sale {
            id: parsed(row, 1)?,
            name: row.get(2)?,
            total_stock: row.get(3)?,
            window,
            epoch: Epoch(row.get(6)?),
            paused: row.get(7)?,
            product: Arc::new(product(row)?),
        };
        let place: i64 = row.get(8)?;
        Ok((no, Inventory::new(sale, Place(place.cast_unsigned()))))
    })?;
    rows.collect()
}

/// Tables that grow while millions are read would move each of them again and again.
fn make_room(connection: &Connection, sales: &mut HashMap<u32, Inventory>) -> rusqlite::Result<()> {
    let mut held = connection.prepare(HELD)?;
    for (no, inventory) in sales {
        inventory.make_room(held.query_row(keys_of(*no), |row| row.get(0))?);
    }
    Ok(())
}

fn product(row: &Row<'_>) -> rusqlite::Result<Product> {
    let (amount, currency): (Option<String>, Option<String>) = (row.get(11)?, row.get(12)?);
    let price = amount.zip(currency).map(|(amount, currency)| Price::new(&amount, &currency));
    Ok(Product {
        description: row.get(9)?,
        image_url: row.get(10)?,
        price: price.transpose().map_err(|error| broken(11, error))?,
    })
}

fn read_order(row: &Row<'_>, sale: &SaleId) -> rusqlite::Result<(Reservation, bool)> {
    let reservation = Reservation {
        order_id: order_id(row, 1)?,
        sale_id: sale.clone(),
        epoch: Epoch(row.get(2)?),
        place: Place(row.get(7)?),
        unit: Unit(row.get(3)?),
        user_id: parsed::<UserId>(row, 4)?,
        reserved_at: moment(row, 6)?,
    };
    Ok((reservation, row.get(5)?))
}

/// A column of a UUID's bytes.
pub(crate) fn order_id(row: &Row<'_>, column: usize) -> rusqlite::Result<OrderId> {
    let bytes = row.get_ref(column)?.as_blob()?;
    uuid::Uuid::from_slice(bytes).map(OrderId).map_err(|error| broken(column, error))
}

/// A column of milliseconds since 1970-01-01T00:00:00Z.
pub(crate) fn moment(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    Ok(Timestamp::from_millis(row.get(column)?))
}

/// A text column as what it stands for.
pub(crate) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    row.get_ref(column)?.as_str()?.parse().map_err(|error| broken(column, error))
}

fn broken(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
