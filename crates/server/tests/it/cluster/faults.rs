//! Each part is killed, restarted, emptied, cut off and paused under load, and nothing that was acknowledged is lost.

use std::{fs, thread, time::Duration};

use tempfile::NamedTempFile;

use super::{
    load::Crowd,
    services::{Postgres, RabbitMq, Redis, Service},
    stage::{Addresses, Stage, Worker, wait},
};

/// Purchases before a fault, and after it.
const SOME: u64 = 300;
/// For how long a service sleeps.
const NAP: Duration = Duration::from_secs(3);

/// Load before, during and after a fault, and the comparison.
fn story(stage: &mut Stage, name: &str, fault: impl FnOnce(&mut Stage, &Crowd)) {
    let crowd = Crowd::come(stage);
    crowd.await_successes(SOME, stage);
    fault(stage, &crowd);
    crowd.await_successes(SOME, stage);
    crowd.leave_and_compare(stage, name);
}

fn with_redis(redis: &Redis) -> Stage {
    Stage::new(Addresses { redis: redis.url(), ..Addresses::shared() })
}

fn with_broker(broker: &RabbitMq) -> Stage {
    Stage::new(Addresses { amqp: broker.url(), ..Addresses::shared() })
}

fn with_database(postgres: &Postgres) -> Stage {
    Stage::new(Addresses { database: postgres.url(), ..Addresses::shared() })
}

#[test]
fn replicas_are_killed_again_and_again() {
    let mut stage = Stage::new(Addresses::shared());
    story(&mut stage, "kill -9 of API replicas", |stage, crowd| {
        for round in 0..6 {
            let victim = stage.replicas.remove(round % 2);
            victim.kill();
            crowd.go_to(stage);
            let next = stage.replica(&[]);
            stage.replicas.push(next);
            crowd.go_to(stage);
            crowd.await_successes(40, stage);
        }
    });
}

#[test]
fn workers_are_killed_again_and_again() {
    let mut stage = Stage::new(Addresses::shared());
    story(&mut stage, "kill -9 of workers", |stage, crowd| {
        for _ in 0..6 {
            stage.workers.remove(0).kill();
            crowd.await_successes(60, stage);
            let next = stage.worker();
            stage.workers.push(next);
        }
    });
}

#[test]
fn workers_are_stopped_and_started() {
    let mut stage = Stage::new(Addresses::shared());
    story(&mut stage, "SIGTERM of workers", |stage, crowd| {
        for _ in 0..4 {
            assert!(stage.workers.remove(0).terminate(), "it ends well");
            crowd.await_successes(60, stage);
            let next = stage.worker();
            stage.workers.push(next);
        }
    });
}

/// Redis sleeps, so that a worker has committed and cannot mark, and so not acknowledge. Then it is killed.
#[test]
fn a_worker_is_killed_between_commit_and_acknowledgement() {
    let redis = Redis::new();
    let mut stage = with_redis(&redis);
    stage.workers.clear();
    story(&mut stage, "kill -9 of a worker between COMMIT and acknowledgement", |stage, crowd| {
        crowd.await_successes(SOME, stage);
        let held = || stage.sql("SELECT count(*) FROM orders").parse::<u64>().expect("a number");
        let before = held();
        thread::scope(|scope| {
            scope.spawn(|| redis.pause(NAP));
            let worker = stage.worker();
            wait("a worker commits", || held() > before, String::new);
            worker.kill();
        });
        let worker = stage.worker();
        stage.workers.push(worker);
    });
}

#[test]
fn redis_is_restarted_with_its_append_only_file() {
    let mut redis = Redis::new();
    let mut stage = with_redis(&redis);
    let before = stage.generation();
    story(&mut stage, "Redis killed and restarted with AOF", |_, _| redis.restart());
    assert_eq!(stage.generation(), before + 1, "it is rebuilt once, by one of the replicas");
}

#[test]
fn redis_is_emptied() {
    let redis = Redis::new();
    let mut stage = with_redis(&redis);
    let before = stage.generation();
    story(&mut stage, "FLUSHALL", |_, _| {
        redis.say(&["FLUSHALL"]);
    });
    assert_eq!(stage.generation(), before + 1, "two replicas recover at once, and one of them does it");
}

