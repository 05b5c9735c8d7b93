//! A crowd that writes down what it is told, whatever happens meanwhile, and compares it with the records afterwards.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};

use super::stage::{Stage, wait};
use crate::server::{Reply, Server};

const CLIENTS: usize = 6;
/// A sale that is sold out in the middle of it all, and one that never is.
const TIGHT: (&str, u64) = ("tight", 400);
const RUSH: (&str, u64) = ("rush", 1_000_000);

/// What was told of a sale.
#[derive(Default)]
struct Book {
    /// User → order, of every SUCCESS.
    bought: HashMap<String, String>,
    /// Users who got no reply, or one that promises nothing.
    unknown: HashSet<String>,
    sold_out: HashSet<String>,
}

#[derive(Default)]
struct Told {
    books: Mutex<HashMap<&'static str, Book>>,
    successes: AtomicU64,
    stop: AtomicBool,
    urls: Mutex<Vec<String>>,
}

/// The crowd.
pub(super) struct Crowd {
    told: Arc<Told>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Makes the sales, and comes.
    pub(super) fn come(stage: &Stage) -> Self {
        for (sale, stock) in [TIGHT, RUSH] {
            stage.sale(sale, stock);
        }
        let told = Arc::new(Told::default());
        let mut crowd = Self { told, clients: Vec::new() };
        crowd.go_to(stage);
        crowd.clients = (0..CLIENTS)
            .map(|client| {
                let told = crowd.told.clone();
                thread::spawn(move || shop(client, &told))
            })
            .collect();
        crowd
    }

    /// Says where the replicas are now.
    pub(super) fn go_to(&self, stage: &Stage) {
        let urls = stage.replicas.iter().map(|replica| replica.url.clone()).collect();
        *self.told.urls.lock().expect("no panic") = urls;
    }

    /// Waits until so many more were told SUCCESS.
    pub(super) fn await_successes(&self, more: u64, stage: &Stage) {
        let before = self.told.successes.load(Ordering::Relaxed);
        wait(
            "further purchases",
            || self.told.successes.load(Ordering::Relaxed) >= before + more,
            || stage.replicas.iter().map(Server::log).collect::<Vec<_>>().join("\n---\n"),
        );
    }

    /// Writes down what somebody else was told.
    pub(super) fn note(&self, sale: &'static str, user: &str, order: &str) {
        let mut books = self.told.books.lock().expect("no panic");
        books.entry(sale).or_default().bought.insert(user.to_owned(), order.to_owned());
    }

    /// Leaves, waits for the last order, and compares: nothing acknowledged lost, nothing doubled, never oversold,
    /// orders = acknowledgements. Says how many were acknowledged.
    pub(super) fn leave_and_compare(self, stage: &Stage, fault: &str) {
        self.told.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client ends");
        }
        let mut books = std::mem::take(&mut *self.told.books.lock().expect("no panic"));
        let (mut acknowledged, mut unknown) = (0, 0);
        for (sale, stock) in [TIGHT, RUSH] {
            let mut book = books.remove(sale).unwrap_or_default();
            unknown += book.unknown.len();
            stage.drained(sale);
            compare(stage, sale, stock, &book, fault);
            ask_again(stage, sale, &mut book, fault);
            stage.drained(sale);
            let orders = compare(stage, sale, stock, &book, fault);
            assert_eq!(orders, book.bought.len(), "{fault}: {sale}: orders = acknowledgements");
            acknowledged += book.bought.len();
        }
        let verified = stage.tell(&["verify"]);
        assert_eq!(verified.code, Some(0), "{fault}: {verified:?}");
        println!(
            "{fault}: {acknowledged} acknowledged, 0 lost, 0 doubled; {unknown} replies promised nothing"
        );
    }
}

