//! The seed's stress test on the cluster: two replicas, three workers, and the seed's checks, word for word.

use std::process::Command;

use super::{
    services::{Redis, Service, output},
    stage::{Addresses, Stage, wait},
};
use crate::server::{flashsale, run};

#[test]
fn the_seeds_run_gives_the_seeds_figures() {
    let redis = Redis::new();
    let mut stage = Stage::empty(Addresses { redis: redis.url(), ..Addresses::shared() });
    for _ in 0..2 {
        let replica = stage.replica(&[]);
        stage.replicas.push(replica);
    }
    stage.workers = (0..3).map(|_| stage.worker()).collect();
    let seeded = stage.tell(&["seed"]);
    assert_eq!(seeded.code, Some(0), "{seeded:?}");
    let mut stress = flashsale();
    stress.args(["stress", "--rate", "2000", "--duration", "2s", "--json", "--url", &stage.replicas[0].url]);
    let stress = run(stress);
    assert_eq!(stress.code, Some(0), "{stress:?}");
    stage.drained("sale_1");
    let trail = "SELECT event_type, COUNT(*) FROM order_audit_trail WHERE sale_id = 'sale_1' \
         GROUP BY event_type ORDER BY COUNT(*) DESC, event_type";
    let expected = "ATTEMPTED|4000\nREJECTED_SOLD_OUT|3900\nCONFIRMED|100\nRESERVED|100";
    wait("the trail is whole", || stage.sql(trail) == expected, || stage.sql(trail));
    let confirmed =
        "SELECT COUNT(*) as confirmed_orders FROM orders WHERE sale_id = 'sale_1' AND status = 'CONFIRMED'";
    assert_eq!(stage.sql(confirmed), "100");
    let twice = "SELECT user_id, COUNT(*) as purchase_count FROM orders WHERE sale_id = 'sale_1' \
         GROUP BY user_id HAVING COUNT(*) > 1";
    assert_eq!(stage.sql(twice), "");
    let key = |what: &str| format!("{}sale:sale_1:{what}", stage.namespace);
    let cli = |words: &[&str]| output(Command::new("redis-cli").args(["-u", &redis.url()]).args(words));
    assert_eq!(cli(&["GET", &key("stock")]), "0");
    assert_eq!(cli(&["SCARD", &key("users")]), "100");
}
