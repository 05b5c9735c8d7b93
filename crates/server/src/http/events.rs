//! Live updates as server-sent events: `GET /api/v1/sale/{saleId}/events` and `GET /api/v1/events`.

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderName, header};

use super::{
    App,
    openapi::SaleInPath,
    problem::{LookupProblems, Problem, ProblemBody},
};
use crate::live::Viewer;

/// Tells nginx, and whoever does as it does, to hand on each event as it comes.
const UNBUFFERED: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

/// One sale as it changes.
///
/// First its state, then its state after each change, at most five times a second, and at least every 15 seconds: event
/// `sale`, whose data is that of the sale's status without `description` and `imageUrl`. `gone` when it is deleted.
#[utoipa::path(
    get,
    path = "/api/v1/sale/{saleId}/events",
    tag = "sale",
    params(SaleInPath),
    responses(
        (status = 200, description = "A stream that does not end by itself", body = String, content_type = "text/event-stream"),
        LookupProblems,
    )
)]
pub(crate) async fn of_sale(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    Ok(streamed(app.hub.watch(&super::path(path)?).await?))
}

/// All sales as they change.
///
/// First the state of each, then the state of those that have changed: events `sale`, as of one sale, but without the
/// sign of life. `gone`, with its `saleId`, when one is deleted.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "sale",
    responses(
        (status = 200, description = "A stream that does not end by itself", body = String, content_type = "text/event-stream"),
        (status = 503, description = "Too many watch already, or a part that is needed is away", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn of_all(State(app): State<App>) -> Result<Response, Problem> {
    Ok(streamed(app.hub.watch_all().await?))
}

fn streamed(viewer: Viewer) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store"), UNBUFFERED];
    (headers, Body::from_stream(viewer.stream())).into_response()
}
