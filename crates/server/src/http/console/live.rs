//! A sale as it goes, for the console: figures and samples, the last decisions, the newest verdict; one event stream.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, LazyLock},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use flashsale_core::{
    Error,
    audit::{AuditEvent, EventType},
    ids::SaleId,
    ports::FindEvents,
};
use futures_util::stream;
use http::header;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{App, Problem, SalePath};
use crate::http::path;

/// The most of these streams at once: each looks into the records once a second.
const STREAMS_MAX: usize = 64;
static STREAMS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(STREAMS_MAX)));

/// How many records of the trail are looked through for the last decisions. What comes faster is not shown one by one.
const RECORDS: u32 = 60;
/// The most decisions in an event.
const DECISIONS: usize = 30;

/// Somebody at the console who watches a sale.
struct Watcher {
    app: App,
    sale: SaleId,
    beats: watch::Receiver<u64>,
    /// The moment of the last sample that was sent, in Unix milliseconds.
    sampled: i64,
    /// The last event of the trail that was sent.
    decided: i64,
    /// The moment of the last verdict that was sent, in Unix milliseconds.
    judged: i64,
    /// The last word on whether purchases can be made, once there was one.
    can_sell: Option<Result<(), String>>,
    ready: VecDeque<Bytes>,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

/// A decision, or whatever else happened to the sale.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Decision {
    id: i64,
    at: String,
    user_id: String,
    event_type: &'static str,
    unit: Option<Value>,
    order_id: Option<Value>,
}

/// `GET /console/sales/{saleId}/events`.
pub(super) async fn watch(State(app): State<App>, sale: SalePath) -> Result<Response, Problem> {
    let sale: SaleId = path(sale)?.parse()?;
    app.sales.status(sale.as_str()).await?;
    let permit = STREAMS
        .clone()
        .try_acquire_owned()
        .map_err(|_| Problem::from(Error::unavailable(format!("{STREAMS_MAX} consoles watch already"))))?;
    app.board.follow(&sale);
    let mut beats = app.board.beats();
    // The first event comes at once.
    beats.mark_changed();
    let watcher = Watcher {
        app,
        sale,
        beats,
        sampled: 0,
        decided: 0,
        judged: 0,
        can_sell: None,
        ready: VecDeque::new(),
        over: false,
        _permit: permit,
    };
    let events = stream::unfold(watcher, async |mut watcher| {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(events)).into_response())
}

impl Watcher {
    /// The next event; `None` when the sale is gone, or the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            self.beats.changed().await.ok()?;
            self.beats.borrow_and_update();
            if self.app.board.is_closed() {
                return None;
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        self.app.board.follow(&self.sale);
        match self.app.sales.status(self.sale.as_str()).await {
            Ok(status) => {
                let view = self.app.board.view(status, self.sampled);
                self.sampled = view.last_sample().unwrap_or(self.sampled);
                self.say("live", &view);
                self.tell_trouble();
            }
            Err(Error::UnknownSale(_)) => {
                self.say("gone", &());
                self.over = true;
                return;
            }
            // Nothing is known right now; the page keeps what it has.
            Err(_) => return self.tell_trouble(),
        }
        let find = FindEvents { limit: RECORDS, ..FindEvents::default() };
        if let Ok(found) = self.app.store.find_events(&self.sale, &find).await {
            let news: Vec<_> =
                found.rows.iter().filter(|event| self.is_news(event)).take(DECISIONS).collect();
            if let Some(newest) = news.first().map(|event| event.id) {
                let news: Vec<_> = news.into_iter().map(decision).collect();
                self.decided = newest;
                self.say("decisions", &news);
            }
        }
        if let Some(verdict) = self.app.judge.newest(&self.app, &self.sale)
            && verdict.checked_at > self.judged
        {
            self.judged = verdict.checked_at;
            self.say("integrity", &*verdict);
        }
    }

    /// Says whether purchases can be made, when that has changed since it was said.
    fn tell_trouble(&mut self) {
        let Some(can_sell) = self.app.board.can_sell() else { return };
        if self.can_sell.as_ref() != Some(&can_sell) {
            self.say("trouble", &can_sell.as_ref().err());
            self.can_sell = Some(can_sell);
        }
    }

    /// Whether an event is to be shown: the outcome of an attempt rather than that there was one, and once.
    fn is_news(&self, event: &AuditEvent) -> bool {
        event.id > self.decided && !matches!(event.event_type, EventType::Attempted | EventType::Confirmed)
    }

    fn say(&mut self, name: &str, data: &impl Serialize) {
        let data = serde_json::to_string(data).expect("it is plain text and numbers");
        self.ready.push_back(format!("event: {name}\ndata: {data}\n\n").into());
    }
}

fn decision(event: &AuditEvent) -> Decision {
    let mut metadata: Value = serde_json::from_str(&event.metadata).unwrap_or_default();
    let mut take = |name: &str| Some(metadata[name].take()).filter(|value| !value.is_null());
    Decision {
        id: event.id,
        at: event.created_at.to_string(),
        user_id: event.user_id.to_string(),
        event_type: event.event_type.as_str(),
        unit: take("unit"),
        order_id: take("orderId"),
    }
}
