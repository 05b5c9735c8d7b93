//! P3: the plug is pulled again and again, under load, and nothing that was acknowledged is gone.
//!
//! The clients write down what they are told; after each kill -9 the server starts again on the same data
//! folder, and its ledger is compared with what they wrote.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use crate::server::{Server, flashsale};

const ROUNDS: u64 = 25;
const CLIENTS: u64 = 8;
const STOCK: u64 = 2_000;

/// What one client was told, in one round.
#[derive(Default)]
struct Told {
    /// User → order, of every SUCCESS.
    bought: HashMap<String, String>,
    /// Users whose second attempt was answered before a later attempt of this client got a unit: the ledger
    /// keeps the order of decisions, so the rejection must be on record, too.
    repeated: HashSet<String>,
    /// Users whose reply was lost.
    lost: Vec<String>,
    sold_out: u64,
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled_by_pulling_the_plug() {
    let mut server = Server::demo();
    let sale = json!({
        "saleId": "crash", "name": "Crash", "totalStock": STOCK,
        "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z",
    });
    assert_eq!(server.admin("POST", "/api/v1/admin/sales", &sale).status, 201);
    let mut book: HashMap<String, String> = HashMap::new();
    let mut repeated = HashSet::new();
    let mut lost: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let (dir, told) = kill_under_load(server, round);
        server = Server::on(dir, &["--demo"]);
        for told in told {
            book.extend(told.bought);
            repeated.extend(told.repeated);
            lost.extend(told.lost);
        }
        compare(&server, &book, &repeated, round);
    }
    // Whoever lost a reply asks again, and is told the same as the ledger says.
    for user in lost {
        let reply = server.buy("crash", &user).json();
        match reply["status"].as_str() {
            Some("SUCCESS" | "ALREADY_PURCHASED") => {
                let order = reply["orderId"].as_str().expect("an order").to_owned();
                assert_eq!(book.entry(user).or_insert(order.clone()), &order);
            }
            other => assert_eq!(other, Some("SOLD_OUT")),
        }
    }
    compare(&server, &book, &repeated, ROUNDS);
    assert!(book.len() as u64 > ROUNDS * CLIENTS, "the clients hardly bought: {}", book.len());
}

/// P1, P5: the same on a sale that sells out in the middle of it all: exactly the stock, in every run.
#[test]
fn a_sell_out_through_crashes_sells_exactly_the_stock() {
    let mut server = Server::demo();
    let mut book = HashMap::new();
    let mut sold_out = 0;
    let mut round = 0;
    while sold_out == 0 {
        let sale = json!({
            "saleId": "crash", "name": "Crash", "totalStock": 300,
            "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z",
        });
        // The second time it is there already.
        server.admin("POST", "/api/v1/admin/sales", &sale);
        let (dir, told) = kill_under_load(server, 1_000 + round);
        server = Server::on(dir, &["--demo"]);
        for told in told {
            book.extend(told.bought);
            sold_out += told.sold_out;
        }
        compare(&server, &book, &HashSet::new(), round);
        round += 1;
        assert!(round < 100, "it never sells out");
    }
    let status = server.status("crash");
    assert_eq!((&status["remainingStock"], &status["totalSold"]), (&json!(0), &json!(300)));
}

/// Lets the clients buy until enough of them were told SUCCESS, kills the server, and collects what they
/// were told.
fn kill_under_load(server: Server, round: u64) -> (Arc<tempfile::TempDir>, Vec<Told>) {
    // Different in each round, so that the plug is pulled at different moments of the ledger's work.
    let enough = 5 + (round * 37) % 90;
    let replies = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (url, replies) = (server.url.clone(), replies.clone());
            thread::spawn(move || shop(&url, &format!("{round}-{client}"), &replies))
        })
        .collect();
    while replies.load(Ordering::Relaxed) < enough && !clients.iter().all(thread::JoinHandle::is_finished) {
        thread::yield_now();
    }
    let dir = server.kill();
    (dir, clients.into_iter().map(|client| client.join().expect("a client ends")).collect())
}

