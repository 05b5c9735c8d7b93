//! The SQL checks of the seed document, word for word, on the file of a small sell-out.

use flashsale_core::{
    conformance::Harness,
    inventory::Decision,
    worker::{OrderWorker, Work},
};
use rusqlite::{Connection, Row};

use crate::support::{Bench, user};

const CONFIRMED_ORDERS: &str = "SELECT COUNT(*) as confirmed_orders 
FROM orders 
WHERE sale_id = <sale_id> AND status = 'CONFIRMED';";

const DUPLICATE_USERS: &str = "SELECT user_id, COUNT(*) as purchase_count 
FROM orders 
WHERE sale_id = <sale_id>
GROUP BY user_id 
HAVING COUNT(*) > 1;";

const OVERSELLING: &str = "SELECT 
    s.total_stock,
    COUNT(o.id) as total_orders,
    s.total_stock - COUNT(o.id) as remaining,
    CASE 
        WHEN COUNT(o.id) > s.total_stock THEN '❌ OVERSOLD!'
        ELSE '✅ OK'
    END as status
FROM sales s
LEFT JOIN orders o ON s.id = o.sale_id
WHERE s.id = <sale_id>
GROUP BY s.id, s.total_stock;";

const AUDIT_TRAIL: &str = "SELECT event_type, COUNT(*) 
FROM order_audit_trail 
WHERE sale_id = <sale_id> 
GROUP BY event_type 
ORDER BY COUNT(*) DESC;";

fn rows<T>(connection: &Connection, sql: &str, read: impl Fn(&Row<'_>) -> rusqlite::Result<T>) -> Vec<T> {
    let mut statement = connection.prepare(&sql.replace("<sale_id>", "'sale_1'")).expect(sql);
    statement.query_map([], |row| read(row)).expect(sql).collect::<rusqlite::Result<_>>().expect(sql)
}

fn check(connection: &Connection) {
    assert_eq!(rows(connection, CONFIRMED_ORDERS, |row| row.get::<_, i64>(0)), [10]);
    let duplicates = rows(connection, DUPLICATE_USERS, |row| row.get::<_, String>(0));
    assert_eq!(duplicates, [] as [String; 0]);
    let overselling = rows(connection, OVERSELLING, |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?, row.get::<_, String>(3)?))
    });
    assert_eq!(overselling, [(10, 10, 0, "✅ OK".to_owned())]);
    let mut audit =
        rows(connection, AUDIT_TRAIL, |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)));
    let counts: Vec<_> = audit.iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [100, 90, 10, 10]);
    audit.sort();
    let expected = [("ATTEMPTED", 100), ("CONFIRMED", 10), ("REJECTED_SOLD_OUT", 90), ("RESERVED", 10)];
    assert_eq!(audit, expected.map(|(event, count)| (event.to_owned(), count)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seeds_sql_checks_run_unchanged_on_the_file() {
    let bench = Bench::start().await;
    let sale = bench.sale("sale_1", 10).await;
    // Another sale beside it, which must not be counted.
    let beside = bench.sale("sale_2", 10).await;
    bench.reserve(&beside, 1).await;

    let worker = OrderWorker::new(bench.queue(), bench.store(), bench.clock.clone());
    let worker = tokio::spawn(worker.run());
    let attempts: Vec<_> = (0..100)
        .map(|buyer| {
            let (inventory, sale) = (bench.inventory(), sale.clone());
            tokio::spawn(async move { inventory.attempt(&sale, user(buyer)).await })
        })
        .collect();
    let mut decisions = Vec::new();
    for attempt in attempts {
        decisions.push(attempt.await.unwrap().unwrap());
    }
    assert_eq!(decisions.iter().filter(|decision| **decision == Decision::SoldOut).count(), 90);
    bench.embedded.close_queue();
    assert_eq!(worker.await.unwrap(), Work { confirmed: 11, ..Work::default() });

    // Beside the running server, as soon as what it has decided is written…
    bench.store().figures(&sale).await.unwrap();
    check(&bench.outsider());
    // …and on the file that it leaves behind.
    let file = bench.file();
    let _folder = bench.stop();
    check(&Connection::open(&file).unwrap());
}
