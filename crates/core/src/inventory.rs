//! The heart: one sale's stock as a pure, deterministic state machine.
//!
//! Every attempt to buy and every change of the sale goes through an [`Inventory`], one after the other, and
//! gets a [`Place`] in the sale's one sequence: that order *is* "first come, first served" (P5). The engine
//! of the embedded profile runs it, its recovery replays [`Event`]s into it, property tests explore it, and
//! other adapters are checked against it, input by input.
//!
//! Invariants, after every step:
//! - available + reserved + confirmed = total stock (P4), and live orders ≤ total stock (P1);
//! - no two live orders hold the same unit, and no user holds two (P2);
//! - the lowest free unit is sold next, so that the same history always gives the same units.
//!
//! A decision also says what it *rests on*: the place of the last event without which it would have been
//! different. Whoever replies must see to it that this event is durable first.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::{
    clock::Timestamp,
    error,
    ids::{Epoch, OrderId, Place, Unit, UserId},
    order::{Confirmation, Ending, Purchase, Reservation},
    purchasers::{Holding, Purchasers},
    sale::{Sale, SaleChange, SaleStatus},
};

/// The answer to an attempt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// The user holds a unit now.
    Reserved(Reservation),
    /// The user held one before.
    AlreadyPurchased(Purchase),
    /// All units are taken.
    SoldOut,
    /// The sale is paused, or the moment is outside its window.
    NotActive,
}

/// A decision with its place in the sale's sequence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decided {
    /// The answer.
    pub decision: Decision,
    /// Where it stands in the sequence.
    pub place: Place,
    /// The place of the event that it rests on; its own where it changed the stock.
    pub rests_on: Place,
}

/// A change of the stock or of the sale. Replaying a sale's events in order gives its state back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A unit was taken.
    Reserved(Reservation),
    /// A reservation became a confirmed order.
    Confirmed {
        /// Who holds it.
        user_id: UserId,
    },
    /// A live order ended, and its unit is free again.
    Released {
        /// Who held it.
        user_id: UserId,
        /// How it ended.
        ending: Ending,
    },
    /// The sale was changed.
    Changed(Sale),
    /// All orders were dropped, and a new epoch began.
    Reset(Epoch),
}

/// Events that cannot follow on each other: the record that they were read from is damaged.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the record of sale {sale} is damaged: {what}")]
pub struct Damaged {
    sale: String,
    what: String,
}

