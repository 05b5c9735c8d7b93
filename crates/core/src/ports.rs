//! What the rules need of the world: the page that every adapter implements.
//!
//! In the order of a purchase: [`Inventory`] decides, [`OrderQueue`] carries what was reserved,
//! [`OrderStore`] keeps the orders and the audit trail. [`Clock`] and [`OrderIds`] are time and randomness,
//! so that tests can inject theirs. [`OperatorLog`] is beside that way: it keeps who ran the sales. The contract behind the signatures is `conformance`.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    audit::{AuditEvent, EventType},
    clock::Timestamp,
    error::Result,
    ids::{Epoch, OrderId, SaleId, UserId},
    inventory::Decision,
    operator::{OperatorEntry, OperatorRecord},
    order::{Confirmation, Ending, Order, OrderStatus, Purchase, Reservation},
    sale::{NewSale, SaleChange, SaleStatus},
};

/// Decides attempts, and knows the state of every sale.
///
/// Each decision and change has a place in its sale's one sequence and reaches the audit trail; none is
/// replied before what it rests on is durable.
#[async_trait]
pub trait Inventory: Send + Sync + 'static {
    /// Decides an attempt of `user`.
    async fn attempt(&self, sale: &SaleId, user: UserId) -> Result<Decision>;
    /// What `user` holds; known as soon as it is reserved.
    async fn purchase(&self, sale: &SaleId, user: &UserId) -> Result<Option<Purchase>>;
    /// Ends a live order without a purchase; `false` when there was no such live order (any more).
    async fn release(&self, reservation: &Reservation, ending: Ending) -> Result<bool>;

    /// The state of a sale.
    async fn status(&self, sale: &SaleId) -> Result<SaleStatus>;
    /// The state of all sales, in the order in which they were made.
    async fn statuses(&self) -> Result<Vec<SaleStatus>>;

    /// Makes a sale. An id that was deleted may come again; its epochs go on.
    async fn create(&self, sale: NewSale) -> Result<SaleStatus>;
    /// Changes a sale; the next attempt sees it.
    async fn change(&self, sale: &SaleId, change: SaleChange) -> Result<SaleStatus>;
    /// Drops a sale's orders and purchasers, restores its stock, raises its epoch; where one is given, of this epoch only.
    async fn reset(&self, sale: &SaleId, expected: Option<Epoch>) -> Result<SaleStatus>;
    /// Deletes a sale that has no orders; its audit trail stays.
    async fn delete(&self, sale: &SaleId) -> Result<()>;

    /// Whether decisions can be made and recorded right now.
    async fn ready(&self) -> Result<()>;
}

/// Reservations on their way to the order store: at least once each, in any order.
#[async_trait]
pub trait OrderQueue: Send + Sync + 'static {
    /// The next batch, when there is one; `None` once the queue is closed and drained.
    async fn receive(&self) -> Result<Option<Delivery>>;
    /// The batch is in the store: do not deliver it again.
    async fn acknowledge(&self, delivery: &Delivery) -> Result<()>;
    /// The store refuses this reservation for good: put it aside with the reason, on record.
    async fn reject(&self, reservation: &Reservation, reason: &str) -> Result<()>;
}

/// A batch of reservations from the queue.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What was reserved.
    pub reservations: Vec<Reservation>,
    /// The queue's own name for the batch.
    pub tag: u64,
}

/// Keeps orders and the audit trail.
#[async_trait]
pub trait OrderStore: Send + Sync + 'static {
    /// Confirms reservations in one transaction, each at most once; what became of each, in their order.
    async fn confirm(&self, reservations: &[Reservation]) -> Result<Vec<Confirmation>>;
    /// The epoch of a sale, by the records. Listings that are read page by page are of one epoch while it stays the same.
    async fn epoch(&self, sale: &SaleId) -> Result<Epoch>;
    /// Up to `limit` orders of a sale, ascending by key, that come after the key `after`.
    async fn orders(&self, sale: &SaleId, after: i64, limit: u32) -> Result<Page<Order>>;
    /// Up to `limit` records' worth of a sale's audit trail that come after the key `after`.
    async fn audit(&self, sale: &SaleId, after: i64, limit: u32) -> Result<Page<AuditEvent>>;
    /// Orders of a sale that somebody looks for, newest first.
    async fn find_orders(&self, sale: &SaleId, find: &FindOrders) -> Result<Found<Order>>;
    /// Events of a sale's audit trail that somebody looks for, newest first.
    async fn find_events(&self, sale: &SaleId, find: &FindEvents) -> Result<Found<AuditEvent>>;
    /// All sales, by id.
    async fn sale_ids(&self) -> Result<Vec<SaleId>>;
    /// The figures that the promises are checked by, as the store alone knows them.
    async fn figures(&self, sale: &SaleId) -> Result<Figures>;
}

