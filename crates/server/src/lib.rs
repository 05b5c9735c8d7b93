//! The program `flashsale`: command line, HTTP, storefront, and the wiring of a profile.
//!
//! `cli` reads what is asked, `config` the settings; `wire` puts a profile together; `http` serves it, with
//! `admission` before what not everybody may do, and `web` for the pages. What is decided about a purchase
//! is decided in `flashsale-core`, and recorded by the profile.

mod admission;
mod ambient;
mod background;
#[cfg(feature = "bench")]
pub mod bench;
mod board;
pub mod cli;
mod config;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod http;
mod live;
mod shutdown;
mod telemetry;
mod verdict;
mod vitals;
mod web;
mod wire;
