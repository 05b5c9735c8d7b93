//! The contract behind [`ports`](crate::ports): one suite that every adapter must pass.
//!
//! An adapter's tests implement [`Harness`] and call [`conformance_tests!`](crate::conformance_tests) once;
//! each story below then becomes a test of its own.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::{join, join_all};

use crate::{
    Error,
    audit::{AuditEvent, EventType},
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, SaleId, Unit, UserId},
    inventory::{self, Decision},
    operator::{OperatorEntry, OperatorEvent},
    order::{Confirmation, Ending, Order, OrderStatus, Reservation},
    ports::{FindEvents, FindOrders, Found, Inventory, OperatorLog, OrderQueue, OrderStore},
    product::{Price, Product, ProductChange},
    sale::{NewSale, Phase, SaleChange, Window},
};

/// An adapter under test, with a store of its own.
#[async_trait]
pub trait Harness: Send + Sync + Sized + 'static {
    /// A new one on an empty store.
    async fn start() -> Self;
    /// Stops without warning and starts again on the same store.
    async fn crash(self) -> Self;
    /// The inventory.
    fn inventory(&self) -> Arc<dyn Inventory>;
    /// The queue. Nothing else receives from it.
    fn queue(&self) -> Arc<dyn OrderQueue>;
    /// The store.
    fn store(&self) -> Arc<dyn OrderStore>;
    /// The operator log.
    fn operator_log(&self) -> Arc<dyn OperatorLog>;
    /// The present moment, by the clock that decisions are made by.
    fn now(&self) -> Timestamp;
}

const HOUR: Duration = Duration::from_secs(3600);

fn id(text: &str) -> SaleId {
    text.parse().expect("a valid sale id")
}

fn user(number: u32) -> UserId {
    format!("user-{number}").parse().expect("a valid user id")
}

fn sale(harness: &impl Harness, name: &str, stock: u32) -> NewSale {
    let window = Window::new(harness.now().before(HOUR), harness.now().after(HOUR));
    NewSale::new(id(name), name.to_owned(), stock, window.expect("a valid window")).expect("a valid sale")
}

async fn open(harness: &impl Harness, name: &str, stock: u32) -> SaleId {
    harness.inventory().create(sale(harness, name, stock)).await.expect("the sale is made");
    id(name)
}

async fn attempt(harness: &impl Harness, sale: &SaleId, number: u32) -> Decision {
    harness.inventory().attempt(sale, user(number)).await.expect("a decision")
}

async fn reserve(harness: &impl Harness, sale: &SaleId, number: u32) -> Reservation {
    match attempt(harness, sale, number).await {
        Decision::Reserved(reservation) => reservation,
        other => panic!("user {number} should have got a unit, but: {other:?}"),
    }
}

/// Confirms what is in the queue until `count` orders were, and returns them.
async fn confirm(harness: &impl Harness, count: usize) -> Vec<Reservation> {
    let mut confirmed = Vec::new();
    while confirmed.len() < count {
        let delivery = harness.queue().receive().await.expect("a batch").expect("an open queue");
        harness.store().confirm(&delivery.reservations).await.expect("the batch is confirmed");
        harness.queue().acknowledge(&delivery).await.expect("the batch is acknowledged");
        confirmed.extend(delivery.reservations);
    }
    confirmed
}

async fn crowd(harness: &impl Harness, sale: &SaleId, users: impl Iterator<Item = u32>) -> Vec<Decision> {
    let attempts = users.map(|number| {
        let (inventory, sale) = (harness.inventory(), sale.clone());
        async move { inventory.attempt(&sale, user(number)).await.expect("a decision") }
    });
    join_all(attempts).await
}

fn reservations(decisions: &[Decision]) -> Vec<&Reservation> {
    decisions
        .iter()
        .filter_map(|decision| match decision {
            Decision::Reserved(reservation) => Some(reservation),
            _ => None,
        })
        .collect()
}

fn units(decisions: &[Decision]) -> Vec<u32> {
    let mut units: Vec<_> = reservations(decisions).iter().map(|held| held.unit.0).collect();
    units.sort_unstable();
    units
}

