//! The world of one seed: who is in it, what each may do next, and what is checked when.
//!
//! One thread. In each step the dice choose one of those who could go on: a caller, the shop, the ledger's writer, the
//! checkpointer, the order worker, the clock, or a fault. While the disk is at work for one of them, others may go on too
//! ([`World::overlap`]), as they would on other threads. When the process dies, a new one starts on what the disk kept,
//! and everything that anybody was told is held against it.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    pin::Pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use flashsale_core::{
    Error, Result as Answered,
    clock::Timestamp,
    ids::{Place, SaleId, UserId},
    inventory::Decision,
    order::{Ending, OrderStatus, Purchase, Reservation},
    ports::{Clock, Inventory, OrderStore},
    product::Product,
    sale::SaleChange,
    service::{SaleRequest, SaleService},
    worker::OrderWorker,
};
use flashsale_embedded::stepped::{self, Bounds, Checkpointer, Stepped, Taken, Writer};
use rusqlite::Connection;

use crate::{
    dice::{Dice, Trace},
    disk::{Disk, Life, Moment, Trouble, set_interlude},
    faults::{Fault, Fired},
    parts::{CountingIds, Flag, Unruly, UnrulyQueue, WallClock},
    vfs::Vfs,
    witness::{Act, Broken, Checked, Tally, Witness, broken},
};

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

/// What may be chosen.
#[derive(Clone, Copy, Debug)]
enum Step {
    Caller(usize),
    HangUp(usize),
    Admin,
    Take { lingered: bool },
    Write,
    Checkpoint,
    Worker,
    Hold,
    LetGo,
    Repeat,
    Read,
    Advance,
    Jump,
    Arm,
    Full,
    Outsider,
    Die(Life),
    Stop,
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
            let step = self.choose();
            self.take(step).await?;
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

/// What happens next.
impl World {
    fn choose(&self) -> Step {
        let t = &self.temper;
        let mut dice = self.dice.borrow_mut();
        let mut steps: Vec<(u64, Step)> = Vec::with_capacity(40);
        for (index, caller) in self.callers.iter().enumerate() {
            let caller = caller.borrow();
            match &caller.asks {
                None => steps.push((6, Step::Caller(index))),
                Some(_) if caller.flag.is_raised() => steps.push((12, Step::Caller(index))),
                Some(_) => steps.push((t.hang_ups, Step::HangUp(index))),
            }
        }
        let admin = self.admin.borrow();
        if admin.does.is_none() || admin.flag.is_raised() {
            steps.push((4, Step::Admin));
        }
        if self.writer.borrow().is_some() {
            if self.taken.get() {
                steps.push((35, Step::Write));
            } else if self.shop().embedded.totals().waiting > 0 {
                steps.push((25, Step::Take { lingered: dice.chance(30) }));
            }
        }
        if self.work.borrow().flag.is_raised() {
            steps.push((15, Step::Worker));
        }
        let held = self.unruly.held.load(Ordering::Relaxed);
        steps.push(if held { (8, Step::LetGo) } else { (1, Step::Hold) });
        if self.unruly.old() > 0 {
            steps.push((1, Step::Repeat));
        }
        steps.extend([
            (4, Step::Checkpoint),
            (2, Step::Read),
            (8, Step::Advance),
            (t.jumps, Step::Jump),
            (t.errors, Step::Arm),
            (if self.disk.is_full() { 10 } else { t.full }, Step::Full),
            (1, Step::Outsider),
            (t.deaths, Step::Die(if dice.chance(60) { Life::PowerOff } else { Life::Killed })),
            // Once selling has stopped, somebody starts the program again before long.
            (if self.stopped.get() { 40 } else { 0 }, Step::Die(Life::Killed)),
            (t.stops, Step::Stop),
        ]);
        let mut number = dice.below(steps.iter().map(|(weight, _)| weight).sum());
        for (weight, step) in steps {
            if number < weight {
                return step;
            }
            number -= weight;
        }
        unreachable!("the weights add up")
    }

