//! What of the cluster profile needs no service to run, so that its instructions can be counted.

use std::{path::Path, time::Instant};

use flashsale_core::{
    clock::Timestamp,
    ids::{Epoch, OrderId, SaleId, Unit, UserId},
    sale::{NewSale, Window},
};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::{
    audit::Audit,
    latch::Latch,
    message::Message,
    stock::{Entry, State, place},
};

/// A message of the order queue.
pub struct Order(Message);

/// # Panics
/// All functions do where the numbers are none of a sale.
impl Order {
    /// One that carries so many reservations.
    #[must_use]
    pub fn new(sale: &SaleId, at: Timestamp, reservations: u32) -> Self {
        let rows = (1..=reservations).map(|unit| {
            (Unit(unit), OrderId(Uuid::from_u128(u128::from(unit) << 64)), format!("user-{unit:09}"))
        });
        let (epoch, rows) = (Epoch(1), rows.collect());
        let entry = Entry { id: "1771815600000-0".to_owned(), generation: 1, epoch, at, first: 1, rows };
        Self(Message::of(sale, entry).expect("all users are users"))
    }

    /// As it is published.
    #[must_use]
    pub fn written(&self) -> Vec<u8> {
        self.0.written()
    }

    /// How many reservations a worker reads out of it.
    #[must_use]
    pub fn read(bytes: &[u8]) -> usize {
        Message::read(bytes).expect("it was written").reservations().count()
    }
}

/// A replica's memory of a sale that is sold out.
pub struct SoldOut {
    state: State,
    latch: Latch,
    audit: Audit,
}

/// # Panics
/// All functions do where the latch does not hold.
impl SoldOut {
    /// Of a sale with so many purchasers. Must be made in a runtime, which it then needs no more: nothing is sent.
    #[must_use]
    pub fn new(sale: SaleId, now: Timestamp, spool: &Path, purchasers: u32) -> Self {
        let window =
            Window::new(Timestamp::from_millis(0), Timestamp::from_millis(i64::from(u32::MAX) * 1_000))
                .expect("it ends later than it starts");
        let sale = NewSale::new(sale, "Sale".to_owned(), purchasers, window).expect("a sale").open(Epoch(1));
        let last = place(1, u64::from(purchasers));
        let state = State {
            generation: 1,
            now,
            changed: last,
            no: 1,
            sale,
            available: 0,
            confirmed: purchasers,
            next: Unit(purchasers + 1),
            place: last,
            closed: false,
        };
        let names: Vec<String> = (1..=purchasers).map(|number| format!("purchaser-{number}")).collect();
        let latch = Latch::new(&state, &state, names.iter().map(String::as_str), Instant::now());
        let pool =
            PgPoolOptions::new().connect_lazy("postgres://nobody@localhost/nowhere").expect("an address");
        let audit = Audit::open(pool, spool, 1 << 20).expect("a folder for the spool");
        Self { state, latch: latch.expect("the sale is sold out"), audit }
    }

    /// Rejects all `users` from memory, each on its way to the trail.
    pub fn reject(&self, users: &[UserId]) {
        // However slow the machine is, the latch has to be young enough.
        assert!(self.latch.compare(&self.state, Instant::now()), "the sale is sold out");
        for user in users {
            self.audit.room().expect("there is room");
            let rejection = self.latch.rejection(user, Instant::now()).expect("no purchaser");
            self.audit.take([rejection]);
        }
    }
}
