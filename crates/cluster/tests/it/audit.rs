//! The audit trail while PostgreSQL is away: nothing is dropped, nothing waits for it, and it catches up.

use std::{
    fs,
    future::poll_fn,
    path::{Path, PathBuf},
    task::Poll,
};

use flashsale_core::{
    Error,
    conformance::{Harness, check_conserved},
    inventory::Decision,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{Bench, Services, user, wait};

/// Lets the test's database go away, or come back, for everybody.
async fn let_in(bench: &Bench, allowed: bool) {
    let mut admin =
        PgConnection::connect(&Services::shared().database_url).await.expect("PostgreSQL answers");
    let name = &bench.site.name;
    let allow = AssertSqlSafe(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}"));
    sqlx::query(allow).execute(&mut admin).await.expect("altered");
    if !allowed {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(cut).bind(name).execute(&mut admin).await.expect("cut");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_wait_in_a_file_while_postgresql_is_away_and_survive_a_crash_there() {
    let bench = Bench::start().await;
    let sale = bench.open("away", 1).await;
    bench.reserve(&sale, 0).await;
    let_in(&bench, false).await;
    for number in 1..=500 {
        assert_eq!(bench.attempt(&sale, number).await, Decision::SoldOut, "decided without PostgreSQL");
    }
    wait("rows in the file", async || bench.cluster.totals().audit_bytes > 0).await;
    // What came since is still in memory; a flush brings it to the file, too.
    let all = async || bench.cluster.totals().audit_rows == 0;
    wait("all rows in the file", all).await;
    let_in(&bench, true).await;
    let bench = bench.crash().await;
    let caught_up = async || bench.store().figures(&sale).await.expect("figures").attempts_sold_out == 500;
    wait("all rows on record", caught_up).await;
    assert_eq!(bench.cluster.totals().audit_bytes, 0);
    check_conserved(&bench, &sale).await;
}

/// Also where whoever asked has hung up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_puts_on_record_what_is_just_being_decided() {
    let bench = Bench::start().await.restart_with(|options| options.latch = false).await;
    let sale = bench.open("stop", 1).await;
    bench.reserve(&sale, 0).await;
    let inventory = bench.inventory();
    let mut attempt = inventory.attempt(&sale, user(1));
    let asked = poll_fn(|context| Poll::Ready(attempt.as_mut().poll(context))).await;
    assert!(asked.is_pending(), "it is under way");
    drop(attempt);
    bench.cluster.close().await;
    let bench = bench.crash().await;
    assert_eq!(bench.store().figures(&sale).await.expect("figures").attempts_sold_out, 1);
}

/// The files in which rows wait.
fn files(bench: &Bench) -> Vec<PathBuf> {
    let list =
        |folder: &Path| fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
    let folders = list(bench.site.dir.path()).filter(|path| path.is_dir());
    let paths = folders.flat_map(|folder| list(&folder).collect::<Vec<_>>());
    paths.filter(|path| path.extension().is_some_and(|kind| kind == "spool")).collect()
}

/// As after a COMMIT whose answer was lost: the rows are on record, and the file with them is still there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_are_on_record_are_not_written_again() {
    let bench = Bench::start().await;
    let sale = bench.open("again", 1).await;
    bench.reserve(&sale, 0).await;
    let_in(&bench, false).await;
    for number in 1..=100 {
        bench.attempt(&sale, number).await;
    }
    let in_files =
        async || matches!(bench.cluster.totals(), totals if totals.audit_rows == 0 && totals.audit_bytes > 0);
    wait("all rows in the file", in_files).await;
    let file = files(&bench).pop().expect("a file");
    let rows = fs::read(&file).expect("rows");
    let_in(&bench, true).await;
    wait("all rows on record", async || files(&bench).is_empty()).await;
    fs::write(&file, rows).expect("written");
    let bench = bench.crash().await;
    wait("the file is read again", async || files(&bench).is_empty()).await;
    assert_eq!(bench.store().figures(&sale).await.expect("figures").attempts_sold_out, 100);
    check_conserved(&bench, &sale).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_bound_of_the_file_nothing_is_decided_rather_than_dropped() {
    let mut bench = Bench::start().await;
    bench = bench.restart_with(|options| options.spool_bytes = 20_000).await;
    let sale = bench.open("bound", 1).await;
    bench.reserve(&sale, 0).await;
    let_in(&bench, false).await;
    let mut told = 0;
    let busy = async |number| match bench.inventory().attempt(&sale, crate::support::user(number)).await {
        Ok(_) => false,
        Err(Error::Busy { .. }) => true,
        Err(error) => panic!("{error}"),
    };
    let mut number = 1;
    loop {
        if busy(number).await {
            break;
        }
        told += 1;
        number += 1;
        assert!(told < 1_000_000, "the bound is never reached");
        if number % 50 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    let_in(&bench, true).await;
    wait("decisions again", async || !busy(1_000_001).await).await;
    let caught_up =
        async || bench.store().figures(&sale).await.expect("figures").attempts_sold_out == told + 1;
    wait("all that was told on record", caught_up).await;
    check_conserved(&bench, &sale).await;
}

/// A COMMIT whose answer is lost is tried again, and writes nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_cut_again_and_again_neither_drop_nor_double_a_row() {
    let bench = Bench::start().await;
    let sale = bench.open("cut", 1).await;
    bench.reserve(&sale, 0).await;
    let mut admin =
        PgConnection::connect(&Services::shared().database_url).await.expect("PostgreSQL answers");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    for number in 1..=3_000 {
        assert_eq!(bench.attempt(&sale, number).await, Decision::SoldOut);
        if number % 50 == 0 {
            tokio::join!(
                async {
                    let _ = bench.store().figures(&sale).await;
                },
                async { sqlx::query(cut).bind(&bench.site.name).execute(&mut admin).await.expect("cut") }
            );
        }
    }
    let counted =
        async || bench.store().figures(&sale).await.is_ok_and(|figures| figures.attempts_sold_out >= 3_000);
    wait("all rows on record", counted).await;
    assert_eq!(bench.store().figures(&sale).await.expect("figures").attempts_sold_out, 3_000);
    check_conserved(&bench, &sale).await;
}
