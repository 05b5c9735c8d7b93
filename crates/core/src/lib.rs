//! The rules of a flash sale, and nothing else.
//!
//! This crate decides who gets a unit and what may happen to it afterwards. It opens no socket, file or
//! database, starts no runtime, and reads neither the clock nor randomness: `clippy.toml` beside this crate
//! forbids them, with a reason each. What it needs of the world it asks for through [`ports`], and the
//! adapters (`flashsale-embedded`, later `flashsale-cluster`) answer.
//!
//! The way of a purchase through this crate: [`service`] checks the words of the request, [`inventory`] makes
//! the one decision, [`worker`] takes the reservation from the order queue and has it confirmed.

pub mod audit;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod ids;
pub mod inventory;
pub mod operator;
pub mod order;
pub mod ports;
pub mod product;
mod purchasers;
pub mod sale;
pub mod service;
pub mod worker;

pub use error::{Error, Result};