/// Nobody is told SUCCESS of what the broker has not confirmed: it sleeps, and never wakes up, and Redis forgets.
#[test]
fn redis_is_emptied_and_the_broker_dies_with_what_it_had_not_read() {
    let (redis, mut broker) = (Redis::new(), RabbitMq::new());
    let mut stage = Stage::new(Addresses { redis: redis.url(), amqp: broker.url(), ..Addresses::shared() });
    broker.settle();
    for replica in &stage.replicas {
        let connected = || replica.get("/health").json()["status"] == "up";
        wait("a replica is connected to RabbitMQ", connected, || replica.log());
    }
    story(&mut stage, "FLUSHALL, and RabbitMQ killed with messages unread", |_, _| {
        broker.stop();
        // Long enough for everybody to wait for a confirmation, and shorter than it takes until the broker counts as away:
        // from then on SUCCESS rests on Redis, and says so.
        thread::sleep(Duration::from_millis(500));
        redis.say(&["FLUSHALL"]);
        broker.restart();
    });
}

#[test]
fn redis_is_replaced_by_an_empty_one() {
    let mut redis = Redis::new();
    let mut stage = with_redis(&redis);
    story(&mut stage, "Redis replaced by an empty one", |_, _| {
        redis.kill();
        redis.wipe();
        redis.start();
    });
}

#[test]
fn the_function_library_is_flushed() {
    let redis = Redis::new();
    let mut stage = with_redis(&redis);
    story(&mut stage, "FUNCTION FLUSH", |_, _| {
        redis.say(&["FUNCTION", "FLUSH"]);
    });
}

/// One key alone is lost: what is left does not add up, and nothing is decided by it.
#[test]
fn single_keys_are_lost() {
    let redis = Redis::new();
    let mut stage = with_redis(&redis);
    story(&mut stage, "single keys deleted", |stage, crowd| {
        for (sale, key) in
            [("rush", "stock"), ("rush", "users"), ("rush", "orders"), ("rush", "meta"), ("tight", "stock")]
        {
            redis.say(&["DEL", &format!("{}sale:{sale}:{key}", stage.namespace)]);
            crowd.await_successes(30, stage);
        }
        redis.say(&["DEL", &format!("{}flashsale:sales", stage.namespace)]);
    });
}

/// A Redis that starts refuses everything until it has read its data. Whoever starts meanwhile waits for it, and can be told to
/// stop while it does.
#[test]
fn replicas_and_workers_wait_for_a_redis_that_reads_its_data() {
    let mut redis = Redis::new();
    redis.restart_slowly();
    let stage = Stage::empty(Addresses { redis: redis.url(), ..Addresses::shared() });
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().to_str().expect("its name is text");
    let (worker, other) = (stage.starting(&["worker"]), stage.starting(&["worker"]));
    let replica = stage.starting(&["api", "--listen", "127.0.0.1:0", "--data-dir", folder]);
    let says = |(_, log): &(Worker, NamedTempFile), words: &str| {
        let log = || fs::read_to_string(log.path()).expect("its log");
        wait(words, || log().contains(words), log);
    };
    for process in [&worker, &other, &replica] {
        says(process, "Redis is reading its data");
    }
    other.0.signal("TERM");
    says(&other, "goodbye");
    redis.be_quick();
    says(&worker, "working on the order queue");
    says(&replica, "listening on");
}

#[test]
fn redis_sleeps() {
    let redis = Redis::new();
    let mut stage = with_redis(&redis);
    story(&mut stage, "Redis paused for 3 s", |_, _| redis.pause(NAP));
}

#[test]
fn rabbitmq_is_killed_and_restarted() {
    let mut broker = RabbitMq::new();
    let mut stage = with_broker(&broker);
    broker.settle();
    story(&mut stage, "RabbitMQ killed and restarted", |stage, crowd| {
        broker.kill();
        // Sales go on, by Redis' durability, and say so.
        crowd.await_successes(SOME, stage);
        let health = stage.replicas[0].get("/health");
        assert_eq!(health.status, 200, "{health:?}");
        assert_eq!(health.json()["status"], "degraded", "{health:?}");
        assert_eq!(health.json()["services"]["rabbitmq"]["status"], "down", "{health:?}");
        let reply = stage.replicas[0].buy("rush", "somebody").json();
        assert_eq!(reply["durability"], "RESERVED", "{reply}");
        let again = stage.replicas[0].buy("rush", "somebody").json();
        assert_eq!((&again["status"], &again["orderId"]), (&"ALREADY_PURCHASED".into(), &reply["orderId"]));
        crowd.note("rush", "somebody", reply["orderId"].as_str().expect("an order"));
        broker.start();
    });
}

