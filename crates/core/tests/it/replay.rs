//! What a start reads back is checked: records that contradict each other are refused, and named.

use flashsale_core::{
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, Unit},
    inventory::{Decision, Event, Inventory},
    order::{Ending, Reservation},
    sale::{NewSale, Window},
};
use uuid::Uuid;

const NOW: i64 = 1_771_815_600_000;

/// A sale of three units in its second epoch, of which user-1 holds the second.
fn recovering() -> Inventory {
    let window = Window::new(Timestamp::from_millis(NOW), Timestamp::from_millis(NOW + 1)).expect("a window");
    let id = "damaged".parse().expect("a valid sale id");
    let new = NewSale::new(id, "Damaged".to_owned(), 3, window).expect("a valid sale");
    let mut inventory = Inventory::new(new.open(Epoch(2)), Place(10));
    inventory.replay(&order(1, 2, 2)).expect("a sound record");
    inventory
}

fn order(user: u32, unit: u32, epoch: u32) -> Event {
    Event::Reserved(Reservation {
        sale_id: "damaged".parse().expect("a valid sale id"),
        epoch: Epoch(epoch),
        place: Place(10),
        unit: Unit(unit),
        user_id: format!("user-{user}").parse().expect("a valid user id"),
        order_id: OrderId(Uuid::from_u128(u128::from(user))),
        reserved_at: Timestamp::from_millis(NOW),
    })
}

fn confirmed(user: u32) -> Event {
    Event::Confirmed { user_id: format!("user-{user}").parse().expect("a valid user id") }
}

fn released(user: u32) -> Event {
    let user_id = format!("user-{user}").parse().expect("a valid user id");
    Event::Released { user_id, ending: Ending::Expired }
}

#[test]
fn a_record_that_contradicts_itself_is_refused_with_the_reason() {
    for (event, reason) in [
        (order(2, 2, 2), "unit 2 is held twice"),
        (order(1, 3, 2), "user user-1 holds two units"),
        (order(2, 0, 2), "unit 0 is none of the stock"),
        (order(2, 4, 2), "unit 4 is none of the stock"),
        (order(2, 1, 1), "an order of epoch 1"),
        (order(2, 1, 3), "an order of epoch 3"),
        (confirmed(2), "nothing to confirm for user user-2"),
        (released(2), "nothing to release for user user-2"),
    ] {
        let mut inventory = recovering();
        let damaged = inventory.replay(&event).expect_err(reason);
        assert_eq!(damaged.to_string(), format!("the record of sale damaged is damaged: {reason}"));
        let status = inventory.status(Timestamp::from_millis(NOW));
        assert_eq!((status.reserved, status.confirmed), (1, 0), "what is refused changes nothing");
    }
}

#[test]
fn an_order_is_confirmed_once_and_released_once_in_a_record() {
    let mut inventory = recovering();
    inventory.replay(&confirmed(1)).unwrap();
    inventory.replay(&confirmed(1)).expect_err("confirmed twice");
    inventory.replay(&released(1)).unwrap();
    inventory.replay(&released(1)).expect_err("released twice");
}

#[test]
fn a_gap_that_released_orders_left_is_sold_first_after_a_start() {
    let mut inventory = recovering();
    for (user, unit) in [(2, 1), (3, 3)] {
        let user = format!("user-{user}").parse().unwrap();
        let decided = inventory.attempt(&user, Timestamp::from_millis(NOW), || OrderId(Uuid::nil()));
        let Decision::Reserved(reservation) = decided.decision else { panic!("{decided:?}") };
        assert_eq!(reservation.unit, Unit(unit));
    }
}
