//! The commands on the cluster profile.

use super::stage::{Addresses, Stage};
use crate::server::{flashsale, run};

#[test]
fn what_is_missing_or_wrong_is_said_by_name_and_without_passwords() {
    let cluster = |more: &[&str]| {
        let mut command = flashsale();
        let dir = tempfile::tempdir().expect("a folder");
        command.args(["api", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path()).args(more);
        run(command)
    };
    let nowhere = "postgres://ada:s3cret@127.0.0.1:1/shop?password=s3cret";
    let stage = Stage::empty(Addresses::shared());
    let own = &stage.addresses;
    for (arguments, words) in [
        (vec![], vec!["--database-url", "postgres://"]),
        (vec!["--database-url", nowhere], vec!["--redis-url", "redis://"]),
        (
            vec!["--database-url", "mysql://ada:s3cret@db/shop"],
            vec!["--database-url", "mysql://db/shop", "postgres://"],
        ),
        (
            vec!["--database-url", nowhere, "--redis-url", &own.redis, "--amqp-url", ""],
            vec!["--amqp-url is empty", "amqp://"],
        ),
        (
            vec!["--database-url", nowhere, "--redis-url", &own.redis, "--amqp-url", &own.amqp],
            vec!["cannot use PostgreSQL at postgres://127.0.0.1:1/shop", "Connection refused"],
        ),
        (
            vec![
                "--database-url",
                &own.database,
                "--redis-url",
                "redis://:s3cret@127.0.0.1:1",
                "--amqp-url",
                "amqp://ada:s3cret@127.0.0.1:1/x",
            ],
            vec!["cannot use Redis at redis://127.0.0.1:1"],
        ),
    ] {
        let ended = cluster(&arguments);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for word in words {
            assert!(ended.err.contains(word), "{word}: {ended:?}");
        }
        assert!(!ended.err.contains("s3cret"), "{ended:?}");
    }
}

#[test]
fn every_command_works_on_the_stores_themselves() {
    let stage = Stage::empty(Addresses::shared());
    let good = |arguments: &[&str]| {
        let ended = stage.tell(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        ended.out
    };
    assert!(good(&["migrate"]).contains("has the form that this version needs"));
    assert_eq!(good(&["seed"]), "Made sale_1, sale_2, sale_3.\n");
    assert_eq!(good(&["seed"]), "The three sales were there already.\n");
    assert!(good(&["sales", "list"]).contains("sale_2"));
    good(&["sales", "pause", "sale_1"]);
    assert!(good(&["sales", "list", "--json"]).contains("\"paused\": true"));
    assert_eq!(good(&["reset", "--sale", "sale_1"]), "Sale sale_1 has been reset.\n");
    assert!(good(&["verify"]).ends_with("All promises hold.\n"));
    let doctor = good(&["doctor", "--listen", "127.0.0.1:0"]);
    for word in ["database", "redis", "rabbitmq", "promise", "survive the loss of Redis"] {
        assert!(doctor.contains(word), "{word}: {doctor}");
    }
    let unknown = stage.tell(&["reset", "--sale", "none"]);
    assert!(unknown.code == Some(1) && unknown.err.contains("There is no sale none"), "{unknown:?}");
}

/// Two databases on the keys of one: neither would ever be right.
#[test]
fn the_keys_of_another_installation_are_refused() {
    let stage = Stage::empty(Addresses::shared());
    assert_eq!(stage.tell(&["seed"]).code, Some(0));
    let other = Stage::empty(Addresses::shared());
    let mut command = other.command(&["sales", "list", "--profile", "cluster"]);
    let dir = tempfile::tempdir().expect("a folder");
    command.env("FLASHSALE_NAMESPACE", &stage.namespace).env("FLASHSALE_DATA_DIR", dir.path());
    let refused = run(command);
    assert!(refused.code == Some(1) && refused.err.contains("another database"), "{refused:?}");
    let mut command = other.command(&["doctor", "--profile", "cluster", "--listen", "127.0.0.1:0"]);
    command.env("FLASHSALE_NAMESPACE", &stage.namespace).env("FLASHSALE_DATA_DIR", dir.path());
    let seen = run(command);
    assert!(seen.code == Some(1) && seen.out.contains("✗ keys: "), "{seen:?}");
}

#[test]
fn the_doctor_says_what_each_service_said() {
    let mut stage = Stage::empty(Addresses::shared());
    let doctor = ["doctor", "--listen", "127.0.0.1:0"];
    let database = stage.addresses.database.clone();
    stage.addresses.database = format!("{database}_not_there");
    stage.addresses.amqp = stage.addresses.amqp.replace("guest:guest", "guest:s3cret");
    let seen = stage.tell(&doctor);
    assert_eq!(seen.code, Some(1), "{seen:?}");
    for words in ["_not_there\" does not exist", "ACCESS_REFUSED"] {
        assert!(seen.out.contains(words), "{words}: {seen:?}");
    }
    assert!(!seen.out.contains("s3cret"), "{seen:?}");

    stage.addresses = Addresses { database, ..Addresses::shared() };
    assert!(stage.tell(&doctor).out.contains("records: none yet"));
    assert_eq!(stage.tell(&["migrate"]).code, Some(0));
    assert!(stage.tell(&doctor).out.contains("records: of form "));
    stage.set_read_only(true);
    let seen = stage.tell(&doctor);
    assert!(seen.code == Some(1) && seen.out.contains("read-only"), "{seen:?}");
}

/// As a standby does, or a database whose disk is full.
#[test]
fn with_a_database_that_is_read_only_purchases_go_on_and_orders_wait() {
    let mut stage = Stage::empty(Addresses::shared());
    stage.replicas = vec![stage.replica(&[])];
    stage.workers = vec![stage.worker()];
    stage.sale("wait", 5);
    let server = &stage.replicas[0];
    let database = || server.get("/health").json()["services"]["database"]["status"].clone();
    assert_eq!(database(), "up");
    stage.set_read_only(true);
    server.until("the database is down", |_| database() == "down");
    let bought = server.buy("wait", "ada").json();
    assert_eq!(bought["status"], "SUCCESS", "{bought}");
    stage.set_read_only(false);
    server.until("the database is up", |_| database() == "up");
    stage.drained("wait");
    let bought = bought["orderId"].as_str().expect("an order").to_owned();
    assert_eq!(stage.sql("SELECT id FROM orders").trim(), bought);
}

/// A sale that is changed at one replica is so at the other at once, also where that answers from memory.
#[test]
fn replicas_agree() {
    let stage = Stage::new(Addresses::shared());
    stage.sale("agree", 2);
    let [one, other] = &stage.replicas[..] else { panic!("two replicas") };
    let status = |reply: crate::server::Reply| reply.json()["status"].as_str().unwrap_or_default().to_owned();
    assert_eq!(status(one.buy("agree", "ada")), "SUCCESS");
    let known = other.get("/api/v1/sale/agree/user/ada/purchase").json();
    assert_eq!(known["purchased"], true, "known at once: {known}");
    assert_eq!(status(other.buy("agree", "ada")), "ALREADY_PURCHASED");
    assert_eq!(status(other.buy("agree", "bob")), "SUCCESS");
    for replica in [one, other] {
        // Often enough that both reject from memory by the end.
        for number in 0..200 {
            assert_eq!(status(replica.buy("agree", &format!("late-{number}"))), "SOLD_OUT");
        }
        assert_eq!(status(replica.buy("agree", "ada")), "ALREADY_PURCHASED");
    }
    let more = one.admin("PATCH", "/api/v1/admin/sales/agree", &serde_json::json!({ "totalStock": 3 }));
    assert_eq!(more.status, 200, "{more:?}");
    other.until("the other replica offers the unit", |other| status(other.buy("agree", "cyd")) != "SOLD_OUT");
    assert_eq!(one.status("agree")["totalSold"], 3);
    let pause = one.admin("POST", "/api/v1/admin/sales/agree/pause", &serde_json::Value::Null);
    assert_eq!(pause.status, 200, "{pause:?}");
    other.until("the other replica is paused", |other| other.buy("agree", "dan").status == 400);
}
