//! Opening a ledger: what is found is said, and what cannot be trusted is refused with a clear message.

use std::{fs, path::Path, sync::Arc};

use flashsale_core::{conformance::Harness, order::Ending};
use flashsale_embedded::{Embedded, FILE_NAME, Folder, Found, OpenError};
use tempfile::TempDir;

use crate::support::{Bench, CountingIds, StandingClock, number, outsider};

fn open(dir: &Path) -> Result<Found, OpenError> {
    let folder = Folder::open(dir).expect("the folder is free");
    let (clock, ids): (Arc<StandingClock>, Arc<CountingIds>) = Default::default();
    Embedded::open(&folder, clock, ids).map(|embedded| embedded.found())
}

/// The folder of a sale of three units, whose first two are held.
async fn stopped() -> TempDir {
    let bench = Bench::start().await;
    let sale = bench.sale("kept", 3).await;
    bench.reserve(&sale, 1).await;
    bench.reserve(&sale, 2).await;
    bench.stop().0
}

/// Takes away what guards the ledger, and then does what it guards against.
fn damage(dir: &Path, sql: &str) {
    let outsider = outsider(&dir.join(FILE_NAME));
    let guards = "DROP TRIGGER orders_keep_their_unit; DROP TRIGGER orders_stay_within_the_stock; \
         DROP TRIGGER stock_stays_above_held_units; DROP INDEX one_live_order_a_user; \
         DROP INDEX one_live_order_a_unit;";
    outsider.execute_batch(guards).expect(guards);
    outsider.execute_batch(sql).expect(sql);
}

#[tokio::test]
async fn a_start_says_what_it_found() {
    let bench = Bench::start().await;
    assert_eq!(bench.embedded.found(), Found::default());
    let sale = bench.sale("kept", 9).await;
    bench.sale("empty", 9).await;
    let mut held = Vec::new();
    for buyer in 0..6 {
        held.push(bench.reserve(&sale, buyer).await);
    }
    bench.store().confirm(&held[..2]).await.unwrap();
    assert!(bench.inventory().release(&held[3], Ending::Cancelled).await.unwrap());
    let bench = bench.restart();
    let found = bench.embedded.found();
    assert_eq!(found, Found { sales: 2, confirmed: 2, reserved: 3 });
    let said = "2 sales, 2 confirmed orders, 3 reservations still to be confirmed";
    assert_eq!(found.to_string(), said);
}

#[tokio::test]
async fn a_sound_ledger_opens_again_and_again() {
    let dir = stopped().await;
    for _ in 0..2 {
        assert_eq!(open(dir.path()).unwrap(), Found { sales: 1, confirmed: 0, reserved: 2 });
    }
}

#[tokio::test]
async fn a_ledger_that_contradicts_itself_is_refused_with_the_reason() {
    for (sql, reason) in [
        ("UPDATE orders SET unit = 1", "unit 1 is held twice"),
        ("UPDATE orders SET user_id = 'user-1'", "user user-1 holds two units"),
        ("UPDATE orders SET unit = 7 WHERE unit = 2", "unit 7 is none of the stock"),
        ("UPDATE sales SET total_stock = 1", "unit 2 is none of the stock"),
        ("UPDATE orders SET epoch = 2 WHERE unit = 2", "an order of epoch 2"),
    ] {
        let dir = stopped().await;
        damage(dir.path(), sql);
        let refused = open(dir.path()).expect_err(sql);
        assert!(matches!(refused, OpenError::Damaged(_)), "{refused:?}");
        assert_eq!(refused.to_string(), format!("the record of sale kept is damaged: {reason}"));
    }
}

#[tokio::test]
async fn a_ledger_with_a_word_that_means_nothing_is_refused() {
    for sql in [
        "UPDATE orders SET id = 'no uuid' WHERE unit = 1",
        "UPDATE orders SET reserved_at = 'yesterday' WHERE unit = 1",
        "UPDATE sales SET starts_at = '0'",
    ] {
        let dir = stopped().await;
        damage(dir.path(), sql);
        let refused = open(dir.path()).expect_err(sql);
        assert!(matches!(refused, OpenError::Sqlite { .. }), "{refused:?}");
        assert!(refused.to_string().contains(FILE_NAME), "{refused}");
    }
}

#[tokio::test]
async fn a_ledger_of_a_newer_program_is_refused_and_left_alone() {
    let dir = stopped().await;
    let connection = outsider(&dir.path().join(FILE_NAME));
    connection.pragma_update(None, "user_version", 99).unwrap();
    let refused = open(dir.path()).expect_err("a newer ledger");
    assert!(matches!(refused, OpenError::TooNew { found: 99, .. }), "{refused:?}");
    let said = refused.to_string();
    assert!(said.contains("schema version 99") && said.contains("use the newer program"), "{said}");
    assert_eq!(number(&connection, "SELECT user_version FROM pragma_user_version"), 99);
    assert_eq!(number(&connection, "SELECT count(*) FROM orders"), 2);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    let contents = "This is a letter, and no database. ".repeat(200);
    fs::write(&file, &contents).unwrap();
    let said = open(dir.path()).expect_err("no database").to_string();
    assert!(said.contains(&file.display().to_string()), "{said}");
    assert!(said.contains("file is not a database"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), contents);
}

#[tokio::test]
async fn a_database_of_another_program_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(FILE_NAME);
    rusqlite::Connection::open(&file).unwrap().execute_batch("CREATE TABLE letters (text TEXT)").unwrap();
    let before = fs::read(&file).unwrap();
    let refused = open(dir.path()).expect_err("not ours");
    assert!(matches!(refused, OpenError::Foreign { .. }), "{refused:?}");
    assert!(refused.to_string().contains("another program"), "{refused}");
    assert_eq!(fs::read(&file).unwrap(), before);
}
