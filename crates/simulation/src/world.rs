//! The world of one seed: who is in it, what each may do next, and what is checked when.
//!
//! One thread. In each step the dice choose one of those who could go on: a caller, the shop, the ledger's writer, the
//! checkpointer, the order worker, the clock, or a fault. While the disk is at work for one of them, others may go on too
//! ([`World::overlap`]), as they would on other threads. When the process dies, a new one starts on what the disk kept,
//! and everything that anybody was told is held against it.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
};

use flashsale_core::{
    Result as Answered,
    clock::Timestamp,
    ids::{Place, SaleId, UserId},
    inventory::Decision,
    order::{Purchase, Reservation},
    ports::{Clock, Inventory, OrderStore},
    service::SaleService,
};
use flashsale_embedded::stepped::{self, Bounds, Checkpointer, Writer};
use rusqlite::Connection;

use crate::{
    dice::{Dice, Trace},
    disk::{Disk, Life, set_interlude},
    faults::{Fault, Fired},
    parts::{CountingIds, Flag, Unruly, WallClock},
    vfs::Vfs,
    witness::{Act, Broken, Checked, Tally, Witness, broken},
};

mod audit;
mod callers;
mod life;
mod people;
mod steps;
mod threads;

const LEDGER: &str = "flashsale.db";
const LOG: &str = "flashsale.db-wal";
const USERS: [&str; 10] = ["ada", "ben", "cleo", "dan", "eva", "finn", "gus", "hoa", "ida", "jo"];
const SALES: [&str; 3] = ["lamp", "shoes", "tickets"];
const MINUTE: i64 = 60_000;
/// 2026-02-23T10:00:00Z.
const START: i64 = 1_771_840_800_000;
/// How many rounds everything may take to come to rest, once nothing more happens to it.
const ROUNDS_TO_REST: u32 = 3_000;
/// What is read of a trail or of orders at once; more than a seed ever makes.
const PAGE: u32 = 100_000;

type Boxed<T> = Pin<Box<dyn Future<Output = T>>>;

/// The program, running.
struct Shop {
    embedded: flashsale_embedded::Embedded,
    service: SaleService,
    inventory: Arc<dyn Inventory>,
    store: Arc<dyn OrderStore>,
}

/// Somebody who buys, and tries again.
struct Caller {
    name: UserId,
    flag: Arc<Flag>,
    asks: Option<Ask>,
}

/// What a caller waits for.
struct Ask {
    sale: SaleId,
    /// The last place of the sale when it was asked.
    since: Place,
    /// Where it was decided, and when.
    decided: Option<(Place, Timestamp)>,
    future: Boxed<Reply>,
}

enum Reply {
    Attempt(Answered<Decision>),
    Purchase(Answered<Option<Purchase>>),
}

/// The shop's people, who change sales.
struct Admin {
    flag: Arc<Flag>,
    does: Option<Change>,
}

struct Change {
    sale: SaleId,
    what: &'static str,
    act: Act,
    place: Option<Place>,
    future: Boxed<Answered<()>>,
}

struct Work {
    flag: Arc<Flag>,
    future: Option<Boxed<()>>,
}

/// A reader that keeps its snapshot.
struct LongRead {
    connection: Connection,
    /// How many orders its snapshot has, while it has one.
    orders: Option<i64>,
}

/// Which faults a seed has, and how many: a world with few kinds of them gets further than one with all.
struct Temper {
    deaths: u64,
    errors: u64,
    full: u64,
    jumps: u64,
    overlap: u64,
    hang_ups: u64,
    stops: u64,
    bounds: Bounds,
    log_pages: i64,
    callers: usize,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// How often each kind of fault happened.
    pub fired: Fired,
    /// What was decided.
    pub tally: Tally,
    /// Steps taken.
    pub steps: u64,
    /// A fingerprint of all that happened, in order: of what was said and of what the disk was asked for.
    pub trace: u64,
    /// The promise that was broken, if one was.
    pub broken: Option<String>,
    /// What happened, in words.
    pub story: Vec<String>,
}

pub(crate) struct World {
    seed: u64,
    dice: RefCell<Dice>,
    temper: Temper,
    clock: Arc<WallClock>,
    ids: Arc<CountingIds>,
    disk: Disk,
    vfs: Vfs,
    shop: RefCell<Option<Rc<Shop>>>,
    writer: RefCell<Option<Writer>>,
    taken: Cell<bool>,
    checkpointer: RefCell<Option<Checkpointer>>,
    callers: Vec<RefCell<Caller>>,
    admin: RefCell<Admin>,
    work: RefCell<Work>,
    unruly: Arc<Unruly>,
    long_read: RefCell<Option<LongRead>>,
    witness: RefCell<Witness>,
    /// Reservations that callers were told of.
    known: RefCell<Vec<Reservation>>,
    /// The writer failed.
    stopped: Cell<bool>,
    /// The writer is to copy the rest of the log, where a fault of the disk stops nothing.
    tidies: Cell<bool>,
    overlaps: Cell<u64>,
    /// Something goes on that nothing else may come into.
    alone: Cell<bool>,
    /// Whose answers were ready when the process died.
    answered_at_death: RefCell<Vec<bool>>,
    fired: RefCell<Fired>,
    broken: RefCell<Option<Broken>>,
    trace: Cell<Trace>,
    story: RefCell<Vec<String>>,
    steps: Cell<u64>,
}

