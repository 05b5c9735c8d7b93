//! Shops that break a promise are called out, by name.

use std::time::Duration;

use flashsale_loadtest::{Error, Load, Options, Report, run};

use crate::shop::{Manner, Shop};

/// One connection, so that attempts come in order, by a pool of users if so wanted.
async fn visit(stock: i64, manner: Manner, users: Option<u64>) -> Report {
    let shop = Shop::open(stock, manner).await;
    run(Options { users, ..options(&shop) }).await.expect("a report")
}

fn options(shop: &Shop) -> Options {
    let load = Load::OpenLoop { rate_per_second: 1_000.0, duration: Duration::from_millis(50) };
    Options { load, max_connections: 1, ..Options::new(&shop.url, "sale_1", "run") }
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

#[tokio::test]
async fn one_that_tells_new_users_that_they_have_bought() {
    // It passed, since an earlier run might have used the same names. Where they are new, nobody can have.
    let shop = Shop::open(10, Manner::TellsAllTheyHold).await;
    let report = run(Options { fresh_users: true, ..options(&shop) }).await.expect("a report");
    assert_broken(&report, &["P2"]);
    assert!(
        report.to_string().contains("50 users were told ALREADY_PURCHASED who had bought nothing"),
        "{report}"
    );
    // Where they are not, a look at what they hold tells.
    let report = visit(10, Manner::TellsAllTheyHold, None).await;
    assert_broken(&report, &["P2"]);
    assert!(report.to_string().contains("the server knows of no purchase"), "{report}");
}

#[tokio::test]
async fn one_that_tells_users_the_order_of_somebody_else() {
    let report = visit(10, Manner::SharesAnOrder, None).await;
    assert_broken(&report, &["P2"]);
    assert!(report.to_string().contains(r#"such as "order-1" to run-"#), "{report}");
}

#[tokio::test]
async fn one_that_turns_its_buyers_away_when_they_ask_again() {
    let report = visit(50, Manner::TurnsHoldersAway, Some(25)).await;
    // It also says SOLD_OUT with units left.
    assert_broken(&report, &["P2", "P5"]);
    assert!(report.to_string().contains("25 users who hold a purchase were told SOLD_OUT"), "{report}");
}

#[tokio::test]
async fn one_that_has_another_sale_than_was_asked_for() {
    let shop = Shop::open(10, Manner::Confuses).await;
    let error = run(options(&shop)).await.expect_err("not the sale");
    assert!(matches!(&error, Error::Unexpected { reason, .. } if reason.contains("sale_9")), "{error}");
}

fn assert_not_proven(report: &Report, unchecked: &[&str]) {
    let checks = report.verdict.checks.iter().filter(|check| !check.holds);
    assert_eq!(checks.clone().map(|check| check.promise).collect::<Vec<_>>(), unchecked, "{report}");
    assert!(checks.clone().all(|check| !check.checked) && !report.passed(), "{report}");
    let text = report.to_string();
    assert!(text.ends_with("\nNOT PROVEN: what is marked ❔ could not be checked"), "{text}");
}

#[tokio::test]
async fn one_that_refuses_everybody_proves_nothing() {
    let report = visit(10, Manner::Refuses, None).await;
    assert_eq!(report.outcomes.refused, 50);
    assert_not_proven(&report, &["P1", "P2", "P3", "P5"]);
}

#[tokio::test]
async fn one_that_is_open_and_says_that_it_is_not() {
    let report = visit(10, Manner::Denies, None).await;
    assert_eq!(report.outcomes.not_active, 50);
    assert_not_proven(&report, &["P5"]);
}

#[tokio::test]
async fn one_that_was_reset_meanwhile_is_not_judged() {
    assert_not_proven(&visit(10, Manner::Resets, None).await, &["P1", "P2", "P3", "P4", "P5"]);
}

#[tokio::test]
async fn one_that_falls_silent_is_not_said_to_have_broken_a_promise() {
    assert_not_proven(&visit(10, Manner::FallsSilent, None).await, &["P1", "P4"]);
}

#[tokio::test]
async fn one_that_stammers_is_asked_again() {
    // A connection that the server closed just when the status was asked for failed the run.
    let report = visit(10, Manner::Stammers, None).await;
    assert!(report.passed(), "{report}");
}

#[tokio::test]
async fn one_that_is_slow_to_say_what_users_hold_is_not_waited_for() {
    let report = visit(10, Manner::LooksUpSlowly(Duration::from_millis(700)), None).await;
    assert!(report.passed(), "{report}");
    let figures = &report.verdict.checks[2].figures;
    assert!(figures.contains(" of 10 buyers looked up before the time for it was over, "), "{figures}");
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
    assert_eq!((report.outcomes.success, report.total_requests, report.never_sent), (10, 20, 0));
    assert!(report.response_time.max_ms < 999.0, "the time-out is no response time: {report}");
    assert!(report.requests_per_second <= 16.0, "16 were answered in a second: {report}");
    assert!(report.to_string().contains("\n   (of the 16 answered; 4 more were not)\n"), "{report}");
}

#[tokio::test]
async fn one_that_answers_nobody_cannot_hold_the_run() {
    let shop = Shop::open(10, Manner::HangsEvery(1)).await;
    let load = Load::OpenLoop { rate_per_second: 1_000.0, duration: Duration::from_millis(100) };
    let timeout = Duration::from_millis(500);
    let options = Options { load, timeout, max_connections: 1, ..Options::new(&shop.url, "sale_1", "run") };
    let report = run(options).await.expect("a report");
    assert_unanswered(&report, report.total_requests, "no reply within 500ms");
    assert!(report.never_sent >= 90, "{report}");
    assert_eq!(report.total_requests + report.never_sent, 100, "{report}");
    assert_eq!(report.never_sent_reasons[0].reason, "no free connection within 500ms");
    assert_eq!(report.requests_per_second, 0.0, "nothing was answered: {report}");
    assert!(report.elapsed_seconds < 10.0, "100 time-outs would take 50 s: {report}");
}

#[tokio::test]
async fn one_that_answers_nonsense() {
    assert_unanswered(&visit(10, Manner::Babbles, None).await, 50, r#"HTTP 500: {"message":"oops"}"#);
}