    async fn take(self: &Rc<Self>, step: Step) -> Checked {
        self.alone.set(false);
        match step {
            Step::Caller(index) => self.caller(index),
            Step::HangUp(index) => self.hang_up(index),
            Step::Admin => self.administrate(),
            Step::Take { lingered } => self.take_group(lingered),
            Step::Write => self.write(),
            Step::Checkpoint => self.checkpoint(),
            Step::Worker => self.work(),
            Step::Hold => self.unruly.hold_next(),
            Step::LetGo => {
                self.count(Fault::SlowDelivery);
                self.unruly.let_go();
            }
            Step::Repeat => {
                let index = self.throw(|dice| dice.index(self.unruly.old()));
                self.tell(|| format!("the order queue will deliver its batch {index} again"));
                self.unruly.repeat(index);
            }
            Step::Read => self.long_read(),
            Step::Advance => self.advance().await,
            Step::Jump => self.jump(),
            Step::Arm => self.arm(),
            Step::Full => {
                self.disk.set_full(!self.disk.is_full());
                let full = self.disk.is_full();
                self.tell(|| format!("the disk {}", if full { "is full" } else { "has room again" }));
            }
            Step::Outsider => {
                let naps = self.throw(|dice| u32::try_from(dice.within(1, 150)).expect("it is small"));
                self.tell(|| format!("somebody with sqlite3 holds the ledger for {naps} naps"));
                self.disk.hold(naps);
            }
            Step::Die(life) => {
                self.count(if life == Life::Killed { Fault::Kill } else { Fault::PowerCut });
                let how = if life == Life::Killed { "the process is killed" } else { "the power goes" };
                self.tell(|| how.to_owned());
                self.disk.die(life);
                self.died();
            }
            Step::Stop => self.stop()?,
        }
        self.alone.set(true);
        self.look_at_sales()
    }

    async fn advance(&self) {
        let millis = self.throw(|dice| *dice.pick(&[1, 5, 11, 25, 60, 400, 3_000]));
        self.clock.add(millis);
        tokio::time::advance(Duration::from_millis(millis.cast_unsigned())).await;
    }

    fn jump(&self) {
        let minutes = self.throw(|dice| *dice.pick(&[-60, -60, -10, -1, 1, 10, 60, 60]));
        self.count(if minutes < 0 { Fault::ClockBack } else { Fault::ClockForward });
        self.clock.add(minutes * MINUTE);
        self.tell(|| format!("the clock jumps by {minutes} minutes"));
    }

    fn arm(&self) {
        let troubles = [
            Trouble::PowerCut,
            Trouble::PowerCut,
            Trouble::Kill,
            Trouble::WriteError,
            Trouble::ShortWrite,
            Trouble::SyncError,
            Trouble::SyncError,
            Trouble::ReadError,
        ];
        let trouble = self.throw(|dice| *dice.pick(&troubles));
        let after = match trouble {
            Trouble::SyncError => self.throw(|dice| dice.below(3) + 1),
            _ => self.throw(|dice| dice.below(12) + 1),
        };
        self.disk.arm(trouble, after);
    }

    /// At every instant: what is free, reserved and confirmed is what there is.
    fn look_at_sales(&self) -> Checked {
        if self.disk.life() != Life::Running {
            return Ok(());
        }
        let statuses = at_once(self.shop().inventory.statuses())?.map_err(|error| error.to_string())?;
        for status in statuses {
            let total = status.sale.total_stock;
            if status.reserved + status.confirmed > total || status.available() + status.sold() != total {
                return broken!("P4 stock is conserved", "{status:?}");
            }
        }
        Ok(())
    }

    fn interlude(&self, moment: Moment) {
        match moment {
            Moment::Died => {
                let kill = self.disk.life() == Life::Killed;
                let how = if kill { "the process is killed" } else { "the power goes" };
                self.count(if kill { Fault::KillAtWork } else { Fault::PowerCutAtWork });
                self.tell(|| format!("{how} while the disk is at work"));
                self.died();
            }
            Moment::AtWork if self.alone.get() || self.temper.overlap == 0 => {}
            Moment::AtWork => {
                if self.throw(|dice| dice.chance(self.temper.overlap)) {
                    self.alone.set(true);
                    // A panic must not go through SQLite.
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.overlap())) {
                        self.break_if(Err(format!("nothing panics: {}", words_of(&*panic))));
                    }
                    self.alone.set(false);
                }
            }
        }
    }

    /// Somebody else goes on while the disk is at work.
    fn overlap(&self) {
        self.count(Fault::Overlap);
        self.overlaps.set(self.overlaps.get() + 1);
        match self.throw(|dice| dice.below(10)) {
            0 => self.checkpoint(),
            1 => self.long_read(),
            2 if !self.taken.get() => self.take_group(true),
            _ => {
                let index = self.throw(|dice| dice.index(self.callers.len()));
                self.caller(index);
            }
        }
    }

    /// The process died this very moment: whose answers were on their way?
    fn died(&self) {
        let ready =
            self.callers.iter().map(|caller| caller.try_borrow().is_ok_and(|caller| caller.flag.is_raised()));
        let mut ready: Vec<_> = ready.collect();
        ready.push(self.admin.try_borrow().is_ok_and(|admin| admin.flag.is_raised()));
        *self.answered_at_death.borrow_mut() = ready;
    }
}

/// The callers.
impl World {
    fn caller(&self, index: usize) {
        let Ok(mut caller) = self.callers[index].try_borrow_mut() else { return };
        if caller.asks.is_none() {
            self.ask(&mut caller);
        }
        if caller.flag.is_raised() {
            let outcome = self.listen(&mut caller, true);
            self.break_if(outcome);
        }
    }

