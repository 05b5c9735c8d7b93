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
         PRAGMA ignore_check_constraints = ON;";
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
        ("UPDATE live_orders SET user_id = 'user-1'", "user user-1 holds two units"),
        ("UPDATE live_orders SET key = key + 5 WHERE user_id = 'user-2'", "unit 7 is none of the stock"),
        ("UPDATE live_orders SET key = key - 1", "unit 0 is none of the stock"),
        ("UPDATE sales SET total_stock = 1", "unit 2 is none of the stock"),
        ("UPDATE live_orders SET epoch = 2 WHERE user_id = 'user-2'", "an order of epoch 2"),
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
        "UPDATE live_orders SET id = x'00' WHERE user_id = 'user-1'",
        "UPDATE live_orders SET user_id = '' WHERE user_id = 'user-1'",
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

/// A ledger as it was before live and ended orders were apart.
fn old_ledger(dir: &Path) {
    let connection = rusqlite::Connection::open(dir.join(FILE_NAME)).expect("a file");
    for migration in [
        include_str!("../../migrations/0001_ledger.sql"),
        include_str!("../../migrations/0002_places_of_orders.sql"),
        include_str!("../../migrations/0003_products_and_searches.sql"),
        include_str!("../../migrations/0004_operator_log.sql"),
    ] {
        connection.execute_batch(migration).expect("a migration");
    }
    connection.pragma_update(None, "application_id", 0x466C_7368).expect("the mark");
    connection.pragma_update(None, "user_version", 4).expect("the version");
    let sale = |no: u32| {
        format!(
            "INSERT INTO sales (no, id, name, total_stock, starts_at, ends_at, epoch, last_place, created_at, updated_at) \
             VALUES ({no}, 'sale_{no}', 'Old', 5, '2026-01-01T00:00:00.000Z', '2027-01-01T00:00:00.000Z', 1, 9, '', '');"
        )
    };
    let order = |seq: u32, sale: u32, unit: u32, rest: &str| {
        format!(
            "INSERT INTO orders (seq, id, sale_id, epoch, unit, user_id, place, reserved_at, created_at, status, \
             confirmed_at, released_at) VALUES ({seq}, '0198b7a0-5d5c-7c1e-8d6a-00000000000{seq}', 'sale_{sale}', 1, {unit}, \
             'user-{seq}', {seq}, '2026-02-03T04:05:06.07{seq}Z', '2026-02-03T04:05:06.07{seq}Z', {rest});"
        )
    };
    let ended = "INSERT INTO trail (key, kind, epoch, at, user_id, unit, order_id) VALUES \
         ((1 << 40) + 8, 7, 1, 0, 'user-3', 2, '0198b7a0-5d5c-7c1e-8d6a-000000000003');";
    let rows = [
        sale(1),
        sale(2),
        order(1, 1, 1, "'CONFIRMED', '2026-02-03T04:05:08.900Z', NULL"),
        order(2, 2, 1, "'RESERVED', NULL, NULL"),
        order(3, 1, 2, "'CANCELLED', NULL, '2026-02-03T04:05:09.001Z'"),
        order(4, 1, 2, "'RESERVED', NULL, NULL"),
        ended.to_owned(),
    ];
    connection.execute_batch(&rows.concat()).expect("rows");
}

#[tokio::test]
async fn the_orders_of_an_older_ledger_are_all_there_as_they_were() {
    const ORDERS: &str = "SELECT group_concat(o, char(10)) FROM (SELECT concat_ws(' ', id, sale_id, epoch, unit, user_id, \
         status, reserved_at, created_at, confirmed_at, released_at, place) AS o FROM orders ORDER BY id)";
    let dir = tempfile::tempdir().unwrap();
    old_ledger(dir.path());
    let file = dir.path().join(FILE_NAME);
    let orders = || -> String { outsider(&file).query_row(ORDERS, [], |row| row.get(0)).unwrap() };
    let before = orders();
    assert_eq!(before.lines().count(), 4, "{before}");
    assert_eq!(open(dir.path()).unwrap(), Found { sales: 2, confirmed: 1, reserved: 2 });
    assert_eq!(orders(), before);
}
