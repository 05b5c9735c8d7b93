//! Both loops against a shop that keeps its promises.

use std::time::Duration;

use flashsale_loadtest::{Error, Load, Options, run, run_until};
use tokio::net::TcpListener;
use tokio::sync::Barrier;

use crate::shop::{Manner, Shop};

fn open_loop(rate_per_second: f64, milliseconds: u64) -> Load {
    Load::OpenLoop { rate_per_second, duration: Duration::from_millis(milliseconds) }
}

fn closed_loop(connections: usize, milliseconds: u64) -> Load {
    Load::ClosedLoop { connections, duration: Duration::from_millis(milliseconds) }
}

fn options(shop: &Shop, load: Load) -> Options {
    Options { load, ..Options::new(&shop.url, "sale_1", "run") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_loop_makes_every_attempt_of_its_schedule_by_a_new_user() {
    let shop = Shop::open(100, Manner::Honest).await;
    let report = run(options(&shop, open_loop(5_000.0, 200))).await.expect("a report");
    assert!(report.passed(), "{report}");
    assert_eq!(report.total_requests, 1_000);
    assert_eq!((report.outcomes.success, report.outcomes.sold_out), (100, 900));
    assert_eq!(report.before.remaining_stock, 100);
    assert_eq!(report.after.as_ref().map(|after| after.total_sold), Some(100));
    assert!(report.elapsed_seconds >= 0.1998, "the last attempt starts at 199.8 ms");
    assert!(report.verdict.notes.is_empty(), "{report}");
    shop.books(|books| {
        assert_eq!(books.attempts, 1_000);
        assert!(books.orders.keys().all(|user| user.starts_with("run-")), "{:?}", books.orders);
    });
}

#[tokio::test]
async fn a_pool_of_users_comes_again_and_is_told_so() {
    let shop = Shop::open(100, Manner::Honest).await;
    let options = Options { users: Some(50), ..options(&shop, open_loop(2_000.0, 100)) };
    let report = run(options).await.expect("a report");
    assert!(report.passed(), "{report}");
    assert_eq!((report.outcomes.success, report.outcomes.already_purchased), (50, 150));
}

#[tokio::test]
async fn a_user_id_may_hold_any_character_of_json_and_urls() {
    let shop = Shop::open(10, Manner::Honest).await;
    let user_prefix = r#"a"b\c/d?e%f ü"#.to_owned();
    let options = Options { user_prefix: user_prefix.clone(), ..options(&shop, open_loop(1_000.0, 20)) };
    let report = run(options).await.expect("a report");
    assert!(report.passed(), "all ten are looked up, and found: {report}");
    shop.books(|books| assert!(books.orders.contains_key(&format!("{user_prefix}-0")), "{:?}", books.orders));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_loop_goes_on_until_its_time_is_over() {
    let shop = Shop::open(5, Manner::Honest).await;
    let report = run(options(&shop, closed_loop(8, 300))).await.expect("a report");
    assert!(report.passed(), "{report}");
    assert_eq!(report.outcomes.success, 5);
    assert_eq!(report.outcomes.sold_out, report.total_requests - 5);
    assert!(report.elapsed_seconds >= 0.29, "{report}");
    shop.books(|books| assert_eq!(books.attempts, report.total_requests));
}

#[tokio::test]
async fn attempts_do_not_wait_for_replies() {
    // No reply until 50 attempts are there at once: more than the connections opened ahead, so the pool must grow.
    let shop = Shop::open(50, Manner::Gathers(Barrier::new(50))).await;
    let options = Options { max_connections: 50, ..options(&shop, open_loop(1_000.0, 50)) };
    let report = run(options).await.expect("a report");
    assert!(report.passed(), "{report}");
    assert_eq!(report.outcomes.success, 50);
    assert!(report.response_time.max_ms >= 49.0, "the first waited for the last: {report}");
}

#[tokio::test]
async fn a_stall_is_felt_by_all_who_meant_to_come_while_it_lasted() {
    // One connection, stalled for 300 ms, while 300 attempts were due. A tester that only times what it has sent
    // would see one slow reply and 299 fast ones.
    let shop = Shop::open(0, Manner::Stalls(Duration::from_millis(300))).await;
    let options = Options { max_connections: 1, ..options(&shop, open_loop(1_000.0, 300)) };
    let report = run(options).await.expect("a report");
    assert!(report.passed(), "{report}");
    assert_eq!(report.total_requests, 300);
    assert!(report.response_time.median_ms >= 145.0, "{report}");
    assert!(report.response_time.max_ms >= 299.0, "{report}");
    let connections = shop.books(|books| books.connections);
    assert!(connections <= 3, "one to find the shop, one for its status, one for attempts: {connections}");
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_opened_again() {
    let shop = Shop::open(10, Manner::Closes).await;
    for load in [open_loop(1_000.0, 100), closed_loop(2, 50)] {
        let report = run(options(&shop, load)).await.expect("a report");
        assert_eq!(report.failed_requests, 0, "{report}");
    }
    shop.books(|books| assert!(books.connections >= 100, "{}", books.connections));
}

#[tokio::test]
async fn that_a_sale_is_closed_is_an_answer() {
    let shop = Shop::open(10, Manner::Closed).await;
    let report = run(options(&shop, open_loop(1_000.0, 20))).await.expect("a report");
    assert!(report.passed(), "{report}");
    assert_eq!(report.outcomes.not_active, 20);
    assert!(report.to_string().contains("   NOT_ACTIVE: 20 (100.00%)\n"), "{report}");
    assert_eq!(
        report.verdict.notes,
        ["the sale was not active before the load: only rejections were tested"]
    );
}

#[tokio::test]
async fn a_slow_rate_is_not_made_up() {
    // One attempt, answered in a millisecond, was "901 requests/s".
    let shop = Shop::open(10, Manner::Honest).await;
    let report = run(options(&shop, open_loop(2.0, 500))).await.expect("a report");
    assert_eq!(report.total_requests, 1);
    assert!(report.requests_per_second <= 2.0, "{report}");
}

#[tokio::test]
async fn a_load_that_is_stopped_waits_for_what_is_under_way_and_reports() {
    for load in [open_loop(100.0, 3_600_000), closed_loop(2, 3_600_000)] {
        let shop = Shop::open(10, Manner::Stalls(Duration::from_millis(600))).await;
        // Ten buy, the first of them slowly, and somebody is told that it is sold out.
        let run = run_until(options(&shop, load), shop.attempted(11));
        let report = tokio::time::timeout(Duration::from_secs(20), run).await.expect("it stops");
        let report = report.expect("a report");
        assert!(report.interrupted && report.passed(), "{report}");
        assert!(report.elapsed_seconds >= 0.6, "the first attempt is waited for: {report}");
        assert_eq!((report.outcomes.success, report.failed_requests), (10, 0), "{report}");
        let note = &report.verdict.notes[0];
        assert!(note.starts_with("interrupted after ") && note.ends_with(" s of 3600s"), "{note}");
        shop.books(|books| assert_eq!(books.attempts, report.total_requests));
    }
}

#[tokio::test]
async fn a_load_that_is_stopped_before_it_is_on_has_no_report() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    // Somebody is there, and nobody answers.
    let mut line = None;
    let stop = async { line = listener.accept().await.ok() };
    let run = run_until(Options::new(url, "sale_1", "run"), stop);
    assert!(matches!(run.await, Err(Error::Interrupted)));
    drop(line);
}

#[tokio::test]
async fn a_load_that_cannot_be_applied_says_why() {
    let shop = Shop::open(10, Manner::Honest).await;
    let error = run(Options::new(&shop.url, "sale_2", "run")).await.expect_err("no such sale");
    assert!(matches!(&error, Error::NoSuchSale { sale } if sale == "sale_2"), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let error = run(Options::new(url, "sale_1", "run")).await.expect_err("nobody listens");
    assert!(error.to_string().contains("Is the server running?"), "{error}");
}

#[tokio::test]
async fn a_run_that_is_dropped_stops() {
    let shop = Shop::open(10, Manner::Honest).await;
    let run = run(options(&shop, open_loop(0.01, 3_600_000)));
    tokio::time::timeout(Duration::from_millis(300), run).await.expect_err("it runs for an hour");
    // The runtime waits for its threads when the test ends: a pacer that went on would hang it.
}
