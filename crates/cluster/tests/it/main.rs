//! The cluster profile on real PostgreSQL, Redis and RabbitMQ: against the contract, and against what happens to them.

mod audit;
mod clock;
mod conformance;
mod crowd;
mod gate;
mod latch;
mod losses;
mod messages;
mod order_queue;
mod orphans;
mod redis_cluster;
mod shut_out;
mod support;
