//! Reservations and the orders that they become.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    error::Invalid,
    ids::{Epoch, OrderId, Place, SaleId, Unit, UserId},
};

/// A unit held for a user, decided but perhaps not yet an order row.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    /// The sale.
    pub sale_id: SaleId,
    /// The life of the sale in which it was decided.
    pub epoch: Epoch,
    /// Where it stands in the sale's sequence.
    pub place: Place,
    /// The unit that is held.
    pub unit: Unit,
    /// For whom.
    pub user_id: UserId,
    /// The order that it will be.
    pub order_id: OrderId,
    /// When it was decided.
    pub reserved_at: Timestamp,
}

/// How far an order has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// Decided, and on its way to the order store.
    Reserved,
    /// In the order store, for good.
    Confirmed,
    /// Ended without a purchase because its time ran out.
    Expired,
    /// Ended without a purchase because somebody cancelled it.
    Cancelled,
}

impl OrderStatus {
    /// Its name in the API, the SQL and the documentation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "RESERVED",
            Self::Confirmed => "CONFIRMED",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OrderStatus {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        [Self::Reserved, Self::Confirmed, Self::Expired, Self::Cancelled]
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| Invalid::new("status", "must be RESERVED, CONFIRMED, EXPIRED or CANCELLED"))
    }
}

/// How a live order ends without a purchase; its unit is then for sale again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Its time ran out.
    Expired,
    /// Somebody cancelled it.
    Cancelled,
}

impl Ending {
    /// The status of an order that ended so.
    #[must_use]
    pub fn status(self) -> OrderStatus {
        match self {
            Self::Expired => OrderStatus::Expired,
            Self::Cancelled => OrderStatus::Cancelled,
        }
    }
}

/// What a user holds of a sale.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Purchase {
    /// The order.
    pub order_id: OrderId,
    /// The unit that it holds.
    pub unit: Unit,
    /// How far it has come: `Reserved` or `Confirmed`.
    pub status: OrderStatus,
}

/// An order as the order store keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Its id.
    #[serde(rename = "orderId")]
    pub id: OrderId,
    /// The sale.
    pub sale_id: SaleId,
    /// The life of the sale in which it was decided.
    pub epoch: Epoch,
    /// The unit that it holds or held.
    pub unit: Unit,
    /// For whom.
    pub user_id: UserId,
    /// How far it has come.
    pub status: OrderStatus,
    /// When it was decided.
    pub reserved_at: Timestamp,
    /// When its row was written.
    pub created_at: Timestamp,
    /// When it was confirmed.
    pub confirmed_at: Option<Timestamp>,
    /// When it ended without a purchase.
    pub released_at: Option<Timestamp>,
}

/// What became of one reservation that was to be confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confirmation {
    /// Its order is confirmed now.
    Confirmed,
    /// Its order was confirmed before: a message that came twice.
    AlreadyConfirmed,
    /// It belongs to an older epoch, a deleted sale, or an order that has ended: nothing was created.
    Stale,
}
