//! The cluster profile: the same ports on Redis, RabbitMQ and PostgreSQL, for N replicas and N workers.
//!
//! The way of a purchase through this crate: `inventory` gathers what arrives at once into one call, `stock` has
//! it decided in Redis (`functions/flashsale.lua`), `broker` publishes what was reserved, and SUCCESS is said. A
//! worker takes it from `queue` into `store`. Rejections reach the trail through `audit`. `sales` changes a
//! sale behind its closed gate, and `recovery` rebuilds Redis from PostgreSQL when it has forgotten.
//!
//! Which promise holds when a part is lost is argued in ADRs 0009 to 0011.

mod audit;
#[cfg(feature = "bench")]
pub mod bench;
mod broker;
mod cluster;
mod database;
mod doctor;
mod durability;
mod figures;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod inventory;
mod keys;
mod latch;
mod lock;
mod message;
mod operators;
mod options;
mod outbox;
mod queue;
mod recovery;
mod sales;
mod search;
mod stock;
mod store;

pub use cluster::{Cluster, OpenError, PartState, Totals, records};
pub use database::prepare;
pub use doctor::{Finding, look};
pub use options::{Ack, Options, Secret};