#[test]
fn the_order_queue_is_deleted() {
    let broker = RabbitMq::new();
    let mut stage = with_broker(&broker);
    stage.workers.clear();
    story(&mut stage, "the order queue deleted, with all that was in it", |stage, crowd| {
        crowd.await_successes(SOME, stage);
        broker.ctl(&["delete_queue", &format!("{}purchase_queue", stage.namespace)]);
        crowd.await_successes(SOME, stage);
        stage.workers = (0..2).map(|_| stage.worker()).collect();
    });
}

#[test]
fn rabbitmq_sleeps() {
    let broker = RabbitMq::new();
    let mut stage = with_broker(&broker);
    story(&mut stage, "RabbitMQ paused for 3 s", |_, _| broker.pause(NAP));
}

#[test]
fn postgresql_is_restarted() {
    let mut postgres = Postgres::new();
    let mut stage = with_database(&postgres);
    story(&mut stage, "PostgreSQL killed and restarted", |stage, crowd| {
        postgres.kill();
        // Sales go on without it.
        crowd.await_successes(SOME, stage);
        postgres.start();
    });
}

#[test]
fn postgresql_sleeps() {
    let postgres = Postgres::new();
    let mut stage = with_database(&postgres);
    story(&mut stage, "PostgreSQL paused for 3 s", |_, _| postgres.pause(NAP));
}

/// Connections are cut again and again, whatever they are doing: also between COMMIT and its answer.
#[test]
fn connections_to_postgresql_are_cut() {
    let mut stage = Stage::new(Addresses::shared());
    story(&mut stage, "connections to PostgreSQL cut 40 times", |stage, crowd| {
        for _ in 0..40 {
            stage.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            );
            crowd.await_successes(10, stage);
        }
    });
}

/// A worker sleeps with messages in hand while Redis is lost: the gate stays closed until they are given back.
#[test]
fn redis_is_emptied_while_a_worker_sleeps() {
    let redis = Redis::new();
    let mut stage = with_redis(&redis);
    story(&mut stage, "FLUSHALL while a worker sleeps with messages in hand", |stage, crowd| {
        let sleeper = stage.workers.remove(0);
        sleeper.signal("STOP");
        crowd.await_successes(60, stage);
        redis.say(&["FLUSHALL"]);
        thread::sleep(NAP);
        let ready = stage.replicas[0].get("/health/ready");
        assert_eq!(ready.status, 503, "the gate stays closed: {ready:?}");
        sleeper.signal("CONT");
        stage.workers.push(sleeper);
    });
}

/// A replica sleeps through the loss of Redis and its recovery: what it had decided before is worth nothing after.
#[test]
fn a_replica_sleeps_through_a_recovery() {
    let redis = Redis::new();
    let mut stage = with_redis(&redis);
    story(&mut stage, "a replica sleeps through FLUSHALL and recovery", |stage, crowd| {
        let before = stage.generation();
        stage.replicas[1].signal("STOP");
        redis.say(&["FLUSHALL"]);
        let rebuilt = || stage.generation() > before && stage.replicas[0].get("/health/ready").status == 200;
        wait("the other replica recovers", rebuilt, || stage.replicas[0].log());
        stage.replicas[1].signal("CONT");
        crowd.await_successes(SOME, stage);
    });
}

/// A reset while orders are on their way: nothing of the past arrives afterwards.
#[test]
fn a_sale_is_reset_during_a_drain() {
    let mut stage = Stage::new(Addresses::shared());
    stage.sale("reset", 2_000);
    stage.workers.clear();
    for user in 0..300 {
        assert_eq!(stage.replicas[user % 2].buy("reset", &format!("old-{user}")).json()["status"], "SUCCESS");
    }
    stage.workers = (0..2).map(|_| stage.worker()).collect();
    let reset =
        stage.replicas[0].admin("POST", "/api/v1/admin/reset", &serde_json::json!({ "saleId": "reset" }));
    assert_eq!(reset.status, 200, "{reset:?}");
    for user in 0..300 {
        let user = format!("old-{}", user / 2);
        let reply = stage.replicas[1].buy("reset", &user).json();
        assert!(
            ["SUCCESS", "ALREADY_PURCHASED"].contains(&reply["status"].as_str().expect("a status")),
            "{reply}"
        );
    }
    stage.drained("reset");
    let orders = stage.lines("reset", "orders");
    assert_eq!(orders.len(), 150, "those of after the reset, and no other");
    assert!(orders.iter().all(|order| order["epoch"] == 2));
    let verified = stage.tell(&["verify", "--sale", "reset"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
}
