//! How long the rules take, by the clock: `cargo bench -p flashsale-core`. Compare what one run says, never two machines;
//! what slows down is told by `scripts/bench-instructions`, which no noise disturbs.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flashsale_core::{
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, UserId},
    inventory::{Decision, Event, Inventory},
    order::Reservation,
    sale::{NewSale, Window},
};
use uuid::Uuid;

/// What is done in one measurement.
const ATTEMPTS: u32 = 1_000;
/// How many units are sold before: what an attempt costs must not depend on it.
const SOLD: [u32; 3] = [1_000, 30_000, 1_000_000];

fn now() -> Timestamp {
    Timestamp::from_millis(1_771_815_600_000)
}

fn users(prefix: &str, count: u32) -> Vec<UserId> {
    (0..count).map(|number| format!("{prefix}-{number:09}").parse().expect("a user's id")).collect()
}

fn attempt(inventory: &mut Inventory, user: &UserId, number: u32) -> Decision {
    inventory.attempt(user, now(), || OrderId(Uuid::from_u128(u128::from(number) << 64))).decision
}

fn attempts(inventory: &mut Inventory, users: &[UserId]) -> Vec<Reservation> {
    let decided = users.iter().zip(0..).filter_map(|(user, number)| match attempt(inventory, user, number) {
        Decision::Reserved(reservation) => Some(reservation),
        _ => None,
    });
    decided.collect()
}

fn empty(stock: u32) -> Inventory {
    let window = Window::new(now(), now().after(Duration::from_secs(3_600))).expect("a window");
    let new = NewSale::new("sale_1".parse().expect("a sale's id"), "Sale".to_owned(), stock, window);
    Inventory::new(new.expect("a sale").open(Epoch(1)), Place(0))
}

fn reserve(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reserve and release");
    group.throughput(Throughput::Elements(u64::from(ATTEMPTS)));
    let new = users("user", ATTEMPTS);
    for sold in SOLD {
        let mut inventory = empty(10_000_000);
        attempts(&mut inventory, &users("held", sold));
        // Released again, so that the next measurement finds as many sold.
        group.bench_function(BenchmarkId::from_parameter(sold), |bencher| {
            bencher.iter(|| {
                let reservations = attempts(&mut inventory, &new);
                for reservation in &reservations {
                    black_box(inventory.release(reservation));
                }
            });
        });
    }
    group.finish();
}

fn reject(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reject");
    group.throughput(Throughput::Elements(u64::from(ATTEMPTS)));
    let new = users("user", ATTEMPTS);
    for sold in SOLD {
        let held = users("held", sold);
        let mut inventory = empty(sold);
        attempts(&mut inventory, &held);
        for (what, users) in [("sold out", &new[..]), ("duplicate", &held[..ATTEMPTS as usize])] {
            group.bench_function(BenchmarkId::new(what, sold), |bencher| {
                bencher.iter(|| assert!(black_box(attempts(&mut inventory, users)).is_empty()));
            });
        }
    }
    group.finish();
}

/// What a start does with each order of the ledger.
fn replay(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replay");
    let held = 100_000;
    group.throughput(Throughput::Elements(u64::from(held))).sample_size(20);
    let events: Vec<Event> =
        attempts(&mut empty(held), &users("held", held)).into_iter().map(Event::Reserved).collect();
    group.bench_function(BenchmarkId::from_parameter(held), |bencher| {
        bencher.iter(|| {
            let mut inventory = empty(held);
            for event in &events {
                inventory.replay(event).expect("it happened like this");
            }
            inventory
        });
    });
    group.finish();
}

criterion_group!(benches, reserve, reject, replay);
criterion_main!(benches);
