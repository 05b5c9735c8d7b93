//! The HTTP interface: a file per noun, errors and documentation beside each handler.
//!
//! [`listener`] accepts, `body` reads within bounds, `problem` says what is wrong; `router` is the list of
//! everything that can be asked.

mod admin;
pub(crate) mod body;
pub(crate) mod console;
mod events;
mod export;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod health;
mod line;
pub mod listener;
mod metrics;
pub(crate) mod openapi;
mod pages;
pub(crate) mod problem;
pub(crate) mod purchase;
mod sales;
mod widget;

use std::{
    ops::Deref,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, rejection::PathRejection},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use flashsale_core::{
    inventory::Decision,
    ports::{OperatorLog, OrderStore},
    service::SaleService,
};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde::Serialize;
use tower_http::cors::{AllowOrigin, CorsLayer};

use self::listener::{Answer, Answering};
pub(crate) use self::{console::Judge, metrics::Metrics, problem::Problem, sales::SaleBody, widget::Embed};
use crate::{
    admission::{AdminToken, Door},
    background::{Background, Unhurried},
    board::Board,
    config::Setting,
    live::Hub,
    vitals::Vitals,
    web::assets::Asset,
};

/// What all handlers share. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Shared>);

/// What an [`App`] is made of.
pub(crate) struct Shared {
    pub(crate) sales: SaleService,
    pub(crate) store: Arc<dyn OrderStore>,
    pub(crate) vitals: Arc<dyn Vitals>,
    pub(crate) admin_token: AdminToken,
    pub(crate) metrics: Metrics,
    /// The console's door.
    pub(crate) door: Door,
    pub(crate) operators: Arc<dyn OperatorLog>,
    /// What is in force, for the operator to read.
    pub(crate) settings: Vec<Setting>,
    pub(crate) started: Instant,
    /// Whether the server stops.
    pub(crate) stopping: Arc<AtomicBool>,
    /// The shop's own style sheet, if it has one.
    pub(crate) theme: Option<Asset>,
    /// Who may show a sale in a frame.
    pub(crate) embed: Embed,
    pub(crate) hub: Arc<Hub>,
    pub(crate) board: Arc<Board>,
    pub(crate) judge: Judge,
    pub(crate) background: Arc<Background>,
    /// How long a request's body may take to arrive.
    pub(crate) body_timeout: Duration,
}

impl App {
    /// All handlers read the records in the background.
    pub(crate) fn new(mut shared: Shared) -> Self {
        shared.store = Arc::new(Unhurried::new(shared.store, shared.background.clone()));
        Self(Arc::new(shared))
    }
}

impl App {
    /// Counts a decision: for Prometheus, and for the console.
    fn count(&self, sale: &str, decision: &Decision, took: Duration) {
        self.metrics.count(decision);
        self.board.count(sale, decision, took);
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

/// Everything that can be asked. A purchase, which has to be fast, does not go through the router.
#[derive(Clone)]
pub struct Site {
    router: Router,
    /// Where no header of cross-origin sharing is to be added, which the router would do.
    purchases: Option<App>,
}

impl Site {
    pub(crate) fn new(app: App, cors_origins: &[HeaderValue]) -> Self {
        let purchases = cors_origins.is_empty().then(|| app.clone());
        Self { router: router(app, cors_origins), purchases }
    }
}

impl Answer for Site {
    fn answer(&self, request: Request<Incoming>) -> Answering {
        match &self.purchases {
            Some(app) if request.method() == Method::POST && request.uri().path() == purchase::PATH => {
                let answering = purchase::answer(app.clone(), request);
                Box::pin(async { Ok(answering.await) })
            }
            _ => self.router.answer(request),
        }
    }
}

fn router(app: App, cors_origins: &[HeaderValue]) -> Router {
    let admin = Router::new()
        .route("/reset", post(admin::reset))
        .route("/sales", post(admin::create))
        .route("/sales/{sale_id}", get(admin::show).patch(admin::change).delete(admin::delete))
        .route("/sales/{sale_id}/pause", post(admin::pause))
        .route("/sales/{sale_id}/resume", post(admin::resume))
        .route("/sales/{sale_id}/orders", get(export::orders))
        .route("/sales/{sale_id}/audit", get(export::audit))
        .route_layer(middleware::from_fn_with_state(app.clone(), crate::admission::require_admin));
    let router = Router::new()
        .route("/api/v1/sales", get(sales::list))
        .route("/api/v1/sale/purchase", post(purchase::attempt))
        .route("/api/v1/sale/{sale_id}/status", get(sales::status))
        .route("/api/v1/sale/{sale_id}/events", get(events::of_sale))
        .route("/api/v1/events", get(events::of_all))
        .route("/api/v1/sale/{sale_id}/user/{user_id}", get(purchase::of_user))
        .route("/api/v1/sale/{sale_id}/user/{user_id}/purchase", get(purchase::of_user))
        .nest("/api/v1/admin", admin)
        .route("/health", get(health::health))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::scrape))
        .route("/openapi.json", get(openapi::document))
        .route("/docs", get(openapi::page))
        .route("/docs/{*file}", get(openapi::file))
        .route("/", get(pages::index))
        .route("/sales/{sale_id}", get(pages::sale).post(pages::buy))
        .route("/widget/{sale_id}", get(pages::sale).post(pages::buy))
        .route("/widget", get(widget::example))
        .route("/widget.js", get(widget::script))
        .route("/assets/{name}", get(pages::asset))
        .merge(console::routes(&app))
        .fallback(pages::unknown)
        .method_not_allowed_fallback(pages::wrong_method)
        .with_state(app);
    if cors_origins.is_empty() { router } else { router.layer(cors(cors_origins)) }
}

/// What nobody may keep a copy of: it is of one visitor, or of one moment.
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A JSON reply of one visitor or of one moment.
pub(crate) struct Momentary<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Momentary<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(self.0).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, NO_STORE);
        response
    }
}

fn cors(origins: &[HeaderValue]) -> CorsLayer {
    let origins = match origins {
        [any] if any == "*" => AllowOrigin::any(),
        named => AllowOrigin::list(named.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION, header::ACCEPT])
        .expose_headers([header::RETRY_AFTER, HeaderName::from_static("server-timing")])
}

/// The parts of a path, percent-decoded.
fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Problem> {
    path.map(|Path(parts)| parts).map_err(|rejection| {
        Problem::new(StatusCode::BAD_REQUEST, format!("The path is not what it must be: {rejection}"))
    })
}
