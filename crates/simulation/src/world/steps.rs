//! What happens next: the dice choose among all that could go on, and faults come in between.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::atomic::Ordering,
    time::Duration,
};

use super::{MINUTE, World, at_once, words_of};
use crate::{
    disk::{Life, Moment, Trouble},
    faults::Fault,
    witness::{Checked, broken},
};

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

impl World {
    /// Whoever the dice choose goes on.
    pub(super) async fn step(self: &Rc<Self>) -> Checked {
        let step = self.choose();
        self.take(step).await
    }

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

    pub(super) fn arm(&self) {
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

    pub(super) fn interlude(&self, moment: Moment) {
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
    pub(super) fn died(&self) {
        let ready =
            self.callers.iter().map(|caller| caller.try_borrow().is_ok_and(|caller| caller.flag.is_raised()));
        let mut ready: Vec<_> = ready.collect();
        ready.push(self.admin.try_borrow().is_ok_and(|admin| admin.flag.is_raised()));
        *self.answered_at_death.borrow_mut() = ready;
    }
}
