//! Deterministic simulation of core, embedded engine and worker: one seed decides all that happens.
//!
//! [`simulate`] lets a small shop live for some steps: callers buy and try again, the shop changes its sales, the writer
//! commits, the order worker confirms, and the disk, the clock and the process do their worst. It runs what production
//! runs (`SaleService`, the engine, the ledger on SQLite, `OrderWorker`), on one thread, on a disk in memory.
//! After each start everything that anybody was told is held against what is on record. The same seed gives the same
//! life, to the last byte that is written, and a story of it in words.

mod dice;
mod disk;
mod faults;
mod parts;
mod vfs;
mod witness;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use parking_lot::Mutex;

pub use faults::{Fault, Fired};
pub use witness::Tally;
pub use world::Outcome;

/// How many steps a world lives, if nobody says otherwise.
pub const STEPS: u64 = 120;

/// Lives through `seed`. One at a time in a process, since SQLite has one generator of random numbers for all.
#[must_use]
pub fn simulate(seed: u64, steps: u64) -> Outcome {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock();
    vfs::seed_sqlite(seed);
    let world = world::World::new(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without sockets needs nothing");
    let lived = catch_unwind(AssertUnwindSafe(|| {
        // Tokio's share of patience for a task is not to cut into the schedule.
        runtime.block_on(tokio::task::coop::unconstrained(world.live(steps)));
    }));
    let _inside = runtime.enter();
    world.end(lived.err())
}