    fn ask(&self, caller: &mut Caller) {
        let (sale, buys) = self.throw(|dice| (*dice.pick(&SALES), dice.chance(80)));
        let (service, user) = (self.shop().service.clone(), caller.name.clone());
        let sale: SaleId = sale.parse().expect("a valid sale id");
        let since = self.place(&sale).unwrap_or_default();
        let asked = sale.clone();
        let future: Boxed<Reply> = if buys {
            Box::pin(async move { Reply::Attempt(service.attempt(asked.as_str(), user.as_str()).await) })
        } else {
            Box::pin(async move { Reply::Purchase(service.purchase(asked.as_str(), user.as_str()).await) })
        };
        caller.flag = Flag::raised();
        caller.asks = Some(Ask { sale, since, decided: None, future });
    }

    /// Asks on, and takes the answer where there is one. `heard` is whether it reaches the caller.
    fn listen(&self, caller: &mut Caller, heard: bool) -> Checked {
        let Some(ask) = &mut caller.asks else { return Ok(()) };
        caller.flag.lower();
        let before = self.place(&ask.sale).unwrap_or_default();
        let reply = ask.future.as_mut().poll(&mut Context::from_waker(&caller.flag.waker()));
        let after = self.place(&ask.sale).unwrap_or_default();
        let (name, sale) = (caller.name.clone(), ask.sale.clone());
        if after > before {
            ask.decided = Some((after, self.clock.now()));
            self.witness.borrow_mut().took(&sale, after, Act::Attempt(name.clone()))?;
            if self.stopped.get() {
                return broken!(
                    "after a failed write selling stops",
                    "{name} was decided at place {after} of {sale}"
                );
            }
        }
        let Poll::Ready(reply) = reply else {
            if after > before {
                self.tell(|| format!("{name} tries to buy {sale}: decided at place {after}, and waits"));
            }
            return Ok(());
        };
        let ask = caller.asks.take().expect("it is being answered");
        if heard {
            self.hear(&name, &ask, reply)
        } else {
            self.count(Fault::LostReply);
            self.tell(|| format!("an answer to {name} about {sale} is lost"));
            Ok(())
        }
    }

    fn hear(&self, name: &UserId, ask: &Ask, reply: Reply) -> Checked {
        let sale = &ask.sale;
        let mut witness = self.witness.borrow_mut();
        match reply {
            Reply::Attempt(Ok(decision)) => {
                let (place, at) = ask.decided.unzip();
                let at = at.unwrap_or_else(|| self.clock.now());
                self.tell(|| format!("{name} is told of {sale}: {}", words_of_decision(&decision, place)));
                if let Decision::Reserved(reservation) = &decision {
                    self.known.borrow_mut().push(reservation.clone());
                }
                witness.told(sale, name, place, at, &decision)
            }
            Reply::Purchase(Ok(purchase)) => {
                self.tell(|| {
                    let what = purchase.map_or("nothing".to_owned(), words_of_purchase);
                    format!("{name} asks what they hold of {sale}: {what}")
                });
                witness.told_of_purchase(sale, name, purchase, ask.since)
            }
            Reply::Attempt(Err(error)) | Reply::Purchase(Err(error)) => {
                witness.tally.unanswered += 1;
                if matches!(error, Error::Busy { .. }) {
                    self.count(Fault::QueueFull);
                }
                self.tell(|| format!("{name} is told of {sale}: {error}"));
                Ok(())
            }
        }
    }

    fn hang_up(&self, index: usize) {
        let mut caller = self.callers[index].borrow_mut();
        self.count(Fault::HangUp);
        self.witness.borrow_mut().tally.unanswered += 1;
        let ask = caller.asks.take();
        let name = caller.name.clone();
        self.tell(|| {
            format!("{name} hangs up{}", ask.map_or(String::new(), |ask| format!(" on {}", ask.sale)))
        });
    }
}

