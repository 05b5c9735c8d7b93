//! Shops that break a promise are called out, by name.

use std::time::Duration;

use flashsale_loadtest::{Load, Options, Report, run};

use crate::shop::{Manner, Shop};

/// One connection, so that attempts come in order, by a pool of users if so wanted.
async fn visit(stock: i64, manner: Manner, users: Option<u64>) -> Report {
    let shop = Shop::open(stock, manner).await;
    let load = Load::OpenLoop { rate_per_second: 1_000.0, duration: Duration::from_millis(50) };
    let options = Options { load, users, max_connections: 1, ..Options::new(&shop.url, "sale_1", "run") };
    run(options).await.expect("a report")
}

fn assert_broken(report: &Report, promises: &[&str]) {
    let broken: Vec<_> =
        report.verdict.checks.iter().filter(|check| !check.holds).map(|check| check.promise).collect();
    assert_eq!(broken, promises, "{report}");
    assert!(!report.passed());
    assert!(report.to_string().ends_with("\nFAILED: a promise is broken"), "{report}");
}

#[tokio::test]
async fn one_that_sells_more_than_it_has() {
    let report = visit(10, Manner::Oversells, None).await;
    assert_eq!(report.outcomes.success, 11);
    // Its books add up to more than they did, too.
    assert_broken(&report, &["P1", "P4"]);
}

#[tokio::test]
async fn one_that_gives_an_order_id_twice() {
    assert_broken(&visit(10, Manner::SameOrder, None).await, &["P1"]);
}

#[tokio::test]
async fn one_that_sells_to_the_same_user_again() {
    // The buyer's first order is overwritten by the second, so that it is also not found again.
    assert_broken(&visit(50, Manner::SellsTwice, Some(25)).await, &["P2", "P3"]);
}

#[tokio::test]
async fn one_that_answers_a_retry_with_another_order() {
    assert_broken(&visit(50, Manner::WrongOrder, Some(25)).await, &["P2"]);
}

#[tokio::test]
async fn one_that_forgets_its_buyers() {
    assert_broken(&visit(10, Manner::Forgets, None).await, &["P3"]);
}

#[tokio::test]
async fn one_whose_units_vanish() {
    assert_broken(&visit(100, Manner::Leaks, None).await, &["P4"]);
}

#[tokio::test]
async fn one_that_says_sold_out_too_early() {
    let report = visit(10, Manner::SoldOutEarly, None).await;
    assert_eq!((report.outcomes.success, report.outcomes.sold_out), (10, 40));
    assert_broken(&report, &["P5"]);
}

#[tokio::test]
async fn one_that_says_sold_out_and_keeps_units() {
    // 49 buyers after the one who was turned away, of 100 units.
    assert_broken(&visit(100, Manner::SoldOutEarly, None).await, &["P5"]);
}

fn assert_unanswered(report: &Report, failed: u64, reason: &str) {
    assert_eq!(report.failed_requests, failed, "{report}");
    assert_eq!(report.failures.iter().map(|failure| failure.count).sum::<u64>(), failed, "{report}");
    assert!(report.failures.iter().any(|failure| failure.reason.contains(reason)), "{report}");
    assert!(!report.passed());
    assert!(report.to_string().ends_with("\nFAILED: an attempt got no answer"), "{report}");
}

#[tokio::test]
async fn one_that_does_not_answer_some() {
    let shop = Shop::open(10, Manner::HangsEvery(5)).await;
    let load = Load::OpenLoop { rate_per_second: 1_000.0, duration: Duration::from_millis(20) };
    let options =
        Options { load, timeout: Duration::from_secs(1), ..Options::new(&shop.url, "sale_1", "run") };
    let report = run(options).await.expect("a report");
    assert_unanswered(&report, 4, "no reply within 1s");
    assert_eq!(report.outcomes.success, 10);
    assert!(report.response_time.max_ms >= 999.0, "an unanswered attempt counts as slow: {report}");
}

#[tokio::test]
async fn one_that_answers_nobody_cannot_hold_the_run() {
    let shop = Shop::open(10, Manner::HangsEvery(1)).await;
    let load = Load::OpenLoop { rate_per_second: 1_000.0, duration: Duration::from_millis(100) };
    let timeout = Duration::from_millis(500);
    let options = Options { load, timeout, max_connections: 1, ..Options::new(&shop.url, "sale_1", "run") };
    let report = run(options).await.expect("a report");
    assert_unanswered(&report, 100, "not sent: no free connection within 500ms");
    assert!(report.elapsed_seconds < 10.0, "100 time-outs would take 50 s: {report}");
}

#[tokio::test]
async fn one_that_answers_nonsense() {
    assert_unanswered(&visit(10, Manner::Babbles, None).await, 50, r#"HTTP 500: {"message":"oops"}"#);
}
