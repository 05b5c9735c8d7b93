//! What the server exports of a sale, as a history needs it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// A sale's figures, as its status shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Units left. Signed, so that a server that counts below zero is heard.
    #[serde(rename(deserialize = "remainingStock"))]
    pub remaining: i64,
    /// Units sold.
    #[serde(rename(deserialize = "totalSold"))]
    pub sold: i64,
}

impl Figures {
    /// Reads the body of a status.
    ///
    /// # Errors
    /// [`Unreadable`] when it is none.
    pub fn read(body: &[u8]) -> Result<Self, Unreadable> {
        serde_json::from_slice(body).map_err(|error| Unreadable(format!("{error} in a status")))
    }
}

/// An order on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// The unit that it holds.
    pub unit: u64,
    /// Where its reservation stands in the sale's sequence, where the audit trail was read.
    pub place: Option<u64>,
}

/// What is on record. What was not read is `None`, and proves nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Records {
    /// All orders of the epoch.
    pub orders: Option<Vec<Order>>,
    /// The figures after the last request.
    pub figures: Option<Figures>,
}

/// An export is not what its documentation says.
#[derive(Debug, thiserror::Error)]
#[error("unexpected export: {0}")]
pub struct Unreadable(String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OrderLine {
    order_id: String,
    user_id: String,
    unit: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TrailLine {
    event_type: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    place: Option<u64>,
    order_id: Option<String>,
}

fn lines<'a, L: Deserialize<'a>>(export: &'a str) -> Result<Vec<L>, Unreadable> {
    let read = |line| serde_json::from_str(line).map_err(|error| Unreadable(format!("{error} in {line}")));
    export.lines().map(read).collect()
}

impl Records {
    /// Reads the export of the orders (NDJSON).
    ///
    /// # Errors
    /// [`Unreadable`] when it is none.
    pub fn read_orders(&mut self, export: &str) -> Result<(), Unreadable> {
        let order =
            |line: OrderLine| Order { id: line.order_id, user: line.user_id, unit: line.unit, place: None };
        self.orders = Some(lines(export)?.into_iter().map(order).collect());
        Ok(())
    }

    /// Reads the places of the orders out of the export of the audit trail (NDJSON).
    ///
    /// # Errors
    /// [`Unreadable`] when it is none.
    pub fn read_places(&mut self, trail: &str) -> Result<(), Unreadable> {
        let mut places = HashMap::new();
        for line in lines::<TrailLine>(trail)? {
            if line.event_type == "RESERVED"
                && let Metadata { place: Some(place), order_id: Some(order) } = line.metadata
            {
                places.insert(order, place);
            }
        }
        for order in self.orders.iter_mut().flatten() {
            order.place = places.get(&order.id).copied();
        }
        Ok(())
    }
}
