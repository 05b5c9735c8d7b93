//! Whether it lives, whether it can sell, and how its parts are.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Instant};

use axum::extract::State;
use flashsale_core::Error;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App, Momentary,
    problem::{Problem, ProblemBody},
};
use crate::vitals::Part;

/// How the whole is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    /// `up`; `degraded` when a part is down and purchases can be made all the same; `down` when they cannot.
    #[schema(example = "up")]
    status: &'static str,
    /// When this was found, RFC 3339.
    #[schema(example = "2026-02-23T03:00:00.000Z")]
    timestamp: String,
    /// How long it took to find, in milliseconds.
    #[schema(example = 0.12)]
    response_time: f64,
    /// The parts by name.
    services: BTreeMap<&'static str, Part>,
    /// What SUCCESS is worth right now.
    #[schema(example = "a purchase is on the disk before it is acknowledged")]
    promise: &'static str,
    /// The profile that runs.
    #[schema(example = "embedded")]
    profile: &'static str,
    /// The program's version.
    #[schema(example = "0.1.0")]
    version: &'static str,
}

/// How everything is.
#[utoipa::path(
    get,
    path = "/health",
    tag = "operation",
    responses(
        (status = 200, description = "Purchases can be made", body = Health),
        (status = 503, description = "Purchases cannot be made", body = Health),
    )
)]
pub(crate) async fn health(State(app): State<App>) -> (StatusCode, Momentary<Health>) {
    let started = Instant::now();
    let services = app.vitals.parts().await;
    let sells = app.vitals.ready().await.is_ok();
    let whole = services.values().all(|part| part.status == "up");
    let health = Health {
        status: match (sells, whole) {
            (true, true) => "up",
            (true, false) => "degraded",
            (false, _) => "down",
        },
        timestamp: app.sales.now().to_string(),
        response_time: (started.elapsed().as_secs_f64() * 1e6).round() / 1e3,
        services,
        promise: app.vitals.promise(),
        profile: app.vitals.profile(),
        version: env!("CARGO_PKG_VERSION"),
    };
    (if sells { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Momentary(health))
}

/// The word of a probe.
#[derive(Serialize, ToSchema)]
pub(crate) struct Probe {
    /// `up`.
    #[schema(example = "up")]
    status: &'static str,
}

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/health/live",
    tag = "operation",
    responses((status = 200, description = "It does", body = Probe))
)]
pub(crate) async fn live() -> Momentary<Probe> {
    Momentary(Probe { status: "up" })
}

/// Whether sales can be decided.
#[utoipa::path(
    get,
    path = "/health/ready",
    tag = "operation",
    responses(
        (status = 200, description = "They can", body = Probe),
        (status = 503, description = "They cannot, and why", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ready(State(app): State<App>) -> Result<Momentary<Probe>, Problem> {
    // Whoever asks often enough sends nobody here any more.
    if app.stopping.load(Ordering::Acquire) {
        return Err(Error::unavailable("the server is shutting down").into());
    }
    app.vitals.ready().await?;
    Ok(Momentary(Probe { status: "up" }))
}
