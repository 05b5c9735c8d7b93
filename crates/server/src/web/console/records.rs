//! Orders and the audit trail, searched.

use askama::{Result, Template};

use super::{Frame, Here, assets};

/// A page of what was found, newest first.
pub(crate) struct Listing<T> {
    /// The sale's id.
    pub(crate) sale_id: String,
    /// What people call it; its id once it is deleted.
    pub(crate) name: String,
    /// The user that was asked for, as it was typed.
    pub(crate) user: String,
    /// What is wrong with it.
    pub(crate) user_error: Option<String>,
    /// What the list can be narrowed to, and whether it is: `value`, `words`, `is_chosen`.
    pub(crate) kinds: Vec<(&'static str, &'static str, bool)>,
    /// The rows.
    pub(crate) rows: Vec<T>,
    /// Whether this begins with the newest.
    pub(crate) is_newest: bool,
    /// The query that goes on, if not all has been looked through.
    pub(crate) on: Option<String>,
    /// Whether anything was asked for but all.
    pub(crate) is_search: bool,
}

/// An order.
pub(crate) struct OrderView {
    pub(crate) order_id: String,
    pub(crate) unit: u32,
    pub(crate) user_id: String,
    pub(crate) status: &'static str,
    pub(crate) reserved_at: String,
    /// When it was confirmed or ended; nothing before.
    pub(crate) settled_at: String,
}

/// An event of the audit trail.
pub(crate) struct EventView {
    pub(crate) at: String,
    pub(crate) event_type: &'static str,
    pub(crate) user_id: String,
    /// Details, as JSON.
    pub(crate) metadata: String,
}

/// The orders of a sale.
#[derive(Template)]
#[template(path = "console/orders.html", whitespace = "minimize")]
pub(crate) struct OrdersPage {
    pub(crate) frame: Frame,
    pub(crate) list: Listing<OrderView>,
    /// The order that was asked for, as it was typed.
    pub(crate) order: String,
    /// What is wrong with it.
    pub(crate) order_error: Option<String>,
}

/// The audit trail of a sale.
#[derive(Template)]
#[template(path = "console/audit.html", whitespace = "minimize")]
pub(crate) struct AuditPage {
    pub(crate) frame: Frame,
    pub(crate) list: Listing<EventView>,
}

impl OrdersPage {
    pub(crate) fn html(&self) -> Result<String> {
        self.render()
    }

    fn is_wrong(&self) -> bool {
        self.order_error.is_some() || self.list.user_error.is_some()
    }
}

impl AuditPage {
    pub(crate) fn html(&self) -> Result<String> {
        self.render()
    }
}
