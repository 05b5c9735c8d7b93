//! The cluster profile from outside: real processes on real services, and what happens to either.
//!
//! Services that a test stops, empties or pauses are its own, on free ports. The others are shared, and used under a
//! namespace and in a database of the test's own.

mod board;
mod commands;
mod console;
mod faults;
mod history;
mod load;
mod seed_run;
mod services;
mod stage;
mod tls;
