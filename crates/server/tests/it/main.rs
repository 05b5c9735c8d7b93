//! The real program, from outside: each test boots it on a data folder and a port of its own.

mod admin;
mod bad_input;
mod board;
mod browser;
mod cli;
mod cluster;
mod console;
mod crash;
mod events;
mod exports;
mod failures;
mod history;
mod pages;
mod seed_api;
#[cfg(feature = "fuzzing")]
mod seeds;
mod server;
