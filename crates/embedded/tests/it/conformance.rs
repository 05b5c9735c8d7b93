//! The contract, story by story.

flashsale_core::conformance_tests!(crate::support::Bench);
