//! The order worker between a queue, a store and a clock that write down, in one journal, what it does.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use flashsale_core::{
    Error, Result,
    audit::AuditEvent,
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, SaleId, Unit},
    order::{Confirmation, Order, Reservation},
    ports::{Clock, Delivery, Figures, FindEvents, FindOrders, Found, OrderQueue, OrderStore, Page},
    worker::{OrderWorker, Work},
};
use uuid::Uuid;

/// What happened, in order. Orders go by the numbers of their units.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Happened {
    Confirmed(Vec<u32>),
    Refused(Vec<u32>),
    Away,
    Rejected(u32, String),
    Acknowledged(u64),
    Slept(Duration),
}
use Happened::{Acknowledged, Away, Confirmed, Refused, Rejected, Slept};

/// Queue, store and clock in one, so that there is one journal.
#[derive(Default)]
struct World(Mutex<State>);

#[derive(Default)]
struct State {
    journal: Vec<Happened>,
    /// Delivered again until acknowledged.
    deliveries: VecDeque<Delivery>,
    /// The next calls that fail because the queue is away.
    queue_away: u32,
    acknowledge_away: u32,
    /// Whether the store is away, call by call; then it is there.
    store_away: VecDeque<bool>,
    confirmed: BTreeSet<OrderId>,
    stale: BTreeSet<OrderId>,
    /// Why the store refuses an order for good.
    poison: BTreeMap<OrderId, String>,
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with the lock in hand")
    }

    /// A world with one delivery for each batch of orders.
    fn with<const N: usize>(batches: [&[u32]; N]) -> Arc<Self> {
        let world = Arc::new(Self::default());
        let deliveries = batches.iter().zip(1..).map(|(batch, tag)| {
            let reservations = batch.iter().copied().map(reservation).collect();
            Delivery { reservations, tag }
        });
        world.state().deliveries.extend(deliveries);
        world
    }

    async fn work(self: &Arc<Self>) -> Work {
        OrderWorker::new(self.clone(), self.clone(), self.clone()).run().await
    }

    fn journal(&self) -> Vec<Happened> {
        self.state().journal.clone()
    }

    fn pauses(&self) -> Vec<Duration> {
        let slept = |happened: &Happened| match happened {
            Slept(duration) => Some(*duration),
            _ => None,
        };
        self.state().journal.iter().filter_map(slept).collect()
    }
}

fn order_id(number: u32) -> OrderId {
    OrderId(Uuid::from_u128(u128::from(number)))
}

fn reservation(number: u32) -> Reservation {
    Reservation {
        sale_id: "sale_1".parse().expect("a valid sale id"),
        epoch: Epoch(1),
        place: Place(number.into()),
        unit: Unit(number),
        user_id: format!("user-{number}").parse().expect("a valid user id"),
        order_id: order_id(number),
        reserved_at: Timestamp::from_millis(0),
    }
}

fn numbers(reservations: &[Reservation]) -> Vec<u32> {
    reservations.iter().map(|reservation| reservation.unit.0).collect()
}

/// Counts `left` down to zero; whether there was something to count.
fn used_up(left: &mut u32) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

#[async_trait]
impl OrderQueue for World {
    async fn receive(&self) -> Result<Option<Delivery>> {
        let mut state = self.state();
        if used_up(&mut state.queue_away) {
            return Err(Error::unavailable("the queue is away"));
        }
        Ok(state.deliveries.front().cloned())
    }

    async fn acknowledge(&self, delivery: &Delivery) -> Result<()> {
        let mut state = self.state();
        if used_up(&mut state.acknowledge_away) {
            return Err(Error::unavailable("the queue is away"));
        }
        state.journal.push(Acknowledged(delivery.tag));
        state.deliveries.retain(|left| left.tag != delivery.tag);
        Ok(())
    }

    async fn reject(&self, reservation: &Reservation, reason: &str) -> Result<()> {
        self.state().journal.push(Rejected(reservation.unit.0, reason.to_owned()));
        Ok(())
    }
}

