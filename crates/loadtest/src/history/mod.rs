//! Histories: every request of a crowd, with when it was sent and what came of it, and whether one shop that serves one
//! buyer after the other could have answered so.
//!
//! Where the [`Verdict`](crate::Verdict) of a load rests on sums, this rests on every single request. A [`Recorder`] writes
//! the [`Call`]s down; the [`Records`] are what the server exports afterwards; [`History::judge`] compares both with the
//! rules of a sale. It takes n·log n, so that a million requests are a matter of a second.
//!
//! A request without an answer may have bought or not, and may do so until the records are read. What nobody saw cannot
//! be held against the server; what anybody saw must fit into one sequence.

mod judge;
mod recorder;
mod records;

use serde::Serialize;

pub use recorder::{Asked, Recorder};
pub use records::{Figures, Order, Records, Unreadable};

use crate::reply::{self, Outcome};

/// One request: sent and answered in nanoseconds since the recorder began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// For whom; empty where somebody only looked at the sale.
    pub user: String,
    /// Taken before the request was sent.
    pub sent: u64,
    /// Taken after the last byte of the answer, or when the client gave up.
    pub answered: u64,
    /// What came of it.
    pub told: Told,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Told {
    /// SUCCESS: this very request got a unit.
    Bought {
        /// Empty if the reply had none.
        order: String,
        /// Whether the reply said that it rests on less than it should for now (`durability`).
        provisional: bool,
    },
    /// The user holds this order: `ALREADY_PURCHASED`, or a look at what they hold.
    Holds {
        /// Empty if the reply had none.
        order: String,
    },
    /// All units are taken.
    SoldOut,
    /// A look showed that the user holds nothing.
    HoldsNothing,
    /// A look at the sale's figures.
    Figures(Figures),
    /// The sale is not open. Says nothing of units.
    NotActive,
    /// No answer, or one that promises nothing: whether it bought, only others can tell.
    Nothing,
}

impl Told {
    /// What the reply to a purchase tells. `retry_after` says whether it had that header.
    #[must_use]
    pub fn by_purchase(status: u16, retry_after: bool, body: &[u8]) -> Self {
        let Ok(status) = hyper::StatusCode::from_u16(status) else { return Self::Nothing };
        let text = |order: Option<std::borrow::Cow<'_, str>>| order.unwrap_or_default().into_owned();
        match reply::read(status, retry_after, body) {
            Outcome::Success(order) => {
                Self::Bought { order: text(order), provisional: reply::is_provisional(body) }
            }
            Outcome::AlreadyPurchased(order) => Self::Holds { order: text(order) },
            Outcome::SoldOut => Self::SoldOut,
            Outcome::NotActive(_) => Self::NotActive,
            Outcome::Refused | Outcome::Failed(_) => Self::Nothing,
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Bought { .. } => "SUCCESS",
            Self::Holds { .. } => "ALREADY_PURCHASED",
            Self::SoldOut => "SOLD_OUT",
            Self::HoldsNothing => "that they hold nothing",
            Self::Figures(_) => "the figures",
            Self::NotActive => "that the sale is not active",
            Self::Nothing => "nothing",
        }
    }
}

/// Whether a unit can be taken and be free again, because what nobody was told was lost with the memory of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Losses {
    /// It cannot: units are taken in their order, once.
    None,
    /// It can, where a request had no answer: then units come in any order, and SOLD_OUT may end. Figures prove nothing.
    Unanswered,
}

/// What a crowd was told of one sale in one epoch, and what is on record.
///
/// Nobody else buys, and nobody changes or resets the sale meanwhile.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Units of the sale, all free at the beginning.
    pub stock: u64,
    /// In any order.
    pub calls: Vec<Call>,
    /// What the server exports when no request is under way any more.
    pub records: Records,
    /// What may have been lost.
    pub losses: Losses,
}