/// A page of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// Its rows.
    pub rows: Vec<T>,
    /// The key to ask with for the next page; `None` at the end.
    pub next: Option<i64>,
}

/// Which orders of a sale's present epoch are looked for. Without a status, the live ones.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FindOrders {
    /// Of this user only.
    pub user: Option<UserId>,
    /// This one only.
    pub order: Option<OrderId>,
    /// Of this status only.
    pub status: Option<OrderStatus>,
    /// Those that come after this key, which [`Found::next`] gave.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// Which events of a sale's audit trail are looked for, over all its epochs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FindEvents {
    /// Of this user only.
    pub user: Option<UserId>,
    /// Of this type only.
    pub event_type: Option<EventType>,
    /// Those that come after this key, which [`Found::next`] gave.
    pub before: Option<i64>,
    /// At most so many records; an attempt is one record and shows as two events.
    pub limit: u32,
}

/// What a search has found so far, newest first. How much is looked through for a page is bounded, so that each comes fast
/// however large the sale: it may have fewer rows than it could, or none, and still go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Found<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// The key to go on with; `None` when all has been looked through.
    pub next: Option<i64>,
}

impl<T> Found<T> {
    /// Nothing, and nowhere to go on.
    #[must_use]
    pub fn nothing() -> Self {
        Self { rows: Vec::new(), next: None }
    }
}

/// A sale counted row by row, in its present epoch unless said otherwise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Figures {
    /// The epoch that was counted.
    pub epoch: Epoch,
    /// Units in all.
    pub total_stock: u64,
    /// Orders `RESERVED`.
    pub reserved: u64,
    /// Orders `CONFIRMED`.
    pub confirmed: u64,
    /// Orders that ended without a purchase.
    pub released: u64,
    /// Units that can still be had: counted unit by unit, or what the part that decides says.
    pub available: u64,
    /// Users with more than one live order.
    pub users_with_two: u64,
    /// Units with more than one live order.
    pub units_sold_twice: u64,
    /// Live orders whose unit is none of the stock.
    pub units_outside_stock: u64,
    /// Orders of another epoch.
    pub orders_of_other_epochs: u64,
    /// Attempts on record.
    pub attempted: u64,
    /// Of them, those that got a unit.
    pub attempts_reserved: u64,
    /// Of them, those that found no unit left.
    pub attempts_sold_out: u64,
    /// Of them, those of users who held a unit.
    pub attempts_duplicate: u64,
    /// Of them, those outside the window or in a pause.
    pub attempts_not_active: u64,
    /// Confirmations on record.
    pub audited_confirmed: u64,
    /// Orders without a record of their reservation, and records of a reservation without an order. A record is an order's
    /// when it tells of the same place, unit and user.
    pub orders_without_record: u64,
    /// Orders that ended without a record of it, and records of an ending without such an order.
    pub endings_without_record: u64,
    /// Confirmed orders without a record of it, and records of a confirmation without such an order.
    pub confirmations_without_record: u64,
    /// The stock as the trail has it.
    pub stock_on_record: u64,
    /// How many records there are, over all epochs.
    pub records: u64,
    /// Records that were numbered and are not there: they were dropped.
    pub records_missing: u64,
    /// Places of the sequence that are on no record, and whose reservation is not on its way: lost with a Redis before it was
    /// acknowledged, or deleted since. Where all records are numbered, these are missing records.
    pub places_missing: u64,
    /// Records beyond the last number that was given.
    pub records_unexpected: u64,
    /// Reservations that the store refused for good: `FAILED_DB` events.
    pub orders_refused: u64,
    /// `SOLD_OUT` decisions of this epoch that were made while a unit was still free.
    pub sold_out_too_early: u64,
}

/// Keeps who came to the console's door, for good.
#[async_trait]
pub trait OperatorLog: Send + Sync + 'static {
    /// Puts an event on record; it is durable once this returns.
    async fn record(&self, entry: &OperatorEntry) -> Result<()>;
    /// Up to `limit` records, newest first, that are older than the record `before`; without it, the newest.
    async fn newest(&self, before: Option<i64>, limit: u32) -> Result<Page<OperatorRecord>>;
}

/// Time. Tests bring their own.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Timestamp;
    /// Waits for `duration`.
    async fn sleep(&self, duration: Duration);
}

/// Makes the ids of orders.
pub trait OrderIds: Send + Sync + 'static {
    /// A new id, unique and not to be guessed.
    fn mint(&self, now: Timestamp) -> OrderId;
}
