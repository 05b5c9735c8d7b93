//! The embedded profile against the contract, and against crashes of its disk.

mod conformance;
mod failures;
mod support;