/// P1, P2, P4, P5, P6: what must hold of a sale whenever nothing is under way.
pub async fn check_conserved(harness: &impl Harness, sale: &SaleId) {
    let status = harness.inventory().status(sale).await.expect("a status");
    let figures = harness.store().figures(sale).await.expect("figures");
    let (reserved, confirmed) = (u64::from(status.reserved), u64::from(status.confirmed));
    assert_eq!((figures.reserved, figures.confirmed), (reserved, confirmed), "store and inventory agree");
    assert!(status.sold() <= status.sale.total_stock, "never oversold");
    assert_eq!(status.available() + status.sold(), status.sale.total_stock, "stock is conserved");
    assert_eq!(figures.users_with_two + figures.units_sold_twice + figures.units_outside_stock, 0);
    assert_eq!(figures.orders_of_other_epochs, 0, "no order of another epoch");
    assert_eq!(figures.sold_out_too_early, 0, "nobody was told SOLD_OUT while a unit was free");
    assert_eq!(figures.orders_without_record, 0, "every order is on record");
    assert_eq!(figures.endings_without_record, 0, "every ending is on record");
    assert_eq!(figures.confirmations_without_record, 0, "every confirmation is on record");
    assert_eq!(figures.stock_on_record, figures.total_stock, "the stock is on record");
    assert!(figures.records > 0, "something is on record");
    assert_eq!(figures.records_missing, 0, "nothing in the sequence is missing");
    assert_eq!(figures.records_unexpected, 0, "nothing is on record that was not decided");
}

/// P1, P5: a crowd gets exactly the stock, unit by unit, and the others are told that it is sold out.
pub async fn sells_exactly_the_stock<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "exact", 50).await;
    let decisions = crowd(&harness, &sale, 0..200).await;
    assert_eq!(units(&decisions), (1..=50).collect::<Vec<_>>());
    assert_eq!(decisions.iter().filter(|decision| **decision == Decision::SoldOut).count(), 150);
    let orders: HashSet<OrderId> = reservations(&decisions).iter().map(|held| held.order_id).collect();
    assert_eq!(orders.len(), 50, "each reservation has an order id of its own");
    check_conserved(&harness, &sale).await;
    let figures = harness.store().figures(&sale).await.expect("figures");
    assert_eq!(figures.places_missing, 0, "nothing was lost, and so no place of the sequence");
}

/// P2: however often a user tries, at once or later, there is one unit and one order id.
pub async fn one_unit_a_user<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "single", 50).await;
    let decisions = crowd(&harness, &sale, std::iter::repeat_n(7, 40)).await;
    let order = match reservations(&decisions).as_slice() {
        [only] => only.order_id,
        held => panic!("{} reservations for one user", held.len()),
    };
    for decision in &decisions {
        if let Decision::AlreadyPurchased(purchase) = decision {
            assert_eq!(purchase.order_id, order, "a retry answers with the same order id");
        }
    }
    assert_eq!(decisions.iter().filter(|d| matches!(d, Decision::AlreadyPurchased(_))).count(), 39);
    check_conserved(&harness, &sale).await;
}

/// A user who holds a unit of a sold-out sale is told so, and not that it is sold out.
pub async fn purchasers_of_a_sold_out_sale_keep_their_answer<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "latched", 1).await;
    let held = reserve(&harness, &sale, 1).await;
    assert_eq!(attempt(&harness, &sale, 2).await, Decision::SoldOut);
    match attempt(&harness, &sale, 1).await {
        Decision::AlreadyPurchased(purchase) => assert_eq!(purchase.order_id, held.order_id),
        other => panic!("{other:?}"),
    }
}

/// Outside its window, and while paused, a sale sells nothing, and the attempts are on record.
pub async fn sells_only_while_active<H: Harness>() {
    let harness = H::start().await;
    let now = harness.now();
    for (name, starts_at, ends_at, phase) in [
        ("early", now.after(HOUR), now.after(2 * HOUR), Phase::Upcoming),
        ("late", now.before(2 * HOUR), now.before(HOUR), Phase::Ended),
    ] {
        let window = Window::new(starts_at, ends_at).expect("a valid window");
        let new = NewSale::new(id(name), name.to_owned(), 5, window).expect("a valid sale");
        assert_eq!(harness.inventory().create(new).await.expect("made").phase(), phase);
        assert_eq!(attempt(&harness, &id(name), 1).await, Decision::NotActive);
        let figures = harness.store().figures(&id(name)).await.expect("figures");
        assert_eq!((figures.attempted, figures.attempts_not_active), (1, 1));
        check_conserved(&harness, &id(name)).await;
    }
    let sale = open(&harness, "paused", 5).await;
    let pause = |paused| SaleChange { paused: Some(paused), ..SaleChange::default() };
    harness.inventory().change(&sale, pause(true)).await.expect("paused");
    assert_eq!(attempt(&harness, &sale, 1).await, Decision::NotActive);
    harness.inventory().change(&sale, pause(false)).await.expect("resumed");
    reserve(&harness, &sale, 1).await;
    check_conserved(&harness, &sale).await;
}

