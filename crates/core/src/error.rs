//! What can go wrong, in the words of the one who has to act on it.

use std::{fmt, time::Duration};

use thiserror::Error;

use crate::ids::SaleId;

/// The result of whatever may fail with an [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done. When it is returned, nothing was half done.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Error {
    /// No sale has this id.
    #[error("There is no sale {0}")]
    UnknownSale(SaleId),
    /// A sale of this id exists already.
    #[error("There is already a sale {0}")]
    SaleExists(SaleId),
    /// A word of the request is not what it must be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The request is fine, but not in the state that the sale is in.
    #[error("{0}")]
    Conflict(String),
    /// A bound is reached; try again after this long.
    #[error("The system is at its limit right now; nothing was recorded, please try again")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// A part that is needed for a decision is away or has failed.
    #[error("{reason}")]
    Unavailable {
        /// What is away, in words for the operator.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// The store refuses this very record, and would refuse it again.
    #[error("{0}")]
    Refused(String),
}

impl Error {
    /// A part that is needed is away: say which, and why.
    pub fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into(), retry_after: Duration::from_secs(5) }
    }
}

/// A value that is not allowed: the field, and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// The field as it is called in the API.
    pub field: &'static str,
    /// What it must be.
    pub complaint: String,
}

impl Invalid {
    /// `field` is not allowed to be what it is; `complaint` says what it must be.
    pub fn new(field: &'static str, complaint: impl Into<String>) -> Self {
        Self { field, complaint: complaint.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.complaint)
    }
}

impl std::error::Error for Invalid {}
