//! How the parts of a running profile are: what health and metrics ask, and `wire` answers.

use std::collections::BTreeMap;

use async_trait::async_trait;
use flashsale_core::Result;
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
    /// What has been recorded, and what waits to be.
    fn recorded(&self) -> Recorded;
}

/// How one part is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Part {
    /// `up` or `down`.
    #[schema(example = "up")]
    pub(crate) status: &'static str,
    /// What it promises, or what is wrong with it.
    #[schema(example = "a purchase is on the disk before it is acknowledged")]
    pub(crate) detail: String,
}

/// What has been recorded since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded {
    /// Groups committed.
    pub(crate) commits: u64,
    /// Decisions and changes in them.
    pub(crate) entries: u64,
    /// Decisions and changes that wait to be committed.
    pub(crate) waiting: usize,
}