/// What pages show of a sale is kept, through changes, resets and a crash.
pub async fn a_product_stays_with_its_sale<H: Harness>() {
    let mut harness = H::start().await;
    let now = harness.now();
    let window = Window::new(now.before(HOUR), now.after(HOUR)).expect("a valid window");
    let text = "Two lines,\nund ein \"Zitat\" – ’s ist gut.\u{1F3AB}".to_owned();
    let shown = Product {
        description: Some(text),
        image_url: Some("https://cdn.example/a.webp?w=800&h=600".to_owned()),
        price: Some(Price::new("129.9", "EUR").expect("a price")),
    };
    let new = NewSale::new(id("shown"), "Shown".to_owned(), 5, window).expect("a valid sale");
    let new = new.with_product(shown.clone()).expect("a valid product");
    let made = harness.inventory().create(new).await.expect("made");
    assert_eq!(*made.sale.product, shown);
    let sale = id("shown");
    let price = Price::new("1500", "JPY").expect("a price");
    let change =
        ProductChange { image_url: Some(None), price: Some(Some(price)), ..ProductChange::default() };
    let change = SaleChange { product: change, ..SaleChange::default() };
    let changed = Product { image_url: None, price: Some(price), ..shown };
    assert_eq!(*harness.inventory().change(&sale, change).await.expect("changed").sale.product, changed);
    harness.inventory().reset(&sale, None).await.expect("reset");
    harness = harness.crash().await;
    assert_eq!(*harness.inventory().status(&sale).await.expect("there").sale.product, changed);
    let trail = harness.store().audit(&sale, 0, 100).await.expect("a trail").rows;
    let event = trail.iter().find(|event| event.event_type == EventType::AdminChanged).expect("on record");
    assert!(event.metadata.contains("1500") && event.metadata.contains("JPY"), "{}", event.metadata);
}

/// A sale that is not there is unknown to every call, and none of them makes it.
pub async fn unknown_sales_are_unknown<H: Harness>() {
    let harness = H::start().await;
    let (inventory, none) = (harness.inventory(), id("none"));
    let unknown = Err(Error::UnknownSale(none.clone()));
    assert_eq!(inventory.attempt(&none, user(1)).await.map(drop), unknown);
    assert_eq!(inventory.purchase(&none, &user(1)).await.map(drop), unknown);
    assert_eq!(inventory.status(&none).await.map(drop), unknown);
    assert_eq!(inventory.change(&none, SaleChange::default()).await.map(drop), unknown);
    assert_eq!(inventory.reset(&none, None).await.map(drop), unknown);
    assert_eq!(inventory.delete(&none).await.map(drop), unknown);
    assert_eq!(harness.store().figures(&none).await.map(drop), unknown);
    assert_eq!(inventory.statuses().await.expect("statuses"), vec![]);
}

/// A purchase is known as soon as it is reserved, and becomes confirmed by way of queue and store.
pub async fn a_reservation_becomes_an_order<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "way", 3).await;
    assert_eq!(harness.inventory().purchase(&sale, &user(1)).await.expect("a lookup"), None);
    let held = reserve(&harness, &sale, 1).await;
    let known = harness.inventory().purchase(&sale, &user(1)).await.expect("a lookup").expect("a purchase");
    assert_eq!((known.order_id, known.status), (held.order_id, OrderStatus::Reserved));

    assert_eq!(confirm(&harness, 1).await, vec![held.clone()]);
    let known = harness.inventory().purchase(&sale, &user(1)).await.expect("a lookup").expect("a purchase");
    assert_eq!((known.order_id, known.status), (held.order_id, OrderStatus::Confirmed));
    let page = harness.store().orders(&sale, 0, 10).await.expect("orders");
    assert_eq!(page.rows.len(), 1);
    assert_eq!((page.rows[0].id, page.rows[0].status), (held.order_id, OrderStatus::Confirmed));
    check_conserved(&harness, &sale).await;
}

/// A message that comes twice, and one within a batch of others, creates nothing twice.
pub async fn confirming_is_idempotent<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "again", 10).await;
    let (first, second) = (reserve(&harness, &sale, 1).await, reserve(&harness, &sale, 2).await);
    let store = harness.store();
    let mixed = [first.clone(), second.clone(), first.clone()];
    assert_eq!(store.confirm(&mixed[..1]).await.expect("confirmed"), [Confirmation::Confirmed]);
    use Confirmation::{AlreadyConfirmed, Confirmed};
    let twice = store.confirm(&mixed).await.expect("confirmed");
    assert_eq!(twice, [AlreadyConfirmed, Confirmed, AlreadyConfirmed]);
    let figures = store.figures(&sale).await.expect("figures");
    assert_eq!((figures.confirmed, figures.audited_confirmed, figures.reserved), (2, 2, 0));
    check_conserved(&harness, &sale).await;
}

