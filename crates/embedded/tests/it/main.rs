//! The embedded profile against the contract, against its disk, and against whoever hangs up.

mod conformance;
mod crash;
mod failures;
mod hang_up;
mod opening;
mod oversell;
mod queue;
mod seed_sql;
mod slow_disk;
mod support;