/// Buys for one new user after the other, of both sales, at one replica after the other.
fn shop(client: usize, told: &Told) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into();
    for number in 0.. {
        let user = format!("user-{client}-{number}");
        for (sale, _) in [TIGHT, RUSH] {
            if told.stop.load(Ordering::Relaxed) {
                return;
            }
            let url = {
                let urls = told.urls.lock().expect("no panic");
                urls[(client + number) % urls.len()].clone()
            };
            let reply = attempt(&agent, &url, sale, &user);
            let status = reply.as_ref().and_then(|reply| reply["status"].as_str()).unwrap_or_default();
            let order = reply.as_ref().and_then(|reply| reply["orderId"].as_str()).map(str::to_owned);
            let mut books = told.books.lock().expect("no panic");
            let book = books.entry(sale).or_default();
            match (status, order) {
                ("SUCCESS", Some(order)) => {
                    book.bought.insert(user.clone(), order);
                    told.successes.fetch_add(1, Ordering::Relaxed);
                }
                ("SOLD_OUT", None) => {
                    book.sold_out.insert(user.clone());
                }
                _ => {
                    book.unknown.insert(user.clone());
                    drop(books);
                    // As a browser would: not at once again.
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

fn attempt(agent: &ureq::Agent, url: &str, sale: &str, user: &str) -> Option<Value> {
    let body = json!({ "saleId": sale, "userId": user }).to_string();
    let request =
        agent.post(format!("{url}/api/v1/sale/purchase")).header("content-type", "application/json");
    serde_json::from_str(&request.send(body).ok()?.body_mut().read_to_string().ok()?).ok()
}

/// Whoever got no answer asks again, and is told what the records say.
fn ask_again(stage: &Stage, sale: &str, book: &mut Book, fault: &str) {
    let orders = orders(stage, sale);
    for user in std::mem::take(&mut book.unknown) {
        let reply = decided(stage, sale, &user).json();
        let order = reply["orderId"].as_str().map(str::to_owned);
        match (reply["status"].as_str(), order) {
            (Some("SUCCESS"), Some(order)) => {
                assert!(!orders.contains_key(&user), "{fault}: {user} has an order and was sold another");
                book.bought.insert(user, order);
            }
            (Some("ALREADY_PURCHASED"), Some(order)) => {
                assert_eq!(orders.get(&user), Some(&order), "{fault}: {user} is told of the order on record");
                book.bought.insert(user, order);
            }
            (Some("SOLD_OUT"), None) => assert!(!orders.contains_key(&user), "{fault}: {user} holds a unit"),
            _ => panic!("{fault}: {user}: {reply}"),
        }
    }
}

/// The decision of an attempt, asked for again as long as the answer is to come again.
fn decided(stage: &Stage, sale: &str, user: &str) -> Reply {
    let last = RefCell::new(None);
    let answered = || {
        let reply = stage.replicas[0].buy(sale, user);
        let come_again = reply.status == 503 && !reply.header("retry-after").is_empty();
        *last.borrow_mut() = Some(reply);
        !come_again
    };
    wait("a decision", answered, || format!("{last:?}"));
    let reply = last.into_inner().expect("an answer");
    assert_eq!(reply.status, 200, "{reply:?}");
    reply
}

/// User → order, as the records have it.
fn orders(stage: &Stage, sale: &str) -> HashMap<String, String> {
    let text = |order: &Value, field: &str| order[field].as_str().expect("a text").to_owned();
    stage.lines(sale, "orders").iter().map(|order| (text(order, "userId"), text(order, "orderId"))).collect()
}

/// The records against the book; how many orders there are.
fn compare(stage: &Stage, sale: &str, stock: u64, book: &Book, fault: &str) -> usize {
    let lines = stage.lines(sale, "orders");
    assert!(lines.len() as u64 <= stock, "{fault}: {sale}: oversold");
    let by_user = orders(stage, sale);
    assert_eq!(by_user.len(), lines.len(), "{fault}: {sale}: somebody holds two");
    let units: HashSet<_> = lines.iter().map(|order| order["unit"].as_u64()).collect();
    assert_eq!(units.len(), lines.len(), "{fault}: {sale}: a unit was sold twice");
    for (user, order) in &book.bought {
        assert_eq!(by_user.get(user), Some(order), "{fault}: {sale}: {user} was told SUCCESS");
    }
    for user in by_user.keys() {
        let known = book.bought.contains_key(user) || book.unknown.contains(user);
        assert!(known, "{fault}: {sale}: an order of {user}, who was told SOLD_OUT or never asked");
        assert!(!book.sold_out.contains(user), "{fault}: {sale}: {user} was told SOLD_OUT");
    }
    lines.len()
}
