//! A crash in the middle of a rush: what a copy of the folder, taken at any moment, still knows.

use std::{
    collections::HashMap,
    fs::{self, File},
    sync::Arc,
};

use flashsale_core::{
    conformance::{Harness, check_conserved},
    ids::{SaleId, UserId},
    inventory::Decision,
    order::Reservation,
    worker::OrderWorker,
};
use flashsale_embedded::FILE_NAME;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::{Bench, copy_as_is, reserved, user};

const STOCK: u32 = 300;
const USERS: u32 = 600;
const BUYERS: u32 = 12;

/// What clients were told.
#[derive(Clone, Default)]
struct Told {
    reserved: HashMap<UserId, Reservation>,
    sold_out: bool,
}

/// Buyers who come one after the other, each user twice, and write down what they are told.
fn rush(
    bench: &Bench,
    sale: &SaleId,
    told: &Arc<Mutex<Told>>,
) -> (watch::Receiver<usize>, Vec<tokio::task::JoinHandle<()>>) {
    let (progress, watched) = watch::channel(0);
    let buyers = (0..BUYERS).map(|first| {
        let (inventory, sale, told, progress) =
            (bench.inventory(), sale.clone(), told.clone(), progress.clone());
        tokio::spawn(async move {
            for number in (first..USERS).step_by(BUYERS as usize).flat_map(|number| [number, number]) {
                let decision = inventory.attempt(&sale, user(number)).await.expect("a decision");
                let mut told = told.lock();
                match decision {
                    Decision::Reserved(reservation) => {
                        let twice = told.reserved.insert(reservation.user_id.clone(), reservation);
                        assert_eq!(twice, None, "a user got a second unit");
                    }
                    Decision::SoldOut => told.sold_out = true,
                    Decision::AlreadyPurchased(_) => {}
                    Decision::NotActive => panic!("the sale is open"),
                }
                progress.send_replace(told.reserved.len());
            }
        })
    });
    (watched, buyers.collect())
}

/// All that was told before the copy began is true of the copy, and the copy sells what is left.
async fn survives(bench: Bench, sale: &SaleId, told: &Told) {
    let inventory = bench.inventory();
    for held in told.reserved.values() {
        let found = inventory.purchase(sale, &held.user_id).await.expect("a lookup");
        let found = found.map(|found| (found.order_id, found.unit));
        assert_eq!(found, Some((held.order_id, held.unit)), "an acknowledged purchase is lost: {held:?}");
    }
    let status = inventory.status(sale).await.expect("a status");
    assert!(status.sold() as usize >= told.reserved.len());
    if told.sold_out {
        assert_eq!(status.available(), 0, "somebody was told SOLD_OUT, and now there is a unit again");
    }
    check_conserved(&bench, sale).await;
    let mut sold = status.sold();
    for number in USERS..USERS + STOCK {
        match inventory.attempt(sale, user(number)).await.expect("a decision") {
            Decision::Reserved(_) => sold += 1,
            other => assert_eq!((other, sold), (Decision::SoldOut, STOCK)),
        }
    }
    assert_eq!(sold, STOCK);
    check_conserved(&bench, sale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_in_the_middle_of_a_rush_makes_nothing_false_that_anybody_was_told() {
    let bench = Bench::start().await;
    let sale = bench.sale("rush", STOCK).await;
    let told: Arc<Mutex<Told>> = Arc::default();
    let worker = OrderWorker::new(bench.queue(), bench.store(), bench.clock.clone());
    let worker = tokio::spawn(worker.run());
    let (mut progress, buyers) = rush(&bench, &sale, &told);

    let mut crashes: Vec<(Told, TempDir)> = Vec::new();
    for reached in [1, 20, 60, 110, 170, 230, 290, 300] {
        progress.wait_for(|reserved| *reserved >= reached).await.expect("the rush goes on");
        let told_before = told.lock().clone();
        // In place, and not on another thread: the rush goes on on the two workers' threads.
        crashes.push((told_before, copy_as_is(bench.dir.path())));
    }
    for buyer in buyers {
        buyer.await.expect("a buyer who was told the truth");
    }
    bench.embedded.close_queue();
    assert_eq!(worker.await.expect("the worker ends").confirmed, u64::from(STOCK));
    check_conserved(&bench, &sale).await;
    let last = told.lock().clone();
    assert_eq!((last.reserved.len(), last.sold_out), (STOCK as usize, true));
    crashes.push((last, copy_as_is(bench.dir.path())));

    for (told, left) in crashes {
        survives(bench.on_copy(left), &sale, &told).await;
    }
}

/// Power that goes in the middle of a write leaves the log cut off, or ending in rubbish, at any byte.
#[tokio::test]
async fn a_log_that_is_torn_anywhere_gives_a_beginning_of_the_history_with_all_that_was_told_by_then() {
    let bench = Bench::start().await;
    let sale = bench.sale("torn", 20).await;
    let log = format!("{FILE_NAME}-wal");
    let log_bytes = || fs::metadata(bench.dir.path().join(&log)).expect("the log").len();
    let mut told = Vec::new();
    let first = log_bytes();
    for number in 0..20 {
        let held = reserved(bench.inventory().attempt(&sale, user(number)).await.expect("a decision"));
        told.push((log_bytes(), held));
    }
    let whole = log_bytes();

    let step = usize::try_from((whole - first) / 60).expect("a short log");
    for bytes in (first..=whole).step_by(step) {
        for rubbish in [false, true] {
            let left = copy_as_is(bench.dir.path());
            let torn = File::options().write(true).open(left.path().join(&log)).expect("the log");
            torn.set_len(bytes).expect("a torn log");
            if rubbish {
                torn.set_len(whole).expect("a log that ends in nothing");
            }
            let torn = bench.on_copy(left);
            check_conserved(&torn, &sale).await;
            let orders = torn.store().orders(&sale, 0, 100).await.expect("the orders").rows;
            let expected: Vec<_> = told.iter().take(orders.len()).map(|(_, held)| held.order_id).collect();
            assert_eq!(orders.iter().map(|order| order.id).collect::<Vec<_>>(), expected);
            let acknowledged = told.iter().filter(|(written, _)| *written <= bytes).count();
            assert!(orders.len() >= acknowledged, "{bytes} bytes hold {acknowledged}: {}", orders.len());
        }
    }
}
