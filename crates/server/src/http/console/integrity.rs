//! Whether the promises hold for a sale right now: counted row by row, as `flashsale verify` does.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use flashsale_core::ids::SaleId;
use http::{StatusCode, header};
use serde::Serialize;

use super::{App, Desk, Problem, SalePath};
use crate::{
    http::{pages::view, path},
    verdict::{self, Check},
    web::console::{self as web, Here},
};

/// The promises of a sale, checked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Integrity {
    /// When, in Unix milliseconds.
    pub(crate) checked_at: i64,
    /// How long it took, in milliseconds.
    pub(crate) took_ms: i64,
    /// Whether all of them hold.
    pub(crate) holds: bool,
    /// One by one.
    pub(crate) checks: Vec<Check>,
}

impl Integrity {
    /// Counts the sale's rows and judges them.
    pub(crate) async fn of(app: &App, sale: &SaleId) -> flashsale_core::Result<Self> {
        let started = app.sales.now();
        let checks = verdict::checks(&app.store.figures(sale).await?);
        let checked_at = app.sales.now().as_millis();
        let took_ms = checked_at.saturating_sub(started.as_millis()).max(0);
        Ok(Self { checked_at, took_ms, holds: checks.iter().all(|check| check.holds), checks })
    }
}

/// `GET /console/sales/{saleId}/integrity`: checks, and shows it.
pub(super) async fn show(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    let shown = async {
        let status = app.sales.status(&path(sale)?).await?;
        let integrity = Integrity::of(&app, &status.sale.id).await?;
        let Integrity { checked_at, took_ms, checks, .. } = integrity;
        let html = web::integrity(desk.frame(Here::Sales), view(&status), checks, checked_at, took_ms);
        Ok::<_, Problem>(desk.page(StatusCode::OK, html))
    };
    shown.await.unwrap_or_else(|problem| desk.problem(&problem))
}

/// `POST /console/sales/{saleId}/integrity`: the same for the script.
pub(super) async fn check(State(app): State<App>, sale: SalePath) -> Result<Response, Problem> {
    let sale: SaleId = path(sale)?.parse()?;
    let integrity = Integrity::of(&app, &sale).await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(integrity)).into_response())
}