/// P7: a reset gives all units back, and what was reserved before it can create nothing after it.
pub async fn the_past_stays_past<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "past", 2).await;
    let old = [reserve(&harness, &sale, 1).await, reserve(&harness, &sale, 2).await];
    assert_eq!(attempt(&harness, &sale, 3).await, Decision::SoldOut);
    let (inventory, seen) = (harness.inventory(), Some(Epoch(1)));
    assert_eq!(harness.store().epoch(&sale).await, Ok(Epoch(1)));
    // Sent twice: what would be lost with the second is not what whoever asks has seen.
    let status = match join(inventory.reset(&sale, seen), inventory.reset(&sale, seen)).await {
        (Ok(status), Err(Error::Conflict(_))) | (Err(Error::Conflict(_)), Ok(status)) => status,
        both => panic!("{both:?}"),
    };
    assert_eq!((status.sale.epoch, status.available()), (Epoch(2), 2));
    assert_eq!(harness.store().epoch(&sale).await, Ok(Epoch(2)));
    assert_eq!(harness.inventory().purchase(&sale, &user(1)).await.expect("a lookup"), None);

    let late = harness.store().confirm(&old).await.expect("an answer");
    assert_eq!(late, [Confirmation::Stale, Confirmation::Stale]);
    assert!(!harness.inventory().release(&old[0], Ending::Expired).await.expect("an answer"));
    assert!(harness.store().orders(&sale, 0, 10).await.expect("orders").rows.is_empty());

    let new = reserve(&harness, &sale, 1).await;
    assert_eq!((new.epoch, new.unit), (Epoch(2), Unit(1)));
    assert_ne!(new.order_id, old[0].order_id);
    assert_eq!(harness.store().confirm(&old[..1]).await.expect("an answer"), [Confirmation::Stale]);
    check_conserved(&harness, &sale).await;
    let harness = harness.crash().await;
    check_conserved(&harness, &sale).await;
    assert_eq!(harness.inventory().status(&sale).await.expect("a status").sale.epoch, Epoch(2));
}

/// A released unit is sold again before anybody is told that the sale is sold out.
pub async fn released_units_are_sold_again<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "released", 3).await;
    let held = [reserve(&harness, &sale, 1).await, reserve(&harness, &sale, 2).await];
    reserve(&harness, &sale, 3).await;
    assert_eq!(attempt(&harness, &sale, 4).await, Decision::SoldOut);
    let inventory = harness.inventory();
    assert!(inventory.release(&held[1], Ending::Cancelled).await.expect("released"));
    assert!(!inventory.release(&held[1], Ending::Cancelled).await.expect("released once"));
    assert_eq!(inventory.purchase(&sale, &user(2)).await.expect("a lookup"), None);
    assert_eq!(harness.store().confirm(&held[1..]).await.expect("an answer"), [Confirmation::Stale]);
    let next = reserve(&harness, &sale, 4).await;
    assert_eq!(next.unit, held[1].unit);
    assert_eq!(attempt(&harness, &sale, 2).await, Decision::SoldOut);
    assert_eq!(harness.store().figures(&sale).await.expect("figures").released, 1);
    check_conserved(&harness, &sale).await;

    let harness = harness.crash().await;
    assert!(harness.inventory().release(&held[0], Ending::Expired).await.expect("released"));
    assert_eq!(reserve(&harness, &sale, 5).await.unit, held[0].unit);
    check_conserved(&harness, &sale).await;
}

/// A change of the stock is seen by the next attempt, and never takes away a unit that is held.
pub async fn stock_can_be_changed<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "restock", 2).await;
    let stock = |total| SaleChange { total_stock: Some(total), ..SaleChange::default() };
    reserve(&harness, &sale, 1).await;
    reserve(&harness, &sale, 2).await;
    assert_eq!(attempt(&harness, &sale, 3).await, Decision::SoldOut);
    harness.inventory().change(&sale, stock(3)).await.expect("restocked");
    assert_eq!(reserve(&harness, &sale, 3).await.unit, Unit(3));
    assert_eq!(attempt(&harness, &sale, 4).await, Decision::SoldOut);
    let refused = harness.inventory().change(&sale, stock(2)).await;
    assert!(matches!(refused, Err(Error::Conflict(_))), "{refused:?}");
    // Two who restock at once, each by what he has seen: one of them is told.
    let restock = SaleChange { expected_stock: Some(3), ..stock(5) };
    let (inventory, other) = (harness.inventory(), restock.clone());
    let both = join(inventory.change(&sale, restock), inventory.change(&sale, other)).await;
    assert!(matches!(both, (Ok(_), Err(Error::Conflict(_))) | (Err(Error::Conflict(_)), Ok(_))), "{both:?}");
    check_conserved(&harness, &sale).await;
}

