//! Whether the promises hold for a sale right now: counted row by row, as `flashsale verify` does.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use flashsale_core::ids::SaleId;
use http::{StatusCode, header};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::debug;

use super::{App, Desk, Problem, SalePath};
use crate::{
    http::{pages::view, path},
    verdict::Verdict,
    web::console::{self as web, Here},
};

/// How old a verdict grows while somebody watches.
const AGAIN: Duration = Duration::from_secs(10);
/// How many times as long as it took nothing is checked after a check.
const REST: u32 = 20;
/// For how long the verdict on a sale is kept that nobody watches.
const KEPT: Duration = Duration::from_secs(600);

/// The promises of a sale, checked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Integrity {
    /// When, in Unix milliseconds.
    pub(crate) checked_at: i64,
    /// How long it took, in milliseconds.
    pub(crate) took_ms: i64,
    /// What came of it.
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
}

impl Integrity {
    /// Counts the sale's rows and judges them.
    pub(crate) async fn of(app: &App, sale: &SaleId) -> flashsale_core::Result<Self> {
        let started = app.sales.now();
        let verdict = Verdict::on(&app.store.figures(sale).await?);
        let checked_at = app.sales.now().as_millis();
        let took_ms = checked_at.saturating_sub(started.as_millis()).max(0);
        Ok(Self { checked_at, took_ms, verdict })
    }
}

/// Checks sales again and again while somebody watches them, one at a time, and never so often that the counting takes a
/// notable part of the machine.
pub(crate) struct Judge {
    /// When the counting began, and what came of it.
    verdicts: Mutex<HashMap<SaleId, (Instant, Arc<Integrity>)>>,
    /// Whose turn it is to count.
    turn: Arc<Semaphore>,
}

impl Default for Judge {
    fn default() -> Self {
        Self { verdicts: Mutex::default(), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl Judge {
    /// The newest verdict on a sale. Where it has grown old, a new one is on its way.
    pub(crate) fn newest(&self, app: &App, sale: &SaleId) -> Option<Arc<Integrity>> {
        let newest = self.verdicts.lock().get(sale).cloned();
        let is_old = newest.as_ref().is_none_or(|(began, verdict)| {
            let took = Duration::from_millis(verdict.took_ms.cast_unsigned());
            began.elapsed() > took + AGAIN.max(took * REST)
        });
        if is_old && let Ok(turn) = self.turn.clone().try_acquire_owned() {
            let (app, sale) = (app.clone(), sale.clone());
            tokio::spawn(async move {
                let began = Instant::now();
                match Integrity::of(&app, &sale).await {
                    Ok(verdict) => app.judge.keep(sale, began, Arc::new(verdict)),
                    Err(error) => debug!(%sale, %error, "the promises cannot be checked right now"),
                }
                drop(turn);
            });
        }
        newest.map(|(_, verdict)| verdict)
    }

    /// A verdict that is newer than the question. Whoever asks while another is on its way waits, and shares it.
    async fn now(&self, app: &App, sale: &SaleId) -> flashsale_core::Result<Arc<Integrity>> {
        let asked = Instant::now();
        let _turn = self.turn.acquire().await;
        let newest = self.verdicts.lock().get(sale).cloned();
        if let Some((began, verdict)) = newest
            && began >= asked
        {
            return Ok(verdict);
        }
        let began = Instant::now();
        let verdict = Arc::new(Integrity::of(app, sale).await?);
        self.keep(sale.clone(), began, verdict.clone());
        Ok(verdict)
    }

    fn keep(&self, sale: SaleId, began: Instant, verdict: Arc<Integrity>) {
        let mut verdicts = self.verdicts.lock();
        verdicts.retain(|_, (when, _)| when.elapsed() < KEPT);
        verdicts.insert(sale, (began, verdict));
    }
}

/// `GET /console/sales/{saleId}/integrity`: checks, and shows it.
pub(super) async fn show(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    let shown = async {
        let status = app.sales.status(&path(sale)?).await?;
        let integrity = app.judge.now(&app, &status.sale.id).await?;
        let Integrity { checked_at, took_ms, verdict } = &*integrity;
        let html =
            web::integrity(desk.frame(Here::Sales), view(&status), verdict.clone(), *checked_at, *took_ms);
        Ok::<_, Problem>(desk.page(StatusCode::OK, html))
    };
    shown.await.unwrap_or_else(|problem| desk.problem(&problem))
}

/// `POST /console/sales/{saleId}/integrity`: the same for the script.
pub(super) async fn check(State(app): State<App>, sale: SalePath) -> Result<Response, Problem> {
    let sale: SaleId = path(sale)?.parse()?;
    let integrity = app.judge.now(&app, &sale).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(&*integrity)).into_response())
}