/// Buys for one new user after the other, each of whom tries twice, until the server is gone or sold out.
fn shop(url: &str, name: &str, replies: &AtomicU64) -> Told {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let attempt = |user: &str| -> Option<Value> {
        let body = json!({ "saleId": "crash", "userId": user }).to_string();
        let request =
            agent.post(format!("{url}/api/v1/sale/purchase")).header("content-type", "application/json");
        serde_json::from_str(&request.send(body).ok()?.body_mut().read_to_string().ok()?).ok()
    };
    let mut told = Told::default();
    let mut twice = HashSet::new();
    for number in 0.. {
        let user = format!("user-{name}-{number}");
        let Some(reply) = attempt(&user) else {
            told.lost.push(user);
            break;
        };
        match reply["status"].as_str() {
            Some("SUCCESS") => {}
            Some("SOLD_OUT") => {
                told.sold_out += 1;
                break;
            }
            _ => panic!("{reply}"),
        }
        let order = reply["orderId"].as_str().expect("an order").to_owned();
        told.repeated.extend(twice.drain());
        told.bought.insert(user.clone(), order.clone());
        replies.fetch_add(1, Ordering::Relaxed);
        let Some(again) = attempt(&user) else { break };
        assert_eq!(
            (again["status"].as_str(), again["orderId"].as_str()),
            (Some("ALREADY_PURCHASED"), Some(&*order))
        );
        twice.insert(user);
    }
    told
}

/// The ledger against the book: every purchase is there with its order, none twice, never more than the
/// stock, and every attempt that was acknowledged is on record.
fn compare(server: &Server, book: &HashMap<String, String>, repeated: &HashSet<String>, round: u64) {
    let orders = lines(server, "orders");
    let stock = server.status("crash")["totalStock"].as_u64().expect("a number");
    assert!(orders.len() as u64 <= stock, "round {round}: oversold");
    let mut by_user = HashMap::new();
    for order in &orders {
        let (user, id) =
            (order["userId"].as_str().expect("a user"), order["orderId"].as_str().expect("an id"));
        assert!(by_user.insert(user, id).is_none(), "round {round}: {user} holds two");
    }
    let units: HashSet<_> = orders.iter().map(|order| order["unit"].as_u64()).collect();
    assert_eq!(units.len(), orders.len(), "round {round}: a unit was sold twice");
    for (user, order) in book {
        assert_eq!(
            by_user.get(user.as_str()),
            Some(&order.as_str()),
            "round {round}: {user} was told SUCCESS"
        );
    }

    let mut events: HashMap<(String, String), u64> = HashMap::new();
    for event in lines(server, "audit") {
        let text = |field: &str| event[field].as_str().expect("a text").to_owned();
        *events.entry((text("userId"), text("eventType"))).or_default() += 1;
    }
    let count =
        |user: &str, event: &str| events.get(&(user.to_owned(), event.to_owned())).copied().unwrap_or(0);
    for user in book.keys() {
        assert_eq!(count(user, "RESERVED"), 1, "round {round}: the reservation of {user} is on record");
        assert!(count(user, "ATTEMPTED") >= 1, "round {round}: the attempt of {user} is on record");
    }
    for user in repeated {
        assert!(count(user, "REJECTED_DUPLICATE") >= 1, "round {round}: the retry of {user} is on record");
    }

    let verified =
        flashsale().args(["verify", "--sale", "crash", "--data-dir"]).arg(server.data_dir()).output();
    let verified = verified.expect("the binary runs");
    assert!(verified.status.success(), "round {round}:\n{}", String::from_utf8_lossy(&verified.stdout));
}

fn lines(server: &Server, what: &str) -> Vec<Value> {
    let export = server.admin("GET", &format!("/api/v1/admin/sales/crash/{what}"), &Value::Null);
    assert_eq!(export.status, 200);
    export.text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}
