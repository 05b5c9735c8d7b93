//! The load generator against shops of our own, honest and crooked.

mod caught;
mod history;
mod loops;
mod shop;
