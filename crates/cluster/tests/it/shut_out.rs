//! A worker that has lost PostgreSQL alone, with messages in hand.

use flashsale_cluster::{Cluster, Secret};
use flashsale_core::conformance::{Harness, check_conserved};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{Bench, Services, user, wait};

/// It cannot store what it has, and gives it back: whoever rebuilds Redis need not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_postgresql_holds_up_no_recovery() {
    let bench = Bench::start().await;
    let sale = bench.open("shut-out", 5).await;
    let role = &bench.site.name;
    let mut admin =
        PgConnection::connect(&Services::shared().database_url).await.expect("PostgreSQL answers");
    let create = AssertSqlSafe(format!("CREATE ROLE {role} SUPERUSER LOGIN"));
    sqlx::query(create).execute(&mut admin).await.expect("a role");
    let mut options = bench.site.options();
    let own = options.database_url.expose().replacen("//", &format!("//{role}@"), 1);
    options.database_url = Secret::from(match own.rsplit_once('@') {
        Some((_, place)) => format!("postgres://{role}@{place}"),
        None => own,
    });
    let worker = Cluster::worker(options).await.expect("the worker opens");
    let held = bench.reserve(&sale, 1).await;
    let queue = worker.queue();
    let delivery = queue.receive().await.expect("a batch").expect("an open queue");
    assert_eq!(delivery.reservations.len(), 1);

    let lock_out = AssertSqlSafe(format!("ALTER ROLE {role} NOLOGIN"));
    sqlx::query(lock_out).execute(&mut admin).await.expect("locked out");
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
    sqlx::query(cut).bind(role).execute(&mut admin).await.expect("cut");
    let working = tokio::spawn(async move {
        loop {
            let _ = queue.receive().await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    });
    bench.forget().await;
    wait("sales go on", async || bench.inventory().attempt(&sale, user(2)).await.is_ok()).await;
    working.abort();
    drop(worker);
    let known = bench.inventory().purchase(&sale, &user(1)).await.expect("a lookup").expect("it is there");
    assert_eq!(known.order_id, held.order_id);
    check_conserved(&bench, &sale).await;
}

/// As after a restart of Redis whose accounts come a little later than it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_redis_did_not_let_in_goes_on_once_it_does() {
    let bench = Bench::start().await;
    let sale = bench.open("locked-out", 5).await;
    let mut admin = bench.redis().await;
    let mut account = async |command: &[&str]| {
        let mut acl = redis::cmd("ACL");
        acl.arg(command).exec_async(&mut admin).await.expect("Redis answers");
    };
    let role = bench.site.name.clone();
    let let_in = ["SETUSER", &role, "on", ">word", "~*", "&*", "+@all"];
    account(&let_in).await;
    let url = bench.site.options().redis_url.expose().replacen("//", &format!("//{role}:word@"), 1);
    let bench = bench.restart_with(|options| options.redis_url = Secret::from(url)).await;
    bench.reserve(&sale, 1).await;

    // Its connections end with the account, and it is told that the password is wrong.
    account(&["DELUSER", &role]).await;
    wait("it is locked out", async || bench.inventory().attempt(&sale, user(2)).await.is_err()).await;
    for _ in 0..100 {
        assert!(bench.inventory().attempt(&sale, user(2)).await.is_err(), "however often it asks");
    }
    account(&let_in).await;
    wait("sales go on", async || bench.inventory().attempt(&sale, user(2)).await.is_ok()).await;
    check_conserved(&bench, &sale).await;
    account(&["DELUSER", &role]).await;
}
