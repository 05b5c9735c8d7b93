//! The rules: the state machine against a model, the worker and the service against parts made for the test.

mod model;
mod replay;
mod service;
mod worker;