/// Sales are made once, listed by start, and deleted only without orders; a deleted id's epochs go on.
pub async fn sales_are_made_listed_and_deleted<H: Harness>() {
    let harness = H::start().await;
    let inventory = harness.inventory();
    let b = open(&harness, "b", 5).await;
    open(&harness, "a", 5).await;
    let again = inventory.create(sale(&harness, "a", 9)).await;
    assert_eq!(again.map(drop), Err(Error::SaleExists(id("a"))));
    let held = reserve(&harness, &b, 1).await;
    assert!(matches!(inventory.delete(&b).await, Err(Error::Conflict(_))));
    inventory.reset(&b, None).await.expect("a reset");
    inventory.delete(&b).await.expect("deleted");
    let left = inventory.statuses().await.expect("statuses");
    assert_eq!(left.iter().map(|status| status.sale.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(inventory.attempt(&b, user(1)).await.map(drop), Err(Error::UnknownSale(b.clone())));

    let status = inventory.create(sale(&harness, "b", 5)).await.expect("made again");
    assert_eq!(status.sale.epoch, Epoch(3), "epochs of a deleted sale go on");
    assert_eq!(harness.store().confirm(&[held]).await.expect("an answer"), [Confirmation::Stale]);
    check_conserved(&harness, &b).await;
}

/// Orders that ended are no reason to keep a sale; with it they go, and the next sale of the id knows none.
pub async fn a_deleted_sale_leaves_no_orders_behind<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "gone", 2).await;
    let held = reserve(&harness, &sale, 1).await;
    assert!(harness.inventory().release(&held, Ending::Cancelled).await.expect("released"));
    harness.inventory().delete(&sale).await.expect("deleted");
    open(&harness, "gone", 2).await;
    assert!(harness.store().orders(&sale, 0, 10).await.expect("orders").rows.is_empty());
    reserve(&harness, &sale, 1).await;
    check_conserved(&harness, &sale).await;
    let harness = harness.crash().await;
    check_conserved(&harness, &sale).await;
}

/// P6: two events for every attempt, in the sale's sequence, and one for whatever else happened.
pub async fn everything_is_on_record<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "record", 1).await;
    reserve(&harness, &sale, 1).await;
    attempt(&harness, &sale, 1).await;
    attempt(&harness, &sale, 2).await;
    confirm(&harness, 1).await;
    let change = SaleChange { paused: Some(true), ..SaleChange::default() };
    harness.inventory().change(&sale, change).await.expect("paused");
    attempt(&harness, &sale, 3).await;
    harness.inventory().reset(&sale, None).await.expect("a reset");

    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let page = harness.store().audit(&sale, after, 2).await.expect("a page");
        events.extend(page.rows);
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    let mut told: Vec<_> =
        events.iter().map(|event| format!("{} {}", event.user_id, event.event_type)).collect();
    let ids: HashSet<i64> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), events.len(), "each event has an id of its own");
    let mut expected = [
        "user-1 ATTEMPTED",
        "user-1 RESERVED",
        "user-1 ATTEMPTED",
        "user-1 REJECTED_DUPLICATE",
        "user-2 ATTEMPTED",
        "user-2 REJECTED_SOLD_OUT",
        "user-1 CONFIRMED",
        "admin ADMIN_CHANGED",
        "user-3 ATTEMPTED",
        "user-3 REJECTED_NOT_ACTIVE",
        "admin ADMIN_RESET",
    ];
    told.sort();
    expected.sort_unstable();
    assert_eq!(told, expected);
}

/// P3: what was acknowledged is there after a crash: order ids, units, confirmations, the sequence.
pub async fn acknowledged_purchases_survive_a_crash<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "crash", 60).await;
    let before = crowd(&harness, &sale, 0..40).await;
    confirm(&harness, 10).await;
    let harness = harness.crash().await;
    check_conserved(&harness, &sale).await;
    for held in reservations(&before) {
        let found = harness.inventory().purchase(&sale, &held.user_id).await.expect("a lookup");
        let found = found.expect("an acknowledged purchase is still there");
        assert_eq!((found.order_id, found.unit), (held.order_id, held.unit));
    }
    let after = crowd(&harness, &sale, 30..80).await;
    assert_eq!(units(&after), (41..=60).collect::<Vec<_>>(), "the rest is sold, and nothing twice");
    let figures = harness.store().figures(&sale).await.expect("figures");
    let left = usize::try_from(figures.reserved).expect("a small number");
    confirm(&harness, left).await;
    check_conserved(&harness, &sale).await;
    assert_eq!(harness.store().figures(&sale).await.expect("figures").confirmed, 60);
}