#[async_trait]
impl OrderStore for World {
    async fn confirm(&self, reservations: &[Reservation]) -> Result<Vec<Confirmation>> {
        let mut state = self.state();
        if state.store_away.pop_front().unwrap_or(false) {
            state.journal.push(Away);
            return Err(Error::unavailable("the store is away"));
        }
        let refused = reservations.iter().find_map(|one| state.poison.get(&one.order_id).cloned());
        if let Some(reason) = refused {
            state.journal.push(Refused(numbers(reservations)));
            return Err(Error::Refused(reason));
        }
        state.journal.push(Confirmed(numbers(reservations)));
        let mut confirm = |one: &Reservation| {
            if state.stale.contains(&one.order_id) {
                Confirmation::Stale
            } else if state.confirmed.insert(one.order_id) {
                Confirmation::Confirmed
            } else {
                Confirmation::AlreadyConfirmed
            }
        };
        Ok(reservations.iter().map(&mut confirm).collect())
    }

    async fn find_orders(&self, _: &SaleId, _: &FindOrders) -> Result<Found<Order>> {
        unreachable!("a worker looks for nothing")
    }

    async fn find_events(&self, _: &SaleId, _: &FindEvents) -> Result<Found<AuditEvent>> {
        unreachable!("a worker looks for nothing")
    }

    async fn sale_ids(&self) -> Result<Vec<SaleId>> {
        unreachable!("a worker lists nothing")
    }

    async fn epoch(&self, _: &SaleId) -> Result<Epoch> {
        unreachable!("a worker lists nothing")
    }

    async fn orders(&self, _: &SaleId, _: i64, _: u32) -> Result<Page<Order>> {
        unreachable!("a worker lists nothing")
    }

    async fn audit(&self, _: &SaleId, _: i64, _: u32) -> Result<Page<AuditEvent>> {
        unreachable!("a worker lists nothing")
    }

    async fn figures(&self, _: &SaleId) -> Result<Figures> {
        unreachable!("a worker counts nothing")
    }
}

#[async_trait]
impl Clock for World {
    fn now(&self) -> Timestamp {
        unreachable!("a worker does not ask what time it is")
    }

    async fn sleep(&self, duration: Duration) {
        self.state().journal.push(Slept(duration));
    }
}

#[tokio::test]
async fn a_batch_is_confirmed_and_then_acknowledged_until_the_queue_ends() {
    let world = World::with([&[1, 2, 3], &[4]]);
    let work = world.work().await;
    assert_eq!(work, Work { confirmed: 4, ..Work::default() });
    let expected = [Confirmed(vec![1, 2, 3]), Acknowledged(1), Confirmed(vec![4]), Acknowledged(2)];
    assert_eq!(world.journal(), expected);
}

#[tokio::test]
async fn an_empty_queue_that_is_closed_ends_the_work() {
    let world = World::with([]);
    assert_eq!(world.work().await, Work::default());
    assert_eq!(world.journal(), []);
}

#[tokio::test]
async fn a_store_that_is_away_is_waited_for_and_nothing_is_acknowledged_meanwhile() {
    let world = World::with([&[1, 2]]);
    world.state().store_away.extend([true, true]);
    assert_eq!(world.work().await, Work { confirmed: 2, ..Work::default() });
    let (first, second) = (Duration::from_millis(50), Duration::from_millis(100));
    let expected = [Away, Slept(first), Away, Slept(second), Confirmed(vec![1, 2]), Acknowledged(1)];
    assert_eq!(world.journal(), expected);
}

