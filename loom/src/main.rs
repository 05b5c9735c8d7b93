//! Runs the models: each with every interleaving of its threads that has at most a few preemptions.
//!
//! The files of the product are compiled as they are (`#[path]`), on shims of parking_lot and tokio that stand on loom's
//! primitives. What they lean on besides is stood in for here by as little as they need. A model that meets a deadlock (a
//! lost wake-up is one), a panic or a broken assertion ends the program with the interleaving that led there.

#![allow(dead_code, reason = "the product's files offer more than the models use")]

#[path = "../../crates/embedded/src/ledger/commit_queue.rs"]
mod commit_queue;
#[path = "../../crates/cluster/src/gather.rs"]
mod gather;
#[path = "../../crates/cluster/src/latch.rs"]
mod latch;
mod models;

/// What the commit queue counts.
#[derive(Clone, Copy)]
pub struct Totals {
    pub commits: u64,
    pub entries: u64,
    pub waiting: usize,
}

mod record {
    /// An entry of the commit queue: a number, and whether somebody waits for it.
    pub(crate) struct Entry {
        pub(crate) number: u32,
        pub(crate) reply: Option<Reply>,
    }

    impl Entry {
        /// All of them record attempts.
        pub(crate) fn take_attempts_reply(&mut self) -> Option<Reply> {
            self.reply.take()
        }
    }

    /// Somebody who waits.
    pub(crate) struct Reply;

    impl Reply {
        pub(crate) fn send(self, outcome: flashsale_core::Result<()>) -> flashsale_core::Result<()> {
            outcome
        }
    }
}

mod message {
    pub(crate) const RESERVATIONS_MAX: usize = 256;
}

mod audit {
    use flashsale_core::{
        clock::Timestamp,
        ids::{Epoch, OrderId, Place, Unit, UserId},
    };

    /// The row of a rejection.
    pub(crate) struct Rejection {
        pub(crate) sale_no: i32,
        pub(crate) kind: i16,
        pub(crate) epoch: Epoch,
        pub(crate) place: Place,
        pub(crate) at: Timestamp,
        pub(crate) user_id: UserId,
        pub(crate) held: Option<(Unit, OrderId)>,
        pub(crate) number: u64,
    }
}

mod store {
    pub(crate) mod kind {
        pub(crate) const REJECTED_SOLD_OUT: i16 = 2;
    }
}

mod stock {
    use flashsale_core::{clock::Timestamp, ids::Place, sale::Sale};

    /// As much of a sale's state in Redis as the latch looks at.
    pub(crate) struct State {
        pub(crate) generation: u32,
        pub(crate) now: Timestamp,
        pub(crate) changed: Place,
        pub(crate) no: i32,
        pub(crate) sale: Sale,
        pub(crate) available: u32,
        pub(crate) closed: bool,
    }
}

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    for (name, model) in models::ALL {
        if chosen.is_empty() || chosen.iter().any(|part| name.contains(part.as_str())) {
            let began = std::time::Instant::now();
            let explored = models::explore(name, model);
            println!("ok {explored:>8} interleavings in {:>4.1} s  {name}", began.elapsed().as_secs_f64());
        }
    }
}
