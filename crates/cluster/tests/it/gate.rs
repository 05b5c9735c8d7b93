//! A sale is changed while it sells.

use flashsale_core::{
    Error,
    conformance::{Harness, check_conserved},
    sale::SaleChange,
};
use sqlx::{Connection, PgConnection};

use crate::support::{Bench, user, wait};

/// The records are slow to take a smaller stock. Nothing is decided meanwhile, by the old stock or by the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_decided_while_a_sale_is_changed() {
    let bench = Bench::start().await;
    let sale = bench.open("gate", 5).await;
    bench.reserve(&sale, 1).await;
    let mut records = PgConnection::connect(&bench.site.database_url()).await.expect("PostgreSQL answers");
    let mut slow = records.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM sales WHERE id = 'gate' FOR UPDATE").execute(&mut *slow).await.expect("locked");

    let (inventory, changed) = (bench.inventory(), sale.clone());
    let change = SaleChange { total_stock: Some(1), ..SaleChange::default() };
    let changing = tokio::spawn(async move { inventory.change(&changed, change).await });
    let gate = redis::cmd("HGET").arg(format!("{}:sale:{sale}:meta", bench.site.name)).arg("gate").to_owned();
    let closed = async || {
        gate.query_async::<String>(&mut bench.redis().await).await.is_ok_and(|gate| !gate.is_empty())
    };
    wait("the gate is closed", closed).await;
    let told = bench.inventory().attempt(&sale, user(2)).await;
    assert!(matches!(told, Err(Error::Unavailable { .. })), "{told:?}");

    slow.rollback().await.expect("let go");
    let status = changing.await.expect("no panic").expect("the change");
    assert_eq!((status.sale.total_stock, status.sold()), (1, 1));
    wait("decisions again", async || bench.inventory().attempt(&sale, user(2)).await.is_ok()).await;
    assert_eq!(gate.query_async::<String>(&mut bench.redis().await).await.expect("an answer"), "");
    check_conserved(&bench, &sale).await;
}
