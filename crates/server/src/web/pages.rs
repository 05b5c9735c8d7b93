//! A function per page: from view models to HTML. askama escapes whatever comes from outside.

use askama::{Result, Template};

use super::assets;
use super::sale_view::{Phase, SaleView, State};

/// The list of all sales, at `/`.
pub(crate) fn index(mut sales: Vec<SaleView>, now_ms: i64) -> Result<String> {
    sales.sort_by_cached_key(SaleView::list_order);
    IndexPage { sales, now_ms }.render()
}

/// A sale's page; after an attempt also its answer, and after a lookup also what was found.
///
/// `user_id` is what the visitor typed, valid or not; it stays in the field.
pub(crate) fn sale(
    sale: SaleView,
    now_ms: i64,
    user_id: Option<&str>,
    notice: Option<Notice>,
    purchase: Option<PurchaseView>,
) -> Result<String> {
    SalePage { sale, now_ms, user_id: user_id.unwrap_or_default(), notice, purchase }.render()
}

/// A page for what cannot be shown: `title` says what happened, `text` what can be done.
pub(crate) fn error(status: u16, title: &str, text: &str) -> Result<String> {
    ErrorPage { status, title, text }.render()
}

/// The answer to an attempt that the visitor has just made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Notice {
    /// `SUCCESS`.
    Reserved { order_id: String },
    /// `ALREADY_PURCHASED`.
    AlreadyPurchased { order_id: String },
    /// `SOLD_OUT`.
    SoldOut,
    /// The sale is upcoming, paused or has ended.
    NotActive,
    /// The user id breaks a rule; the text says which, for the visitor.
    InvalidUserId(String),
    /// No capacity: nothing was decided.
    Busy { retry_after_s: u64 },
    /// The store cannot record purchases.
    Unavailable,
}

impl Notice {
    /// What is wrong with the user id, if that is the notice.
    fn user_id_error(&self) -> Option<&str> {
        match self {
            Self::InvalidUserId(text) => Some(text),
            _ => None,
        }
    }
}

/// What a lookup of a user's purchase found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum PurchaseView {
    /// The user has a unit.
    Purchased { order_id: String, status: OrderStatus },
    /// The user has none.
    NotPurchased,
}

/// How far a purchase has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OrderStatus {
    /// Decided and recorded; the order follows.
    Reserved,
    /// The order is in the store.
    Confirmed,
}

#[derive(Template)]
#[template(path = "index.html", whitespace = "minimize")]
struct IndexPage {
    sales: Vec<SaleView>,
    now_ms: i64,
}

#[derive(Template)]
#[template(path = "sale.html", whitespace = "minimize")]
struct SalePage<'a> {
    sale: SaleView,
    now_ms: i64,
    user_id: &'a str,
    notice: Option<Notice>,
    purchase: Option<PurchaseView>,
}

impl SalePage<'_> {
    fn user_id_error(&self) -> Option<&str> {
        self.notice.as_ref().and_then(Notice::user_id_error)
    }
}

#[derive(Template)]
#[template(path = "error.html", whitespace = "minimize")]
struct ErrorPage<'a> {
    status: u16,
    title: &'a str,
    text: &'a str,
}
