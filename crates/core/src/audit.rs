//! The audit trail: every attempt with its outcome, and whatever else happened to a sale.

use std::{fmt, str::FromStr};

use crate::{
    clock::Timestamp,
    error::Invalid,
    ids::{SaleId, UserId},
};

/// The user id of audit events that an operator caused.
pub const OPERATOR: &str = "admin";

/// What happened. The names are those of the seed, and are part of the API.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EventType {
    /// Somebody tried to buy.
    Attempted,
    /// The attempt got a unit.
    Reserved,
    /// The attempt found no unit left.
    RejectedSoldOut,
    /// The attempt was of a user who holds a unit already.
    RejectedDuplicate,
    /// The attempt came outside the window or during a pause.
    RejectedNotActive,
    /// An order was confirmed.
    Confirmed,
    /// An order's time ran out; its unit is for sale again.
    Expired,
    /// An order was cancelled; its unit is for sale again.
    Cancelled,
    /// The order store refused an order for good.
    FailedDb,
    /// A sale was changed.
    AdminChanged,
    /// A sale was reset: a new epoch, all units back.
    AdminReset,
    /// A sale was deleted.
    AdminDeleted,
    /// The stock was rebuilt from the records after the part that decides had lost it.
    Recovered,
}

impl EventType {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Attempted,
        Self::Reserved,
        Self::RejectedSoldOut,
        Self::RejectedDuplicate,
        Self::RejectedNotActive,
        Self::Confirmed,
        Self::Expired,
        Self::Cancelled,
        Self::FailedDb,
        Self::AdminChanged,
        Self::AdminReset,
        Self::AdminDeleted,
        Self::Recovered,
    ];

    /// Its name in the API, the SQL and the documentation.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempted => "ATTEMPTED",
            Self::Reserved => "RESERVED",
            Self::RejectedSoldOut => "REJECTED_SOLD_OUT",
            Self::RejectedDuplicate => "REJECTED_DUPLICATE",
            Self::RejectedNotActive => "REJECTED_NOT_ACTIVE",
            Self::Confirmed => "CONFIRMED",
            Self::Expired => "EXPIRED",
            Self::Cancelled => "CANCELLED",
            Self::FailedDb => "FAILED_DB",
            Self::AdminChanged => "ADMIN_CHANGED",
            Self::AdminReset => "ADMIN_RESET",
            Self::AdminDeleted => "ADMIN_DELETED",
            Self::Recovered => "RECOVERED",
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|event_type| event_type.as_str() == text)
            .ok_or_else(|| Invalid::new("eventType", "must be an event of the audit trail"))
    }
}

/// One event of the audit trail, as exports show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEvent {
    /// Unique, and rising with a sale's sequence.
    pub id: i64,
    /// The sale.
    pub sale_id: SaleId,
    /// Who tried, or [`OPERATOR`].
    pub user_id: UserId,
    /// What happened.
    pub event_type: EventType,
    /// Details, as a JSON object in text.
    pub metadata: String,
    /// When.
    pub created_at: Timestamp,
}