impl Temper {
    fn new(dice: &mut Dice) -> Self {
        let mut often = |percent: u64, most: i64| if dice.chance(percent) { dice.within(1, most) } else { 0 };
        let mut some = |percent, most| often(percent, most).cast_unsigned();
        let (deaths, errors, full, jumps) = (some(75, 5), some(60, 6), some(25, 3), some(30, 4));
        let (overlap, hang_ups, stops) = (some(60, 30), some(40, 4), some(50, 3));
        let bounds = Bounds {
            waiting: if dice.chance(15) { dice.index(6) + 1 } else { 16_384 },
            outbox: if dice.chance(30) { dice.index(4) } else { 65_536 },
        };
        let log_pages = *dice.pick(&[0, 5, 20, 60]);
        let callers = dice.index(USERS.len() - 3) + 4;
        Self { deaths, errors, full, jumps, overlap, hang_ups, stops, bounds, log_pages, callers }
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Rc<Self> {
        let mut dice = Dice::new(seed);
        let temper = Temper::new(&mut dice);
        let disk = Disk::new(dice.fork());
        let vfs = Vfs::new(disk.clone(), &format!("disk-of-{seed}"));
        let caller = |name: &&str| {
            let name = name.parse().expect("a valid user id");
            RefCell::new(Caller { name, flag: Flag::raised(), asks: None })
        };
        let callers = USERS[..temper.callers].iter().map(caller).collect();
        Rc::new(Self {
            seed,
            dice: RefCell::new(dice),
            temper,
            clock: Arc::new(WallClock(START.into())),
            ids: Arc::default(),
            disk,
            vfs,
            shop: RefCell::default(),
            writer: RefCell::default(),
            taken: Cell::new(false),
            checkpointer: RefCell::default(),
            callers,
            admin: RefCell::new(Admin { flag: Flag::raised(), does: None }),
            work: RefCell::new(Work { flag: Flag::raised(), future: None }),
            unruly: Arc::default(),
            long_read: RefCell::default(),
            witness: RefCell::default(),
            known: RefCell::default(),
            stopped: Cell::new(false),
            tidies: Cell::new(false),
            overlaps: Cell::new(0),
            alone: Cell::new(true),
            answered_at_death: RefCell::default(),
            fired: RefCell::default(),
            broken: RefCell::default(),
            trace: Cell::default(),
            story: RefCell::default(),
            steps: Cell::new(0),
        })
    }

    /// Lives through `steps` steps, and comes to rest.
    pub(crate) async fn live(self: &Rc<Self>, steps: u64) {
        let weak = Rc::downgrade(self);
        set_interlude(Some(Rc::new(move |moment| {
            if let Some(world) = weak.upgrade() {
                world.interlude(moment);
            }
        })));
        let outcome = self.story_of(steps).await;
        self.note_disk();
        self.break_if(outcome);
    }

    async fn story_of(self: &Rc<Self>, steps: u64) -> Checked {
        self.start(None)?;
        self.open_shop().await?;
        for _ in 0..steps {
            if self.broken.borrow().is_some() {
                return Ok(());
            }
            self.steps.set(self.steps.get() + 1);
            if self.disk.life() != Life::Running {
                self.start_again(None)?;
                continue;
            }
            self.step().await?;
            self.note_disk();
        }
        self.come_to_rest().await
    }

    /// Ends it, whatever state it is in.
    pub(crate) fn end(&self, panic: Option<Box<dyn Any + Send>>) -> Outcome {
        set_interlude(None);
        self.alone.set(true);
        if let Some(panic) = panic {
            self.break_if(Err(format!("nothing panics: {}", words_of(&*panic))));
        }
        self.note_disk();
        self.disk.die(Life::Killed);
        // What is dropped here may find what it needs in any state.
        if catch_unwind(AssertUnwindSafe(|| self.drop_process())).is_err() {
            self.break_if(Err("nothing panics: not even when the process is dropped".to_owned()));
        }
        for _ in 0..self.unruly.repeated.load(Ordering::Relaxed) {
            self.count(Fault::OldDelivery);
        }
        let mut fired = self.disk.fired();
        fired.add(&self.fired.borrow());
        let mut trace = self.trace.get();
        trace.add(self.disk.trace().value());
        Outcome {
            seed: self.seed,
            fired,
            tally: self.witness.borrow().tally,
            steps: self.steps.get(),
            trace: trace.value(),
            broken: self.broken.borrow().clone(),
            story: self.story.borrow().clone(),
        }
    }

    fn break_if(&self, outcome: Checked) {
        if let Err(what) = outcome
            && self.broken.borrow().is_none()
        {
            self.tell(|| format!("BROKEN: {what}"));
            *self.broken.borrow_mut() = Some(what);
        }
    }

    fn tell(&self, words: impl FnOnce() -> String) {
        let words = words();
        let mut trace = self.trace.get();
        trace.add_bytes(words.as_bytes());
        self.trace.set(trace);
        let time = self.clock.now().to_string();
        self.story.borrow_mut().push(format!("{:>4}  {}  {words}", self.steps.get(), &time[11..23]));
    }

    fn note_disk(&self) {
        for note in self.disk.take_notes() {
            self.tell(|| format!("  disk: {note}"));
        }
    }

    fn count(&self, fault: Fault) {
        self.fired.borrow_mut().count(fault);
    }

    fn throw<T>(&self, throw: impl FnOnce(&mut Dice) -> T) -> T {
        throw(&mut self.dice.borrow_mut())
    }

    fn shop(&self) -> Rc<Shop> {
        self.shop.borrow().clone().expect("the program runs between its starts")
    }

    fn place(&self, sale: &SaleId) -> Option<Place> {
        let shop = self.shop.borrow();
        shop.as_ref().and_then(|shop| stepped::place(&shop.embedded, sale))
    }
}

/// The outcome of what needs nobody else to end.
fn at_once<T>(future: impl Future<Output = T>) -> Checked<T> {
    let mut future = Box::pin(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Ok(outcome),
        Poll::Pending => broken!("everything comes to rest", "a read waits although nothing is under way"),
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