/// What was reserved and not yet confirmed when the plug was pulled is confirmed after the next start.
pub async fn reservations_left_by_a_crash_are_confirmed<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "left", 10).await;
    crowd(&harness, &sale, 0..4).await;
    let harness = harness.crash().await;
    crowd(&harness, &sale, 4..6).await;
    confirm(&harness, 6).await;
    let figures = harness.store().figures(&sale).await.expect("figures");
    assert_eq!((figures.reserved, figures.confirmed), (0, 6));
    check_conserved(&harness, &sale).await;
}

/// A reservation that was on its way to the store when it crashed comes again, with no new one to push it.
pub async fn reservations_on_their_way_survive_a_crash<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "underway", 5).await;
    crowd(&harness, &sale, 0..3).await;
    let lost = harness.queue().receive().await.expect("a batch").expect("an open queue");
    assert!(!lost.reservations.is_empty());
    let harness = harness.crash().await;
    assert_eq!(confirm(&harness, 3).await.len(), 3);
    let figures = harness.store().figures(&sale).await.expect("figures");
    assert_eq!((figures.reserved, figures.confirmed), (0, 3));
    check_conserved(&harness, &sale).await;
}

/// Orders come in pages that miss nothing and repeat nothing, and so do those that ended.
pub async fn listings_come_in_pages<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "pages", 25).await;
    crowd(&harness, &sale, 0..25).await;
    // Where reservation and order are not one row, there are no orders before.
    let held = confirm(&harness, 25).await;
    for ended in &held[..5] {
        assert!(harness.inventory().release(ended, Ending::Cancelled).await.expect("released"));
    }
    // A page that ends with the last live order, one that goes on with ended ones, and one of each alone.
    for limit in [10, 7, 1] {
        let mut seen = pages_of_orders(&harness, &sale, limit).await;
        assert_eq!(seen.iter().filter(|order| order.status == OrderStatus::Cancelled).count(), 5);
        seen.sort_unstable_by_key(|order| order.unit);
        assert_eq!(seen.iter().map(|order| order.unit.0).collect::<Vec<_>>(), (1..=25).collect::<Vec<_>>());
    }
}

/// All orders of a sale, in pages of at most `limit`.
async fn pages_of_orders<H: Harness>(harness: &H, sale: &SaleId, limit: u32) -> Vec<Order> {
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let page = harness.store().orders(sale, after, limit).await.expect("a page");
        assert!(page.rows.len() <= limit as usize);
        seen.extend(page.rows);
        match page.next {
            Some(next) => after = next,
            None => return seen,
        }
    }
}