#[tokio::test]
async fn pauses_grow_up_to_a_bound_and_begin_anew_after_a_success() {
    let world = World::with([&[1], &[2]]);
    world.state().store_away.extend([true; 10]);
    world.state().store_away.extend([false, true, true]);
    assert_eq!(world.work().await, Work { confirmed: 2, ..Work::default() });
    let pauses: Vec<_> = world.pauses().iter().map(Duration::as_millis).collect();
    let (first, second) = pauses.split_at(10);
    assert_eq!(first, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
    assert_eq!(second, [50, 100]);
}

#[tokio::test]
async fn a_queue_that_is_away_is_waited_for_too() {
    let world = World::with([&[1]]);
    world.state().queue_away = 1;
    assert_eq!(world.work().await, Work { confirmed: 1, ..Work::default() });
    assert_eq!(world.journal(), [Slept(Duration::from_millis(50)), Confirmed(vec![1]), Acknowledged(1)]);
}

#[tokio::test]
async fn a_batch_that_comes_again_is_counted_as_repeated_and_confirms_nothing_twice() {
    let world = World::with([&[1, 2], &[2, 1, 3]]);
    // The first acknowledgement is lost, so that the batch comes again as a whole.
    world.state().acknowledge_away = 1;
    let work = world.work().await;
    assert_eq!(work, Work { confirmed: 3, repeated: 4, ..Work::default() });
    let pause = Slept(Duration::from_millis(50));
    let expected = [
        Confirmed(vec![1, 2]),
        pause,
        Confirmed(vec![1, 2]),
        Acknowledged(1),
        Confirmed(vec![2, 1, 3]),
        Acknowledged(2),
    ];
    assert_eq!(world.journal(), expected);
}

#[tokio::test]
async fn what_is_stale_is_acknowledged_and_counted_as_stale() {
    let world = World::with([&[1, 2]]);
    world.state().stale.insert(order_id(1));
    assert_eq!(world.work().await, Work { confirmed: 1, stale: 1, ..Work::default() });
    assert_eq!(world.journal(), [Confirmed(vec![1, 2]), Acknowledged(1)]);
}

#[tokio::test]
async fn a_refused_batch_is_halved_until_the_culprit_is_alone_and_the_rest_is_confirmed() {
    let world = World::with([&[1, 2, 3, 4, 5, 6, 7, 8]]);
    world.state().poison.insert(order_id(6), "order 6 is poison".to_owned());
    let work = world.work().await;
    assert_eq!(work, Work { confirmed: 7, rejected: 1, ..Work::default() });
    let expected = [
        Refused(vec![1, 2, 3, 4, 5, 6, 7, 8]),
        Confirmed(vec![1, 2, 3, 4]),
        Refused(vec![5, 6, 7, 8]),
        Refused(vec![5, 6]),
        Confirmed(vec![5]),
        Refused(vec![6]),
        Rejected(6, "order 6 is poison".to_owned()),
        Confirmed(vec![7, 8]),
        Acknowledged(1),
    ];
    assert_eq!(world.journal(), expected);
}

#[tokio::test]
async fn each_of_several_culprits_is_rejected_with_its_own_reason() {
    let world = World::with([&[1, 2, 3], &[4]]);
    for (number, reason) in [(1, "first"), (3, "third"), (4, "fourth")] {
        world.state().poison.insert(order_id(number), reason.to_owned());
    }
    let work = world.work().await;
    assert_eq!(work, Work { confirmed: 1, rejected: 3, ..Work::default() });
    let journal = world.journal();
    let rejected: Vec<_> = journal.iter().filter(|happened| matches!(happened, Rejected(..))).collect();
    let expected = [(1, "first"), (3, "third"), (4, "fourth")]
        .map(|(number, reason)| Rejected(number, reason.to_owned()));
    assert_eq!(rejected, expected.iter().collect::<Vec<_>>());
    assert_eq!(journal.last(), Some(&Acknowledged(2)), "a batch of nothing but poison does not come back");
}

#[tokio::test]
async fn a_store_that_goes_away_between_two_halves_loses_nothing() {
    let world = World::with([&[1, 2]]);
    world.state().poison.insert(order_id(1), "no".to_owned());
    world.state().store_away.extend([false, false, true]);
    let work = world.work().await;
    // The batch is tried again from its start: at least once, for rejections too.
    assert_eq!(work, Work { confirmed: 1, rejected: 2, ..Work::default() });
    let rejected = || Rejected(1, "no".to_owned());
    let (both, one) = (|| Refused(vec![1, 2]), || Refused(vec![1]));
    let pause = Slept(Duration::from_millis(50));
    let expected = [
        both(),
        one(),
        rejected(),
        Away,
        pause,
        both(),
        one(),
        rejected(),
        Confirmed(vec![2]),
        Acknowledged(1),
    ];
    assert_eq!(world.journal(), expected);
}