/// The shop's people.
impl World {
    async fn open_shop(&self) -> Checked {
        for sale in SALES {
            self.begin_change(sale.parse().expect("a valid sale id"), 0);
            let mut rounds = 0;
            while self.admin.borrow().does.is_some() {
                let outcome = self.go_on_changing(true);
                self.take_group(true);
                self.write();
                outcome?;
                rounds += 1;
                if rounds > 20 {
                    return broken!("everything comes to rest", "{sale} is not made");
                }
            }
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    fn administrate(&self) {
        let Ok(admin) = self.admin.try_borrow() else { return };
        let idle = admin.does.is_none();
        drop(admin);
        if idle {
            let (sale, kind) = self.throw(|dice| (*dice.pick(&SALES), dice.below(20)));
            self.begin_change(sale.parse().expect("a valid sale id"), kind);
        }
        if self.admin.borrow().flag.is_raised() {
            let outcome = self.go_on_changing(true);
            self.break_if(outcome);
        }
    }

    fn begin_change(&self, sale: SaleId, kind: u64) {
        let shop = self.shop();
        let (service, id) = (shop.service.clone(), sale.clone());
        let exists = self.place(&sale).is_some();
        let (what, act, future): (_, _, Boxed<Answered<()>>) = match kind {
            _ if !exists => {
                let request = self.request(&sale);
                let SaleRequest { total_stock: total, starts_at, ends_at, .. } = request;
                let future = Box::pin(async move { service.create(request).await.map(drop) });
                ("make the sale", Act::Created { total, starts_at, ends_at }, future)
            }
            0..=2 => {
                ("reset", Act::Reset, Box::pin(async move { service.reset(id.as_str()).await.map(drop) }))
            }
            3 => ("delete", Act::Deleted, Box::pin(async move { service.delete(id.as_str()).await })),
            4..=9 => match self.to_release(&sale) {
                Some((held, ending)) => {
                    let (inventory, order) = (shop.inventory.clone(), held.order_id);
                    let future = Box::pin(async move { inventory.release(&held, ending).await.map(drop) });
                    ("release an order", Act::Released(order), future)
                }
                None => return,
            },
            _ => {
                let change = self.change(kind);
                let future = Box::pin(async move { service.change(id.as_str(), change).await.map(drop) });
                ("change the sale", Act::Changed, future)
            }
        };
        let mut admin = self.admin.borrow_mut();
        admin.flag = Flag::raised();
        admin.does = Some(Change { sale, what, act, place: None, future });
    }

    fn request(&self, sale: &SaleId) -> SaleRequest {
        let (stock, from, to) =
            self.throw(|dice| (dice.within(1, 9), dice.within(-90, 2), dice.within(5, 100)));
        let minutes = |count: i64| Timestamp::from_millis(self.clock.now().as_millis() + count * MINUTE);
        SaleRequest {
            sale_id: Some(sale.to_string()),
            name: format!("The {sale}"),
            total_stock: u32::try_from(stock).expect("it is small"),
            starts_at: minutes(from),
            ends_at: minutes(to),
            product: Product::default(),
        }
    }

    fn change(&self, kind: u64) -> SaleChange {
        let mut change = SaleChange::default();
        match kind {
            10..=12 => change.paused = Some(true),
            13..=16 => change.paused = Some(false),
            _ => {
                let stock = self.throw(|dice| dice.within(1, 12));
                change.total_stock = Some(u32::try_from(stock).expect("it is small"));
            }
        }
        change
    }

    fn to_release(&self, sale: &SaleId) -> Option<(Reservation, Ending)> {
        let known = self.known.borrow();
        let of_sale: Vec<_> = known.iter().filter(|held| held.sale_id == *sale).collect();
        if of_sale.is_empty() {
            return None;
        }
        self.throw(|dice| {
            let ending = if dice.chance(50) { Ending::Cancelled } else { Ending::Expired };
            Some(((*dice.pick(&of_sale)).clone(), ending))
        })
    }

    fn go_on_changing(&self, heard: bool) -> Checked {
        let mut admin = self.admin.borrow_mut();
        let Admin { flag, does } = &mut *admin;
        let Some(change) = does else { return Ok(()) };
        flag.lower();
        let before = self.place(&change.sale);
        let polled = change.future.as_mut().poll(&mut Context::from_waker(&flag.waker()));
        // A sale that was just deleted has no place in memory any more; it took one all the same.
        let after = self.place(&change.sale).or_else(|| before.map(Place::next));
        self.placed(change, before, after)?;
        let Poll::Ready(answer) = polled else { return Ok(()) };
        let change = does.take().expect("it is being answered");
        let (sale, what, place) = (&change.sale, change.what, change.place);
        match answer {
            _ if !heard => self.count(Fault::LostReply),
            Ok(()) => {
                let at = place.map_or(String::new(), |place| format!(", at place {place}"));
                self.tell(|| format!("the shop is told that this is done: {what} {sale}{at}"));
                self.witness.borrow_mut().told_done(sale, place, what);
            }
            Err(error) => self.tell(|| format!("the shop tried to {what} {sale}: {error}")),
        }
        Ok(())
    }

    /// Notes the place that a change took, if it took one in this poll.
    fn placed(&self, change: &mut Change, before: Option<Place>, after: Option<Place>) -> Checked {
        if change.place.is_some() {
            return Ok(());
        }
        let Some(after) = after else { return Ok(()) };
        let mut witness = self.witness.borrow_mut();
        // A sale that comes again goes on where its sequence was.
        let first = before.map_or(after.0, |before| before.0 + 1);
        let mine: Vec<_> =
            (first..=after.0).map(Place).filter(|place| !witness.is_taken(&change.sale, *place)).collect();
        match mine[..] {
            [] => Ok(()),
            [place] => {
                change.place = Some(place);
                let (sale, what, total) = (change.sale.clone(), change.what, &change.act);
                let detail = match total {
                    Act::Created { total, .. } => format!(" of {total} units"),
                    _ => String::new(),
                };
                self.tell(|| format!("the shop: {what} {sale}{detail}, decided at place {place}"));
                witness.took(&sale, place, change.act.clone())
            }
            _ => broken!("P5 one sequence", "a change of {} took {} places", change.sale, mine.len()),
        }
    }
}

/// The program's own threads.
impl World {
    fn take_group(&self, lingered: bool) {
        let Ok(mut writer) = self.writer.try_borrow_mut() else { return };
        if let Some(writer) = &mut *writer
            && !self.taken.get()
        {
            self.taken.set(writer.take(lingered) == Taken::Group);
        }
    }

    fn write(&self) {
        let Ok(mut slot) = self.writer.try_borrow_mut() else { return };
        let Some(writer) = &mut *slot else { return };
        if !self.taken.replace(false) {
            return;
        }
        let (troubles, overlaps) = (self.disk.troubles(), self.overlaps.get());
        if writer.write() {
            self.tell(|| "the writer has committed a group".to_owned());
            let alone = self.overlaps.get() == overlaps;
            // What overlapped may have asked for it again, after it was done.
            let tidied = self.tidies.get();
            self.tidies.set(tidied && !alone);
            if !tidied && alone && self.disk.troubles() > troubles {
                self.break_if(broken!(
                    "a failed write or fsync is never repeated",
                    "the writer went on after one"
                ));
            }
            return;
        }
        *slot = None;
        self.note_stop("the writer", troubles);
    }

    /// Somebody has met a fault of the disk since it had `troubles`: nobody sells any more, if the program still runs.
    fn note_stop(&self, who: &str, troubles: u64) {
        if self.disk.life() != Life::Running || self.stopped.replace(true) {
            return;
        }
        self.count(Fault::SellingStopped);
        self.tell(|| format!("{who} has failed: selling stops"));
        let ready = at_once(self.shop().inventory.ready());
        self.break_if(match ready {
            Ok(Err(Error::Unavailable { .. })) if self.disk.troubles() > troubles => Ok(()),
            Ok(Err(Error::Unavailable { reason, .. })) => {
                broken!(
                    "the ledger takes what was decided",
                    "it refused without any fault of the disk: {reason}"
                )
            }
            other => broken!("after a failed write selling stops", "it says that it is ready: {other:?}"),
        });
    }

    fn checkpoint(&self) {
        let Ok(mut checkpointer) = self.checkpointer.try_borrow_mut() else { return };
        let Some(checkpointer) = &mut *checkpointer else { return };
        self.tidies.set(true);
        let (writes, troubles) = (self.disk.writes(LEDGER), self.disk.troubles());
        let sells = checkpointer.look(self.temper.log_pages);
        if self.disk.writes(LEDGER) > writes {
            self.count(Fault::Checkpoint);
            self.tell(|| "the log is copied into the file".to_owned());
        }
        if !sells {
            self.note_stop("the checkpointer", troubles);
        }
    }

    fn work(&self) {
        let Ok(mut work) = self.work.try_borrow_mut() else { return };
        let Work { flag, future } = &mut *work;
        let Some(running) = future else { return };
        flag.lower();
        if running.as_mut().poll(&mut Context::from_waker(&flag.waker())).is_ready() {
            *future = None;
            self.tell(|| "the order worker is done".to_owned());
        }
    }

    fn long_read(&self) {
        let Ok(mut slot) = self.long_read.try_borrow_mut() else { return };
        let outcome = match &mut *slot {
            None => LongRead::open(&self.vfs.uri(LEDGER)).map(|read| *slot = Some(read)),
            Some(read) => read.go_on().map(|changed| match changed {
                Some(Ok(())) => self.count(Fault::LongRead),
                Some(Err(what)) => self.break_if(Err(what)),
                None => {}
            }),
        };
        if let Err(error) = outcome {
            *slot = None;
            self.tell(|| format!("somebody's read failed: {error}"));
        }
    }
}

impl LongRead {
    fn open(uri: &str) -> rusqlite::Result<Self> {
        let connection = Connection::open(uri)?;
        connection.execute_batch("PRAGMA wal_autocheckpoint = 0; BEGIN")?;
        let orders = Some(count_orders(&connection)?);
        Ok(Self { connection, orders })
    }

    /// Takes a snapshot, or looks whether it stayed what it was and ends it.
    fn go_on(&mut self) -> rusqlite::Result<Option<Checked>> {
        let Some(before) = self.orders.take() else {
            self.connection.execute_batch("BEGIN")?;
            self.orders = Some(count_orders(&self.connection)?);
            return Ok(None);
        };
        let orders = count_orders(&self.connection)?;
        self.connection.execute_batch("COMMIT")?;
        Ok(Some(if orders == before {
            Ok(())
        } else {
            broken!("a snapshot stays what it is", "it changed from {before} to {orders} orders")
        }))
    }
}

/// Ends and starts.
impl World {
    /// Lets go of everything that was in the process.
    fn drop_process(&self) {
        self.disk.disarm();
        for caller in &self.callers {
            caller.borrow_mut().asks = None;
        }
        self.admin.borrow_mut().does = None;
        self.work.borrow_mut().future = None;
        *self.long_read.borrow_mut() = None;
        *self.writer.borrow_mut() = None;
        *self.checkpointer.borrow_mut() = None;
        *self.shop.borrow_mut() = None;
        self.taken.set(false);
        self.stopped.set(false);
    }

    /// What was on its way when the process died reaches its caller, or not.
    fn last_answers(&self) -> Checked {
        let ready = self.answered_at_death.take();
        for (index, ready) in ready.into_iter().enumerate() {
            if !ready {
                continue;
            }
            let heard = self.throw(|dice| dice.chance(50));
            match self.callers.get(index) {
                Some(caller) => self.listen(&mut caller.borrow_mut(), heard)?,
                None => self.go_on_changing(heard)?,
            }
        }
        Ok(())
    }

    /// A new process, after a crash or a stop. `complete` are the places where everything should be on record.
    fn start_again(self: &Rc<Self>, complete: Option<&BTreeMap<SaleId, Place>>) -> Checked {
        self.alone.set(true);
        self.last_answers()?;
        self.drop_process();
        self.disk.restart();
        self.note_disk();
        self.start(complete)
    }

    fn start(self: &Rc<Self>, complete: Option<&BTreeMap<SaleId, Place>>) -> Checked {
        self.alone.set(true);
        for attempt in 0.. {
            if attempt < 3 && self.throw(|dice| dice.chance(3 * self.temper.errors)) {
                self.arm();
            }
            if attempt > 0 {
                self.disk.set_full(false);
            }
            let troubles = self.disk.troubles();
            let opened = self.open();
            self.disk.disarm();
            let died = self.disk.life() != Life::Running;
            match opened {
                Ok(()) if !died => break,
                Err(error) if !died && self.disk.troubles() == troubles => {
                    return broken!("the ledger opens after a crash", "{error}");
                }
                _ => {}
            }
            self.count(if died { Fault::CrashAtStart } else { Fault::FailedStart });
            self.tell(|| "the program could not start".to_owned());
            self.drop_process();
            if !died {
                self.disk.die(Life::Killed);
            }
            self.disk.restart();
            self.note_disk();
        }
        self.audit(complete)
    }

    fn open(self: &Rc<Self>) -> Result<(), String> {
        // The program does this itself, on files that no simulated disk has.
        self.disk.rewrite(LOG).map_err(|error| format!("the log cannot be written anew: {error:?}"))?;
        let uri = self.vfs.uri(LEDGER);
        let opened = Stepped::open(Path::new(&uri), self.temper.bounds, self.clock.clone(), self.ids.clone());
        let Stepped { embedded, writer, checkpointer } = opened.map_err(|error| error.to_string())?;
        let (inventory, store) = (embedded.inventory(), embedded.store());
        let service = SaleService::new(inventory.clone(), self.clock.clone(), self.ids.clone());
        let queue = Arc::new(UnrulyQueue { inner: embedded.queue(), unruly: self.unruly.clone() });
        let worker = OrderWorker::new(queue, store.clone(), self.clock.clone());
        *self.work.borrow_mut() =
            Work { flag: Flag::raised(), future: Some(Box::pin(async move { _ = worker.run().await })) };
        *self.writer.borrow_mut() = Some(writer);
        *self.checkpointer.borrow_mut() = Some(checkpointer);
        let found = embedded.found();
        self.tell(|| format!("the program starts: {found}"));
        *self.shop.borrow_mut() = Some(Rc::new(Shop { embedded, service, inventory, store }));
        Ok(())
    }

    /// Everything that was told, against what is on record now.
    fn audit(&self, complete: Option<&BTreeMap<SaleId, Place>>) -> Checked {
        self.sound_file()?;
        let sales: Vec<_> = self.witness.borrow().sales();
        self.witness.borrow_mut().tally.starts += 1;
        for sale in sales {
            let shop = self.shop();
            let key = self.witness.borrow().reckoned(&sale).map_or(0, |reckoning| reckoning.key);
            let events = match at_once(shop.store.audit(&sale, key, PAGE))? {
                Ok(page) => page.rows,
                Err(Error::UnknownSale(_)) => Vec::new(),
                Err(error) => return broken!("the record can be read", "{sale}: {error}"),
            };
            let known = self.witness.borrow().reckoned(&sale).map_or(0, |reckoning| reckoning.place);
            let read = events.last().map(|event| Place(((event.id / 2) & 0xFF_FFFF_FFFF).cast_unsigned()));
            let last = self.place(&sale).or(read).unwrap_or(Place(known));
            let complete = complete.and_then(|complete| complete.get(&sale)).copied();
            self.witness.borrow_mut().audit(&sale, &events, last, complete)?;
            self.compare(&shop, &sale)?;
            // Counting row by row costs the most.
            if complete.is_some() || self.throw(|dice| dice.chance(20)) {
                self.count_rows(&shop, &sale)?;
            }
        }
        Ok(())
    }

    fn sound_file(&self) -> Checked {
        let check = || {
            let connection = Connection::open(self.vfs.uri(LEDGER))?;
            connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
        };
        match check() {
            Ok(verdict) if verdict == "ok" => Ok(()),
            other => broken!("the file is sound", "{other:?}"),
        }
    }

    /// Memory, rows and the reckoned trail say the same.
    fn compare(&self, shop: &Shop, sale: &SaleId) -> Checked {
        let witness = self.witness.borrow();
        let Some(reckoning) = witness.reckoned(sale) else { return Ok(()) };
        let status = match at_once(shop.inventory.status(sale))? {
            Ok(status) => status,
            Err(Error::UnknownSale(_)) if !reckoning.exists => return Ok(()),
            other => return broken!("memory is what is on record", "{sale}: {other:?}"),
        };
        let (live, confirmed) = (reckoning.live.len(), reckoning.confirmed());
        let memory = (
            status.sale.epoch.0,
            status.sale.total_stock,
            status.sale.paused,
            status.sold(),
            status.confirmed,
        );
        let record = (reckoning.epoch, reckoning.total, reckoning.paused, live as u32, confirmed as u32);
        if memory != record || !reckoning.exists {
            return broken!("memory is what is on record", "{sale}: {memory:?}, and on record {record:?}");
        }
        for (user, held) in &reckoning.live {
            let status = if held.confirmed { OrderStatus::Confirmed } else { OrderStatus::Reserved };
            let expected = Purchase { order_id: held.order, unit: held.unit, status };
            let found = at_once(shop.inventory.purchase(sale, user))?;
            if found != Ok(Some(expected)) {
                return broken!(
                    "memory is what is on record",
                    "{user} holds {expected:?} of {sale}: {found:?}"
                );
            }
        }
        Ok(())
    }

    /// The rows, counted as `verify` counts them.
    fn count_rows(&self, shop: &Shop, sale: &SaleId) -> Checked {
        let figures = match at_once(shop.store.figures(sale))? {
            Ok(figures) => figures,
            Err(Error::UnknownSale(_)) => return Ok(()),
            Err(error) => return broken!("the record can be read", "{sale}: {error}"),
        };
        let witness = self.witness.borrow();
        let live = witness.reckoned(sale).map_or(0, |reckoning| reckoning.live.len());
        let wrong = [
            figures.users_with_two,
            figures.units_sold_twice,
            figures.units_outside_stock,
            figures.orders_of_other_epochs,
            figures.orders_without_record,
            figures.records_missing,
            figures.records_unexpected,
            figures.sold_out_too_early,
        ];
        let counted = figures.reserved + figures.confirmed;
        let adds_up = figures.available + counted == figures.total_stock && counted == live as u64;
        if wrong.iter().any(|count| *count > 0) || !adds_up {
            return broken!("the figures add up", "{sale}: {figures:?}");
        }
        Ok(())
    }

    /// Stops as a program should, and starts again: then everything is on record.
    fn stop(self: &Rc<Self>) -> Checked {
        if self.stopped.get() {
            return Ok(());
        }
        self.count(Fault::Restart);
        self.tell(|| "the program is stopped".to_owned());
        // Nobody else holds the ledger then, or the last groups could not be written.
        self.disk.hold(0);
        let shop = self.shop();
        shop.embedded.close();
        loop {
            self.take_group(true);
            if !self.taken.get() {
                break;
            }
            self.write();
            if self.disk.life() != Life::Running {
                return Ok(());
            }
            if self.stopped.get() {
                self.disk.die(Life::Killed);
                self.died();
                return Ok(());
            }
        }
        self.answer_all()?;
        if self.disk.life() != Life::Running {
            return Ok(());
        }
        let places = SALES.iter().map(|sale| sale.parse::<SaleId>().expect("a valid sale id"));
        let places: BTreeMap<_, _> =
            places.filter_map(|sale| self.place(&sale).map(|place| (sale, place))).collect();
        *self.long_read.borrow_mut() = None;
        self.alone.set(true);
        let (writer, checkpointer) = (self.writer.borrow_mut().take(), self.checkpointer.borrow_mut().take());
        if let (Some(writer), Some(checkpointer)) = (writer, checkpointer) {
            stepped::finish(&shop.embedded, writer, checkpointer);
        }
        drop(shop);
        let power = self.throw(|dice| dice.chance(40));
        if self.disk.life() == Life::Running {
            self.disk.die(if power { Life::PowerOff } else { Life::Killed });
        }
        self.died();
        self.start_again(Some(&places))
    }

    /// Once the writer has ended in peace, nobody waits any more.
    fn answer_all(&self) -> Checked {
        for _ in 0..3 {
            for caller in &self.callers {
                let mut caller = caller.borrow_mut();
                if caller.flag.is_raised() {
                    self.listen(&mut caller, true)?;
                }
            }
            if self.admin.borrow().flag.is_raised() {
                self.go_on_changing(true)?;
            }
        }
        let waiting = self.callers.iter().find(|caller| caller.borrow().asks.is_some());
        let died = self.disk.life() != Life::Running;
        match waiting {
            Some(caller) if !died => {
                broken!("everybody gets an answer", "{} still waits after a clean stop", caller.borrow().name)
            }
            _ => Ok(()),
        }
    }

    /// Nothing more happens to it: everything that was reserved is confirmed, and everything is on record.
    async fn come_to_rest(self: &Rc<Self>) -> Checked {
        self.disk.disarm();
        self.disk.set_full(false);
        self.disk.hold(0);
        self.note_disk();
        self.tell(|| "nothing more goes wrong".to_owned());
        let mut restarts = 0;
        for round in 0.. {
            // Once more, it may still be told of what went wrong before.
            if self.stopped.get() && restarts < 2 {
                self.disk.die(Life::Killed);
                self.died();
            }
            if self.disk.life() != Life::Running {
                restarts += 1;
                self.start_calm()?;
            }
            if self.is_at_rest()? {
                break;
            }
            if round > ROUNDS_TO_REST {
                return broken!("everything comes to rest", "{}", self.restless());
            }
            self.one_quiet_round().await?;
        }
        self.tell(|| "all is confirmed".to_owned());
        self.stop()
    }

    fn start_calm(self: &Rc<Self>) -> Checked {
        self.last_answers()?;
        self.drop_process();
        self.disk.restart();
        self.open().map_err(|error| format!("the ledger opens after a crash: {error}"))?;
        self.note_disk();
        self.audit(None)
    }

    fn is_at_rest(&self) -> Checked<bool> {
        let statuses = at_once(self.shop().inventory.statuses())?.map_err(|error| error.to_string())?;
        let asks = self.callers.iter().any(|caller| caller.borrow().asks.is_some());
        Ok(!asks && self.admin.borrow().does.is_none() && statuses.iter().all(|status| status.reserved == 0))
    }

    /// Who is not at rest, in words.
    fn restless(&self) -> String {
        let waits = self.callers.iter().filter_map(|caller| {
            let caller = caller.borrow();
            caller.asks.as_ref().map(|ask| format!("{} waits for {}", caller.name, ask.sale))
        });
        let mut words: Vec<_> = waits.collect();
        words.extend(
            self.admin
                .borrow()
                .does
                .as_ref()
                .map(|does| format!("the shop waits: {} {}", does.what, does.sale)),
        );
        let statuses = at_once(self.shop().inventory.statuses());
        let reserved = statuses.into_iter().flatten().flatten().filter(|status| status.reserved > 0);
        words.extend(
            reserved.map(|status| format!("{} has {} reservations", status.sale.id, status.reserved)),
        );
        let work = self.work.borrow();
        words.push(format!("the worker {}", if work.future.is_some() { "waits" } else { "is gone" }));
        words.join(", ")
    }

    async fn one_quiet_round(&self) -> Checked {
        self.unruly.let_go();
        self.take_group(true);
        self.write();
        for caller in &self.callers {
            let mut caller = caller.borrow_mut();
            if caller.flag.is_raised() {
                self.listen(&mut caller, true)?;
            }
        }
        if self.admin.borrow().flag.is_raised() {
            self.go_on_changing(true)?;
        }
        if self.work.borrow().flag.is_raised() {
            self.work();
        }
        self.clock.add(25);
        tokio::time::advance(Duration::from_millis(25)).await;
        Ok(())
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

fn count_orders(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM orders", [], |row| row.get(0))
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

fn words_of_decision(decision: &Decision, place: Option<Place>) -> String {
    let place = place.unwrap_or_default();
    match decision {
        Decision::Reserved(held) => {
            let order = held.order_id.0.as_u128();
            format!("SUCCESS, unit {}, order {order}, epoch {}, place {place}", held.unit, held.epoch)
        }
        Decision::AlreadyPurchased(held) => {
            format!("ALREADY_PURCHASED, {}, place {place}", words_of_purchase(*held))
        }
        Decision::SoldOut => format!("SOLD_OUT, place {place}"),
        Decision::NotActive => format!("not active, place {place}"),
    }
}

fn words_of_purchase(held: Purchase) -> String {
    format!("unit {}, order {}, {}", held.unit, held.order_id.0.as_u128(), held.status)
}