/// Whoever looks for orders and events finds them, newest first, page by page, and nothing of anybody else.
pub async fn what_is_looked_for_is_found<H: Harness>() {
    let harness = H::start().await;
    let (sale, other) = (open(&harness, "searched", 25).await, open(&harness, "beside", 25).await);
    for number in 0..25 {
        reserve(&harness, &sale, number).await;
        reserve(&harness, &other, number).await;
    }
    for number in [3, 3, 99] {
        attempt(&harness, &sale, number).await;
    }
    let held = confirm(&harness, 50).await;
    let ours: Vec<_> = held.into_iter().filter(|held| held.sale_id == sale).collect();
    let store = harness.store();

    let (mut units, mut find) = (Vec::new(), FindOrders { limit: 10, ..FindOrders::default() });
    loop {
        let page = store.find_orders(&sale, &find).await.expect("a page");
        assert!(page.rows.len() <= 10 && page.rows.iter().all(|order| order.sale_id == sale));
        units.extend(page.rows.iter().map(|order| order.unit.0));
        find.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(units, (1..=25).rev().collect::<Vec<_>>());
    let one = &ours[7];
    for find in [
        FindOrders { user: Some(one.user_id.clone()), limit: 10, ..FindOrders::default() },
        FindOrders { order: Some(one.order_id), limit: 10, ..FindOrders::default() },
        FindOrders {
            order: Some(one.order_id),
            status: Some(OrderStatus::Confirmed),
            limit: 10,
            ..FindOrders::default()
        },
    ] {
        let found = store.find_orders(&sale, &find).await.expect("found").rows;
        assert!(matches!(&found[..], [order] if order.id == one.order_id), "{find:?}: {found:?}");
        let beside = store
            .find_orders(&other, &FindOrders { user: None, ..find.clone() })
            .await
            .expect("searched")
            .rows;
        assert!(find.order.is_none() || beside.is_empty(), "{beside:?}");
    }
    let cancelled = FindOrders { status: Some(OrderStatus::Cancelled), limit: 10, ..FindOrders::default() };
    assert_eq!(store.find_orders(&sale, &cancelled).await.expect("searched"), Found::nothing());
    assert!(harness.inventory().release(one, Ending::Cancelled).await.expect("released"));
    let found = store.find_orders(&sale, &cancelled).await.expect("found").rows;
    assert!(matches!(&found[..], [order] if order.id == one.order_id), "{found:?}");

    let (mut seen, mut find) = (Vec::new(), FindEvents { limit: 7, ..FindEvents::default() });
    loop {
        let page = store.find_events(&sale, &find).await.expect("a page");
        seen.extend(page.rows.iter().map(|event| event.id));
        find.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    let all = store.audit(&sale, 0, 1_000).await.expect("all").rows;
    let mut ids: Vec<_> = all.iter().map(|event| event.id).collect();
    ids.sort_unstable_by(|left, right| right.cmp(left));
    assert_eq!(seen, ids, "page by page, everything comes once, the newest first");
    let find = FindEvents { user: Some(user(3)), limit: 10, ..FindEvents::default() };
    let types = |rows: &[AuditEvent]| rows.iter().map(|event| event.event_type).collect::<Vec<_>>();
    let found = types(&store.find_events(&sale, &find).await.expect("found").rows);
    let count = |wanted| found.iter().filter(|found| **found == wanted).count();
    let expected = [(EventType::Attempted, 3), (EventType::RejectedDuplicate, 2), (EventType::Reserved, 1)];
    assert!(expected.into_iter().all(|(wanted, times)| count(wanted) == times), "{found:?}");
    for (event_type, times) in [
        (EventType::RejectedSoldOut, 1),
        (EventType::RejectedDuplicate, 2),
        (EventType::Attempted, 28),
        (EventType::Confirmed, 25),
        (EventType::Cancelled, 1),
        (EventType::AdminReset, 0),
    ] {
        let find = FindEvents { event_type: Some(event_type), limit: 100, ..FindEvents::default() };
        let found = types(&store.find_events(&sale, &find).await.expect("found").rows);
        assert_eq!(found, vec![event_type; times]);
    }
    let unknown = Err(Error::UnknownSale(id("none")));
    assert_eq!(store.find_orders(&id("none"), &cancelled).await, unknown);
    assert_eq!(store.find_events(&id("none"), &find).await.map(drop), Err(Error::UnknownSale(id("none"))));
}

/// Who came to the console's door is on record, newest first, and a crash takes nothing of it.
pub async fn operators_are_on_record<H: Harness>() {
    let harness = H::start().await;
    let sale = open(&harness, "watched", 50).await;
    assert_eq!(harness.operator_log().newest(None, 10).await.expect("a page").rows, []);
    let entry = |event, address: &str, second: i64| OperatorEntry {
        at: Timestamp::from_millis(1_771_815_600_123 + 1_000 * second),
        event,
        address: address.parse().expect("an address"),
    };
    let entries = [
        entry(OperatorEvent::SignInRefused, "203.0.113.7", 0),
        entry(OperatorEvent::LockedOut, "203.0.113.7", 1),
        entry(OperatorEvent::SignedIn, "2001:db8::7", 2),
        entry(OperatorEvent::SignedOut, "2001:db8::7", 3),
        entry(OperatorEvent::SignedIn, "192.0.2.1", 4),
    ];
    // While others buy.
    let (log, buying) = (harness.operator_log(), crowd(&harness, &sale, 0..100));
    let recording = async {
        for entry in &entries {
            log.record(entry).await.expect("it is recorded");
        }
    };
    join(recording, buying).await;
    let harness = harness.crash().await;

    let (mut seen, mut before, log) = (Vec::new(), None, harness.operator_log());
    loop {
        let page = log.newest(before, 2).await.expect("a page");
        assert!(page.rows.len() <= 2);
        seen.extend(page.rows);
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    assert!(seen.is_sorted_by(|newer, older| newer.id > older.id), "{seen:?}");
    let recorded: Vec<_> = seen.iter().map(|record| record.entry).collect();
    assert_eq!(recorded, entries.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(log.newest(None, 5).await.expect("a page").next, None);
}

/// The adapter against the state machine: the same random history, and the same answer to every input.
pub async fn agrees_with_the_model<H: Harness>() {
    for seed in 1..=3 {
        let harness = H::start().await;
        history(harness, seed).await;
    }
}

/// A small pseudo-random generator (Marsaglia's xorshift), so that a history is its seed.
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// A number from 0 to `sides` - 1.
    ///
    /// # Panics
    /// Without sides.
    pub fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(sides)).expect("less than the number of sides")
    }
}

async fn history<H: Harness>(mut harness: H, seed: u64) {
    let mut dice = Dice::new(seed);
    let sale = open(&harness, "model", 8).await;
    let now = harness.now();
    let created = harness.inventory().status(&sale).await.expect("a status").sale;
    let mut model = inventory::Inventory::new(created, Place(1));
    let mut held: Vec<Reservation> = Vec::new();
    for step in 0..150 {
        match dice.roll(20) {
            0..=11 => {
                let number = dice.roll(14);
                let decision = attempt(&harness, &sale, number).await;
                let minted = match &decision {
                    Decision::Reserved(reservation) => reservation.order_id,
                    _ => OrderId(uuid::Uuid::nil()),
                };
                let expected = model.attempt(&user(number), now, || minted).decision;
                assert!(same(&decision, &expected), "seed {seed}, step {step}: {decision:?} ≠ {expected:?}");
                if let Decision::Reserved(reservation) = decision {
                    held.push(reservation);
                }
            }
            roll @ 12..=15 if !held.is_empty() => {
                let length = u32::try_from(held.len()).expect("a short history");
                let reservation = held[dice.roll(length) as usize].clone();
                if roll < 14 {
                    let answer = harness.store().confirm(std::slice::from_ref(&reservation)).await;
                    assert_eq!(
                        answer.expect("an answer"),
                        [model.confirm(&reservation).0],
                        "seed {seed}, step {step}"
                    );
                } else {
                    let answer = harness.inventory().release(&reservation, Ending::Expired).await;
                    let expected = model.release(&reservation).is_some();
                    assert_eq!(answer.expect("an answer"), expected, "seed {seed}, step {step}");
                }
            }
            16 => {
                let change = SaleChange { total_stock: Some(4 + dice.roll(8)), ..SaleChange::default() };
                let answer = harness.inventory().change(&sale, change.clone()).await.is_ok();
                assert_eq!(answer, model.change(&change).is_ok(), "seed {seed}, step {step}");
            }
            17 => {
                let change = SaleChange { paused: Some(dice.roll(3) == 0), ..SaleChange::default() };
                harness.inventory().change(&sale, change.clone()).await.expect("changed");
                model.change(&change).expect("changed");
            }
            18 if dice.roll(4) == 0 => {
                harness.inventory().reset(&sale, None).await.expect("a reset");
                model.reset();
            }
            19 if dice.roll(4) == 0 => harness = harness.crash().await,
            _ => {}
        }
        let (status, expected) =
            (harness.inventory().status(&sale).await.expect("a status"), model.status(now));
        assert_eq!(
            (&status.sale, status.reserved, status.confirmed),
            (&expected.sale, expected.reserved, expected.confirmed)
        );
    }
    check_conserved(&harness, &sale).await;
}

/// The same answer, whatever moment an adapter's own clock gave it.
fn same(left: &Decision, right: &Decision) -> bool {
    match (left, right) {
        (Decision::Reserved(left), Decision::Reserved(right)) => {
            (&left.user_id, left.unit, left.epoch) == (&right.user_id, right.unit, right.epoch)
        }
        (left, right) => left == right,
    }
}

/// One test for each story of the contract, on the given [`Harness`].
#[macro_export]
macro_rules! conformance_tests {
    ($harness:ty) => {
        $crate::conformance_tests!(@each $harness:
            sells_exactly_the_stock,
            one_unit_a_user,
            purchasers_of_a_sold_out_sale_keep_their_answer,
            sells_only_while_active,
            unknown_sales_are_unknown,
            a_reservation_becomes_an_order,
            confirming_is_idempotent,
            the_past_stays_past,
            released_units_are_sold_again,
            stock_can_be_changed,
            a_product_stays_with_its_sale,
            sales_are_made_listed_and_deleted,
            a_deleted_sale_leaves_no_orders_behind,
            everything_is_on_record,
            acknowledged_purchases_survive_a_crash,
            reservations_on_their_way_survive_a_crash,
            reservations_left_by_a_crash_are_confirmed,
            listings_come_in_pages,
            what_is_looked_for_is_found,
            operators_are_on_record,
            agrees_with_the_model,
        );
    };
    (@each $harness:ty: $($story:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                $crate::conformance::$story::<$harness>().await;
            }
        )*
    };
}
