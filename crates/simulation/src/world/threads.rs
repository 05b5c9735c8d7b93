//! The program's own threads: the writer, the checkpointer, the order worker, and a reader that takes its time.

use std::task::Context;

use flashsale_core::Error;
use flashsale_embedded::stepped::Taken;
use rusqlite::Connection;

use super::{LEDGER, LongRead, Work, World, at_once};
use crate::{
    disk::Life,
    faults::Fault,
    witness::{Checked, broken},
};

impl World {
    pub(super) fn take_group(&self, lingered: bool) {
        let Ok(mut writer) = self.writer.try_borrow_mut() else { return };
        if let Some(writer) = &mut *writer
            && !self.taken.get()
        {
            self.taken.set(writer.take(lingered) == Taken::Group);
        }
    }

    pub(super) fn write(&self) {
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

    pub(super) fn checkpoint(&self) {
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

    pub(super) fn work(&self) {
        let Ok(mut work) = self.work.try_borrow_mut() else { return };
        let Work { flag, future } = &mut *work;
        let Some(running) = future else { return };
        flag.lower();
        if running.as_mut().poll(&mut Context::from_waker(&flag.waker())).is_ready() {
            *future = None;
            self.tell(|| "the order worker is done".to_owned());
        }
    }

    pub(super) fn long_read(&self) {
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

fn count_orders(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM orders", [], |row| row.get(0))
}
