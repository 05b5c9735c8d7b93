//! What is appended to the ledger: one entry for each decision or change, in the order of the decisions.

use std::sync::Arc;

use flashsale_core::{
    Error,
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, Unit, UserId},
    inventory::{Decided, Decision},
    order::{Ending, Reservation},
    sale::Sale,
};
use tokio::sync::oneshot;

use crate::sales::SaleCell;

/// Completed with the outcome of the commit that an entry was part of.
pub(crate) type Reply = oneshot::Sender<Result<(), Error>>;

/// An entry of the ledger.
pub(crate) struct Entry {
    pub(crate) cell: Arc<SaleCell>,
    /// Its place in the sale's sequence; the last one where it has several.
    pub(crate) place: Place,
    pub(crate) epoch: Epoch,
    pub(crate) at: Timestamp,
    pub(crate) record: Record,
    /// Whoever waits for the commit. Nobody does for a rejection that rests on what is durable.
    pub(crate) reply: Option<Reply>,
}

impl Entry {
    /// Whoever waits for the outcome of the attempt that it records, and no longer does.
    pub(crate) fn take_attempts_reply(&mut self) -> Option<Reply> {
        matches!(self.record, Record::Attempt(..)).then(|| self.reply.take()).flatten()
    }

    /// The reservation that it records, where it is one.
    pub(crate) fn reservation(&self) -> Option<Reservation> {
        let Record::Attempt(user_id, Outcome::Reserved { order_id, unit }) = &self.record else {
            return None;
        };
        Some(Reservation {
            sale_id: self.cell.id.clone(),
            epoch: self.epoch,
            place: self.place,
            unit: *unit,
            user_id: user_id.clone(),
            order_id: *order_id,
            reserved_at: self.at,
        })
    }
}

/// What happened.
pub(crate) enum Record {
    /// An attempt was decided.
    Attempt(UserId, Outcome),
    /// Reservations were confirmed; one place each, ascending to the entry's.
    Confirmed(Vec<Reservation>),
    /// A live order ended.
    Released(Reservation, Ending),
    /// A reservation was refused for good, for this reason.
    Refused(Reservation, String),
    /// A sale was made.
    Created(Sale),
    /// A sale was changed.
    Changed(Sale),
    /// A sale was reset; the entry's epoch is the new one.
    Reset,
    /// A sale was deleted.
    Deleted,
}

/// How an attempt was decided.
#[derive(Clone, Copy)]
pub(crate) enum Outcome {
    Reserved { order_id: OrderId, unit: Unit },
    SoldOut,
    Duplicate { order_id: OrderId, unit: Unit },
    NotActive,
}

impl Outcome {
    pub(crate) fn of(decided: &Decided) -> Self {
        match &decided.decision {
            Decision::Reserved(held) => Self::Reserved { order_id: held.order_id, unit: held.unit },
            Decision::AlreadyPurchased(held) => Self::Duplicate { order_id: held.order_id, unit: held.unit },
            Decision::SoldOut => Self::SoldOut,
            Decision::NotActive => Self::NotActive,
        }
    }
}

/// The kinds of a trail row, as in the table `trail_kinds`.
pub(crate) mod kind {
    pub(crate) const RESERVED: u8 = 1;
    pub(crate) const REJECTED_SOLD_OUT: u8 = 2;
    pub(crate) const REJECTED_DUPLICATE: u8 = 3;
    pub(crate) const REJECTED_NOT_ACTIVE: u8 = 4;
    pub(crate) const CONFIRMED: u8 = 5;
    pub(crate) const EXPIRED: u8 = 6;
    pub(crate) const CANCELLED: u8 = 7;
    pub(crate) const FAILED_DB: u8 = 8;
    pub(crate) const ADMIN_CREATED: u8 = 9;
    pub(crate) const ADMIN_CHANGED: u8 = 10;
    pub(crate) const ADMIN_RESET: u8 = 11;
    pub(crate) const ADMIN_DELETED: u8 = 12;
}

/// How many bits of a key are the place or the unit; the sale's number stands above them.
pub(crate) const PLACE_BITS: u32 = 40;

/// The keys between which all those of the sale numbered `no` lie.
pub(crate) fn keys_of(no: u32) -> (i64, i64) {
    (i64::from(no) << PLACE_BITS, (i64::from(no) + 1) << PLACE_BITS)
}

/// The key of the live order of a unit of the sale numbered `no`.
pub(crate) fn order_key(no: u32, unit: Unit) -> i64 {
    (i64::from(no) << PLACE_BITS) | i64::from(unit.0)
}

/// The key of the trail row at `place` of the sale numbered `no`.
pub(crate) fn trail_key(no: u32, place: Place) -> i64 {
    let place = i64::try_from(place.0).expect("a place has 40 bits");
    (i64::from(no) << PLACE_BITS) | place
}
