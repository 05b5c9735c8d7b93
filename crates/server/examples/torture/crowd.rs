//! Buyers, who write down all that they ask and are told, whatever happens meanwhile.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Result, ensure};
use flashsale_loadtest::history::{Recorder, Told};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;

use crate::{
    program::{agent, wait},
    tally::Broken,
};

const CLIENTS: usize = 6;
/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Requests of one client in one round that are answered, and all: what is compared afterwards stays small.
const MOST_ANSWERS: u64 = 500;
const MOST_REQUESTS: usize = 4_000;

/// One attempt to buy: what the audit trail has to know.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) user: String,
    pub(crate) told: Told,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// The process that was asked.
    pub(crate) process: u64,
}

/// A sale, and all that was told of it.
pub(crate) struct Sale {
    pub(crate) id: String,
    pub(crate) stock: u64,
    pub(crate) recorder: Recorder,
    pub(crate) attempts: Mutex<Vec<Attempt>>,
    /// The first answer that no documentation knows.
    odd: Mutex<Option<String>>,
}

/// Where to buy: an address, and which process is there.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    pub(crate) url: String,
    pub(crate) process: u64,
}

impl Sale {
    pub(crate) fn new(id: String, stock: u64) -> Arc<Self> {
        let (recorder, attempts, odd) = Default::default();
        Arc::new(Self { id, stock, recorder, attempts, odd })
    }

    /// One attempt, written down.
    pub(crate) fn buy(&self, agent: &ureq::Agent, counter: &Counter, user: &str) -> Told {
        let asked = self.recorder.ask(user);
        let sent = self.recorder.now();
        let told = self.ask(agent, counter, user).unwrap_or(Told::Nothing);
        asked.told(told.clone());
        let (answered, process) = (self.recorder.now(), counter.process);
        let attempt = Attempt { user: user.to_owned(), told: told.clone(), sent, answered, process };
        self.attempts.lock().expect("no panic").push(attempt);
        told
    }

    fn ask(&self, agent: &ureq::Agent, counter: &Counter, user: &str) -> Option<Told> {
        let body = json!({ "saleId": self.id, "userId": user }).to_string();
        let request = agent.post(format!("{}/api/v1/sale/purchase", counter.url));
        let mut reply = request.header("content-type", "application/json").send(body).ok()?;
        let (status, retry) = (reply.status().as_u16(), reply.headers().contains_key("retry-after"));
        let body = reply.body_mut().read_to_string().ok()?;
        let told = Told::by_purchase(status, retry, body.as_bytes());
        let known = told != Told::Nothing || (status == 503 && retry);
        if !known {
            self.odd.lock().expect("no panic").get_or_insert(format!("{user} was answered {status}: {body}"));
        }
        Some(told)
    }

    /// What a user holds, written down.
    fn look(&self, agent: &ureq::Agent, counter: &Counter, user: &str) {
        let asked = self.recorder.look(user);
        let url = format!("{}/api/v1/sale/{}/user/{user}/purchase", counter.url, self.id);
        let read = || -> Option<Told> {
            let mut reply = agent.get(url).call().ok().filter(|reply| reply.status() == 200)?;
            let reply: serde_json::Value =
                serde_json::from_str(&reply.body_mut().read_to_string().ok()?).ok()?;
            Some(match reply["orderId"].as_str() {
                Some(order) => Told::Holds { order: order.to_owned() },
                None => Told::HoldsNothing,
            })
        };
        if let Some(told) = read() {
            asked.told(told);
        }
    }

    /// Whoever got no answer asks again, a sample of them.
    pub(crate) fn ask_again(&self, counter: &Counter, most: usize) -> Result<()> {
        let agent = agent(TIMEOUT);
        let attempts = self.attempts.lock().expect("no panic").clone();
        let mut unanswered: Vec<_> = attempts
            .iter()
            .rev()
            .filter(|attempt| attempt.told == Told::Nothing)
            .map(|attempt| &attempt.user)
            .collect();
        unanswered.dedup();
        for user in unanswered.into_iter().take(most) {
            wait("a decision", || self.buy(&agent, counter, user) != Told::Nothing)?;
        }
        Ok(())
    }

    pub(crate) fn check_replies(&self) -> Result<()> {
        match &*self.odd.lock().expect("no panic") {
            None => Ok(()),
            Some(odd) => Err(Broken::new("API", odd.clone()).into()),
        }
    }

    pub(crate) fn is_sold_out(&self) -> bool {
        self.attempts.lock().expect("no panic").iter().any(|attempt| attempt.told == Told::SoldOut)
    }
}

struct Shared {
    sales: Vec<Arc<Sale>>,
    counters: Mutex<Vec<Counter>>,
    stop: AtomicBool,
    answers: AtomicU64,
    /// Whether to look up what users hold, too.
    looks: bool,
    round: u64,
}

/// Clients that buy until they are told to leave.
pub(crate) struct Crowd {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

impl Crowd {
    pub(crate) fn come(
        sales: &[Arc<Sale>],
        counters: Vec<Counter>,
        round: u64,
        looks: bool,
        dice: &mut StdRng,
    ) -> Self {
        let shared = Arc::new(Shared {
            sales: sales.to_vec(),
            counters: Mutex::new(counters),
            stop: AtomicBool::new(false),
            answers: AtomicU64::new(0),
            looks,
            round,
        });
        let clients = (0..CLIENTS)
            .map(|client| {
                let (shared, dice) = (shared.clone(), StdRng::seed_from_u64(dice.random()));
                thread::spawn(move || shared.shop(client, dice))
            })
            .collect();
        Self { shared, clients }
    }

    /// Says where the counters are now.
    pub(crate) fn go_to(&self, counters: Vec<Counter>) {
        *self.shared.counters.lock().expect("no panic") = counters;
    }

    /// Requests so far that were told something.
    pub(crate) fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Waits until so many more were told something, or everybody has left.
    pub(crate) fn await_answers(&self, more: u64) -> Result<()> {
        let enough = self.answers() + more;
        wait("answers", || self.answers() >= enough || self.has_left())
    }

    pub(crate) fn has_left(&self) -> bool {
        self.clients.iter().all(JoinHandle::is_finished)
    }

    pub(crate) fn leave(self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            ensure!(client.join().is_ok(), "a client panicked");
        }
        Ok(())
    }
}

impl Shared {
    fn shop(&self, client: usize, mut dice: StdRng) {
        let agent = agent(TIMEOUT);
        let (mut last, mut answers) = (String::new(), 0);
        for number in 0..MOST_REQUESTS {
            // Some buy under the same name at the same time, and some try again though they were answered.
            let user = match dice.random_range(0..10) {
                0 => format!("r{}-shared-{}", self.round, dice.random_range(0..12)),
                1..=3 if !last.is_empty() => last.clone(),
                _ => format!("r{}-{client}-{number}", self.round),
            };
            for sale in &self.sales {
                if self.stop.load(Ordering::Relaxed) || answers >= MOST_ANSWERS {
                    return;
                }
                let counters = self.counters.lock().expect("no panic").clone();
                let counter = &counters[dice.random_range(0..counters.len())];
                if self.looks && dice.random_range(0..12) == 0 {
                    sale.look(&agent, counter, &user);
                }
                match sale.buy(&agent, counter, &user) {
                    Told::Nothing => thread::sleep(Duration::from_millis(dice.random_range(5..25))),
                    _ => {
                        answers += 1;
                        self.answers.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            last = user;
        }
    }
}
