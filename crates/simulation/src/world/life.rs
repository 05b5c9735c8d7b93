//! Ends and starts: the process dies or is stopped, a new one starts on what the disk kept, and in the end all comes to rest.

use std::{collections::BTreeMap, io, path::Path, rc::Rc, sync::Arc, time::Duration};

use flashsale_core::{
    ids::{Place, SaleId},
    service::SaleService,
    worker::OrderWorker,
};
use flashsale_embedded::stepped::{self, Stepped};
use parking_lot::Mutex;

use super::{LEDGER, LOG, ROUNDS_TO_REST, SALES, Shop, Work, World, at_once};
use crate::{
    disk::{Life, Opening},
    faults::Fault,
    parts::{Flag, UnrulyQueue},
    witness::{Checked, broken},
};

impl World {
    /// Lets go of everything that was in the process.
    pub(super) fn drop_process(&self) {
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
    pub(super) fn start_again(self: &Rc<Self>, complete: Option<&BTreeMap<SaleId, Place>>) -> Checked {
        self.alone.set(true);
        self.last_answers()?;
        self.drop_process();
        self.disk.restart();
        self.note_disk();
        self.start(complete)
    }

    pub(super) fn start(self: &Rc<Self>, complete: Option<&BTreeMap<SaleId, Place>>) -> Checked {
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
        let open_to_sync = || self.open_to_sync();
        let (clock, ids) = (self.clock.clone(), self.ids.clone());
        let opened = Stepped::open(Path::new(&uri), self.temper.bounds, open_to_sync, clock, ids);
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

    /// As the program opens the ledger's file beside SQLite; a handle, once told of a failed sync, is not told again.
    fn open_to_sync(&self) -> io::Result<impl Fn() -> io::Result<()> + Send + 'static> {
        let refused = |refusal| io::Error::other(format!("{refusal:?}"));
        let handle = Mutex::new(self.disk.open(LEDGER, Opening::default()).map_err(refused)?);
        Ok(move || handle.lock().sync().map_err(refused))
    }

    /// Stops as a program should, and starts again: then everything is on record.
    pub(super) fn stop(self: &Rc<Self>) -> Checked {
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

    /// Whoever was answered hears it.
    fn hear_all(&self) -> Checked {
        for caller in &self.callers {
            let mut caller = caller.borrow_mut();
            if caller.flag.is_raised() {
                self.listen(&mut caller, true)?;
            }
        }
        if self.admin.borrow().flag.is_raised() {
            self.go_on_changing(true)?;
        }
        Ok(())
    }

    /// Once the writer has ended in peace, nobody waits any more.
    fn answer_all(&self) -> Checked {
        for _ in 0..3 {
            self.hear_all()?;
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
    pub(super) async fn come_to_rest(self: &Rc<Self>) -> Checked {
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
        self.hear_all()?;
        if self.work.borrow().flag.is_raised() {
            self.work();
        }
        self.clock.add(25);
        tokio::time::advance(Duration::from_millis(25)).await;
        Ok(())
    }
}
