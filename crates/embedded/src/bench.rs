//! The engine with its writer's turns taken by hand, on one thread: what it does is then the same each time, and its
//! instructions can be counted.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use flashsale_core::{
    Result,
    ids::{SaleId, UserId},
    inventory::Decision,
    order::{Confirmation, Reservation},
    ports::{Clock, OrderIds},
};

use crate::{
    Embedded, FILE_NAME, Folder, OpenError,
    stepped::{Bounds, Stepped, Taken, Writer},
};

/// The profile on a data folder, without threads.
pub struct ByHand {
    embedded: Embedded,
    writer: Writer,
}

fn glance<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn finished<F: Future + ?Sized>(future: Pin<&mut F>) -> F::Output {
    match glance(future) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("somebody still waits after the commit"),
    }
}

/// # Panics
/// All methods do when the ledger cannot be written, or an answer does not come when it should.
impl ByHand {
    /// Opens the ledger in `folder`, in which sales were made before.
    ///
    /// # Errors
    /// When the ledger cannot be opened.
    pub fn open(folder: &Folder, clock: Arc<dyn Clock>, ids: Arc<dyn OrderIds>) -> Result<Self, OpenError> {
        let bounds = Bounds { waiting: 16_384, outbox: 65_536 };
        let opened = Stepped::open(&folder.path().join(FILE_NAME), bounds, || Ok(|| Ok(())), clock, ids)?;
        Ok(Self { embedded: opened.embedded, writer: opened.writer })
    }

    /// Attempts of all `users`, the commit that they share, and their answers: the reservations.
    pub fn buy(&mut self, sale: &SaleId, users: &[UserId]) -> Vec<Reservation> {
        let inventory = self.embedded.inventory();
        let mut answers: Vec<_> = users.iter().map(|user| inventory.attempt(sale, user.clone())).collect();
        for answer in &mut answers {
            assert!(glance(answer.as_mut()).is_pending(), "a purchase waits for its commit");
        }
        self.record();
        let decided = answers.iter_mut().map(|answer| finished(answer.as_mut()));
        decided
            .map(|decided| match decided {
                Ok(Decision::Reserved(reservation)) => reservation,
                other => panic!("not reserved: {other:?}"),
            })
            .collect()
    }

    /// Attempts of all `users`, each rejected at once; the records wait for [`ByHand::record`].
    pub fn reject(&self, sale: &SaleId, users: &[UserId]) {
        let inventory = self.embedded.inventory();
        for user in users {
            let decided = finished(inventory.attempt(sale, user.clone()).as_mut());
            assert!(!matches!(decided, Ok(Decision::Reserved(_)) | Err(_)), "not rejected: {decided:?}");
        }
    }

    /// Commits what waits.
    pub fn record(&mut self) {
        assert_eq!(self.writer.take(true), Taken::Group, "something waits");
        assert!(self.writer.write(), "the ledger can be written");
    }

    /// Copies the log into the file, as the writer does when the checkpointer asks it to.
    pub fn checkpoint(&self) {
        self.writer.checkpoint();
    }

    /// Confirms reservations, with their commit.
    pub fn confirm(&mut self, reservations: &[Reservation]) {
        let store = self.embedded.store();
        let mut confirming = store.confirm(reservations);
        assert!(glance(confirming.as_mut()).is_pending(), "a confirmation waits for its commit");
        self.record();
        let outcomes = finished(confirming.as_mut()).expect("the ledger can be written");
        assert!(outcomes.iter().all(|outcome| *outcome == Confirmation::Confirmed), "not all are confirmed");
    }
}
