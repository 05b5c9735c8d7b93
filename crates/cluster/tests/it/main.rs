//! The cluster profile on real PostgreSQL, Redis and RabbitMQ: against the contract, and against what happens to them.

mod conformance;
mod support;
