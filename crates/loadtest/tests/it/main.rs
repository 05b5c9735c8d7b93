//! The load generator against shops of our own, honest and crooked.

mod caught;
mod loops;
mod shop;
