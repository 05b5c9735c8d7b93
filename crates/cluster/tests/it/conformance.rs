//! The contract that every adapter passes, on real services.

use crate::support::Bench;

flashsale_core::conformance_tests!(Bench);
