//! How the parts of a running profile are: what health and metrics ask, and `wire` answers.

use std::collections::BTreeMap;

use async_trait::async_trait;
use flashsale_core::{Result, clock::Timestamp, ids::SaleId};
use serde::Serialize;
use utoipa::ToSchema;

/// A running profile, asked how it is.
#[async_trait]
pub(crate) trait Vitals: Send + Sync + 'static {
    /// Its name.
    fn profile(&self) -> &'static str;
    /// Whether sales can be decided, or why not.
    async fn ready(&self) -> Result<()>;
    /// How each part is, by name.
    async fn parts(&self) -> BTreeMap<&'static str, Part>;
    /// What it counts of itself.
    fn measures(&self) -> Vec<Measure>;
    /// Audit rows that wait: how many in memory, how many bytes in files.
    fn audit_backlog(&self) -> (u64, u64);
    /// Shows this replica's figures to all replicas, and returns those of all that serve, by their names.
    async fn exchange(&self, replica: &str, figures: String) -> Vec<(String, String)>;
    /// Since when the oldest reservation of a sale waits to be confirmed, where one does.
    async fn waiting_since(&self, sale: &SaleId) -> Option<Timestamp>;
    /// What SUCCESS is worth right now.
    fn promise(&self) -> &'static str;
    /// Whether SUCCESS rests on less than it usually does, since a part is away.
    fn is_provisional(&self) -> bool {
        false
    }
}

/// How one part is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Part {
    /// `up` or `down`.
    #[schema(example = "up")]
    pub(crate) status: &'static str,
    /// What it does, or what is wrong with it.
    #[schema(example = "SQLite ledger")]
    pub(crate) detail: String,
}

impl Part {
    pub(crate) fn new(up: bool, detail: impl Into<String>) -> Self {
        Self { status: if up { "up" } else { "down" }, detail: detail.into() }
    }
}

/// A figure that a profile counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    /// Its name in the metrics, without the program's.
    pub(crate) name: &'static str,
    /// What it is.
    pub(crate) help: &'static str,
    /// How much.
    pub(crate) value: u64,
    /// Whether it only ever grows.
    pub(crate) total: bool,
}