/// Purchasers of an epoch that is over; worth dropping outside of locks when there were many.
#[derive(Debug, Default)]
pub struct Remains(#[expect(dead_code, reason = "it is only kept to be dropped")] Purchasers);

/// One sale's stock, purchasers and sequence.
#[derive(Debug)]
pub struct Inventory {
    sale: Sale,
    /// The last place that was given.
    place: Place,
    /// Of the last event that a rejection may rest on: a change of the stock or of the sale.
    changed_at: Place,
    /// Units from here on were never taken, or were given back from the top.
    next_unit: Unit,
    /// Units below `next_unit` that are free again.
    returned: BTreeSet<Unit>,
    holdings: Purchasers,
    confirmed: u32,
}

impl Inventory {
    /// A sale with all its units free, whose last place was `place`.
    #[must_use]
    pub fn new(sale: Sale, place: Place) -> Self {
        let holdings = Purchasers::new(sale.total_stock);
        Self {
            sale,
            place,
            changed_at: place,
            next_unit: Unit(1),
            returned: BTreeSet::new(),
            holdings,
            confirmed: 0,
        }
    }

    /// Makes room for so many purchasers in all, before as many are replayed.
    pub fn make_room(&mut self, purchasers: usize) {
        self.holdings.reserve(purchasers);
    }

    /// The sale as it is set up.
    #[must_use]
    pub fn sale(&self) -> &Sale {
        &self.sale
    }

    /// The last place that was given.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// What is known of the sale at `now`.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> SaleStatus {
        SaleStatus { sale: self.sale.clone(), reserved: self.reserved(), confirmed: self.confirmed, now }
    }

    /// What `user` holds, and the place of the event that this rests on.
    #[must_use]
    pub fn purchase(&self, user: &UserId) -> Option<(Purchase, Place)> {
        self.holdings.get(user).map(|holding| (holding.purchase(), holding.place))
    }

    /// Decides an attempt of `user` at `now`; `mint` makes the order's id if there will be one.
    pub fn attempt(&mut self, user: &UserId, now: Timestamp, mint: impl FnOnce() -> OrderId) -> Decided {
        let place = self.step();
        let (decision, rests_on) = if !self.sale.is_open(now) {
            (Decision::NotActive, self.changed_at)
        } else if let Some(holding) = self.holdings.get(user) {
            (Decision::AlreadyPurchased(holding.purchase()), holding.place)
        } else if let Some(unit) = self.free_unit() {
            let reservation = Reservation {
                sale_id: self.sale.id.clone(),
                epoch: self.sale.epoch,
                place,
                unit,
                user_id: user.clone(),
                order_id: mint(),
                reserved_at: now,
            };
            self.take(&reservation);
            (Decision::Reserved(reservation), place)
        } else {
            (Decision::SoldOut, self.changed_at)
        };
        Decided { decision, place, rests_on }
    }

    /// Confirms a reservation, once; the event's place where something changed.
    pub fn confirm(&mut self, reservation: &Reservation) -> (Confirmation, Option<Place>) {
        let Some(holding) = self.holding_of(reservation) else { return (Confirmation::Stale, None) };
        if holding.confirmed {
            return (Confirmation::AlreadyConfirmed, None);
        }
        let place = self.step();
        self.mark_confirmed(&reservation.user_id);
        (Confirmation::Confirmed, Some(place))
    }

    /// Ends a live order without a purchase; its unit is for sale again. The event's place, or `None` when
    /// there is no such live order (any more).
    pub fn release(&mut self, reservation: &Reservation) -> Option<Place> {
        self.holding_of(reservation)?;
        let place = self.step();
        self.give_back(&reservation.user_id);
        Some(place)
    }

    /// Changes the sale as its shop wants it.
    ///
    /// # Errors
    /// A value that is not allowed, or a stock below a unit that somebody holds.
    pub fn change(&mut self, change: &SaleChange) -> error::Result<Place> {
        self.sale.check_expected(change)?;
        let changed = self.sale.changed(change)?;
        let highest = Unit(self.next_unit.0 - 1);
        if changed.total_stock < highest.0 {
            return Err(error::Error::Conflict(format!(
                "Unit {highest} is held; the stock cannot go below it (asked for {})",
                changed.total_stock
            )));
        }
        let place = self.step();
        self.sale = changed;
        self.changed_at = place;
        Ok(place)
    }

    /// Drops all orders and purchasers and begins a new epoch: messages of the old one can create nothing.
    pub fn reset(&mut self) -> (Place, Remains) {
        let place = self.step();
        (place, self.begin(self.sale.epoch.next()))
    }

    /// Gives a place to something that is on record but changes nothing here.
    pub fn note(&mut self) -> Place {
        self.step()
    }

    /// Applies an event of the past.
    ///
    /// # Errors
    /// When it cannot follow on what came before.
    pub fn replay(&mut self, event: &Event) -> Result<(), Damaged> {
        match event {
            Event::Reserved(reservation) => {
                let (user, unit) = (&reservation.user_id, reservation.unit);
                if reservation.epoch != self.sale.epoch {
                    return Err(self.damaged(format!("an order of epoch {}", reservation.epoch)));
                }
                if self.holdings.get(user).is_some() {
                    return Err(self.damaged(format!("user {user} holds two units")));
                }
                if unit.0 == 0 || unit.0 > self.sale.total_stock {
                    return Err(self.damaged(format!("unit {unit} is none of the stock")));
                }
                if unit < self.next_unit && !self.returned.contains(&unit) {
                    return Err(self.damaged(format!("unit {unit} is held twice")));
                }
                self.take(reservation);
            }
            Event::Confirmed { user_id } => match self.holdings.get(user_id) {
                Some(holding) if !holding.confirmed => self.mark_confirmed(user_id),
                _ => return Err(self.damaged(format!("nothing to confirm for user {user_id}"))),
            },
            Event::Released { user_id, .. } => {
                if self.holdings.get(user_id).is_none() {
                    return Err(self.damaged(format!("nothing to release for user {user_id}")));
                }
                self.give_back(user_id);
            }
            Event::Changed(sale) => self.sale = sale.clone(),
            Event::Reset(epoch) => drop(self.begin(*epoch)),
        }
        Ok(())
    }

    fn step(&mut self) -> Place {
        self.place = self.place.next();
        self.place
    }

    fn reserved(&self) -> u32 {
        u32::try_from(self.holdings.len()).expect("there are no more holdings than units") - self.confirmed
    }

    fn free_unit(&self) -> Option<Unit> {
        let fresh = (self.next_unit.0 <= self.sale.total_stock).then_some(self.next_unit);
        self.returned.first().copied().or(fresh)
    }

    fn holding_of(&self, reservation: &Reservation) -> Option<&Holding> {
        self.holdings.get(&reservation.user_id).filter(|holding| {
            reservation.epoch == self.sale.epoch && holding.order_id == reservation.order_id
        })
    }

    fn take(&mut self, reservation: &Reservation) {
        let unit = reservation.unit;
        if unit >= self.next_unit {
            // Only in a replay can there be a gap: the units between are free.
            self.returned.extend((self.next_unit.0..unit.0).map(Unit));
            self.next_unit = unit.next();
        } else {
            let was_free = self.returned.remove(&unit);
            debug_assert!(was_free, "a unit that is held was taken again");
        }
        let holding = Holding { order_id: reservation.order_id, unit, confirmed: false, place: self.place };
        self.holdings.add(reservation.user_id.clone(), holding);
        self.changed_at = self.place;
    }

    fn mark_confirmed(&mut self, user: &UserId) {
        if let Some(holding) = self.holdings.get_mut(user) {
            holding.confirmed = true;
            holding.place = self.place;
            self.confirmed += 1;
        }
    }

    fn give_back(&mut self, user: &UserId) {
        let Some(holding) = self.holdings.remove(user) else { return };
        self.confirmed -= u32::from(holding.confirmed);
        self.returned.insert(holding.unit);
        // The same set of free units has one form only, whatever history led to it.
        while let Some(&top) = self.returned.last()
            && top.next() == self.next_unit
        {
            self.returned.remove(&top);
            self.next_unit = top;
        }
        self.changed_at = self.place;
    }

    fn begin(&mut self, epoch: Epoch) -> Remains {
        self.sale.epoch = epoch;
        self.next_unit = Unit(1);
        self.returned.clear();
        self.confirmed = 0;
        self.changed_at = self.place;
        Remains(std::mem::replace(&mut self.holdings, Purchasers::new(self.sale.total_stock)))
    }

    fn damaged(&self, what: String) -> Damaged {
        Damaged { sale: self.sale.id.to_string(), what }
    }
}
