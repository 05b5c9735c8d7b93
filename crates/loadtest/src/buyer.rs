//! One member of the crowd: makes attempts on its own connection and enters what came of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Uri};

use crate::connection::{Link, Unanswered};
use crate::reply::{self, Outcome};
use crate::tally::{Entry, Tallies, Unsent};
use crate::target::{PURCHASE_PATH, Target};
use crate::users::Users;

/// What all buyers of a run have in common.
pub(crate) struct Plan {
    target: Arc<Target>,
    users: Users,
    timeout: Duration,
    uri: Uri,
    headers: HeaderMap,
    /// The request's body up to the user's index.
    body_start: Vec<u8>,
}

impl Plan {
    pub(crate) fn new(target: Arc<Target>, sale: &str, users: Users, timeout: Duration) -> Self {
        let json = |text: &str| serde_json::Value::from(text).to_string();
        let stem = json(&users.stem());
        let open_stem = stem.strip_suffix('"').expect("a JSON string ends with a quote");
        let body_start = format!(r#"{{"saleId":{},"userId":{open_stem}"#, json(sale)).into_bytes();
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        Self { target, users, timeout, uri: Uri::from_static(PURCHASE_PATH), headers, body_start }
    }

    /// How long a request may take, and how long an attempt may wait for a connection.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Makes one attempt after the other.
pub(crate) struct Buyer {
    plan: Arc<Plan>,
    tallies: Arc<Tallies>,
    link: Link,
    /// Which of the tallies this buyer enters its attempts in.
    desk: usize,
    /// Bodies are cut from it; reused as soon as hyper has let go of the last.
    scratch: BytesMut,
}

impl Buyer {
    pub(crate) fn new(plan: &Arc<Plan>, tallies: &Arc<Tallies>, desk: usize) -> Self {
        let link = Link::new(Arc::clone(&plan.target));
        Self { plan: Arc::clone(plan), tallies: Arc::clone(tallies), link, desk, scratch: BytesMut::new() }
    }

    /// `count` buyers, connected ahead of the clock. A server that accepts fewer is met again, and counted, by their
    /// attempts.
    pub(crate) async fn gather(plan: &Arc<Plan>, tallies: &Arc<Tallies>, count: usize) -> Vec<Self> {
        let mut buyers: Vec<_> = (0..count).map(|desk| Self::new(plan, tallies, desk)).collect();
        for buyer in &mut buyers {
            let connected = tokio::time::timeout(plan.timeout, buyer.link.connect()).await;
            if !matches!(connected, Ok(Ok(()))) {
                break;
            }
        }
        buyers
    }

    /// Makes an attempt, its latency counted from `since`. Says whether the server could be reached.
    pub(crate) async fn attempt(&mut self, attempt: u64, since: Instant) -> bool {
        let user = self.plan.users.of_attempt(attempt);
        let request = self.request(user);
        match self.link.exchange(request, self.plan.timeout).await {
            Ok(answer) => {
                let outcome = reply::read(answer.status, answer.retry_after, answer.body);
                let (sent, completed) = (answer.sent, answer.completed);
                self.tallies.enter(self.desk, Entry { user, since, sent, completed, outcome });
                true
            }
            Err(Unanswered::OutOfFiles) => {
                self.tallies.skip(self.desk, Unsent::OutOfFiles);
                false
            }
            Err(error) => {
                let now = Instant::now();
                let outcome = Outcome::Failed(error.to_string());
                self.tallies.enter(self.desk, Entry { user, since, sent: now, completed: now, outcome });
                !matches!(error, Unanswered::Connect(_))
            }
        }
    }

    /// Enters an attempt that found no free connection in time.
    pub(crate) fn give_up(&self) {
        self.tallies.skip(self.desk, Unsent::NoFreeConnection);
    }

    fn request(&mut self, user: u64) -> Request<Full<Bytes>> {
        self.scratch.extend_from_slice(&self.plan.body_start);
        // Writing to a BytesMut cannot fail: it grows.
        let _ = std::fmt::Write::write_fmt(&mut self.scratch, format_args!("{user}\"}}"));
        let mut request = Request::new(Full::new(self.scratch.split().freeze()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.plan.uri.clone();
        *request.headers_mut() = self.plan.headers.clone();
        request
    }
}
