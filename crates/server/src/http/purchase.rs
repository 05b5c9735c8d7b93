//! `POST /api/v1/sale/purchase` and the lookup of what a user holds: the way that has to be fast.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::{self, Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use flashsale_core::{ids::OrderId, inventory::Decision, order::OrderStatus};
use http::{HeaderName, HeaderValue, Request, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    App, Momentary,
    body::{self, Piecewise},
    openapi::{SaleInPath, UserInPath},
    problem::{LookupProblems, Problem, PurchaseProblems},
};

/// Where purchases are asked for; the router has the same route, for whoever comes through it.
pub(super) const PATH: &str = "/api/v1/sale/purchase";
/// What the seed says to somebody who got a unit.
const RESERVED: &str = "Purchase reserved successfully";
/// What the seed says to somebody who held one before.
const ALREADY_PURCHASED: &str = "You have already purchased from this sale";
/// What the seed says outside the window and during a pause.
const NOT_ACTIVE: &str = "Sale is not currently active";

/// What the seed says when all units are taken: most replies of a flash sale, so written once.
const SOLD_OUT_BODY: &[u8] = br#"{"success":false,"status":"SOLD_OUT","message":"Sale is sold out"}"#;

/// Who wants to buy of which sale.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PurchaseRequest<'a> {
    /// The sale: 1 to 64 characters of `A-Za-z0-9_-`.
    #[serde(borrow)]
    #[schema(value_type = String, example = "sale_1", pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub(super) sale_id: Cow<'a, str>,
    /// The user: non-empty text of at most 255 bytes without control characters.
    #[serde(borrow)]
    #[schema(value_type = String, example = "user123", min_length = 1, max_length = 255, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub(super) user_id: Cow<'a, str>,
}

/// The answer to an attempt.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PurchaseReply {
    /// Whether this very attempt got a unit.
    success: bool,
    /// `SUCCESS`, `ALREADY_PURCHASED` or `SOLD_OUT`.
    #[schema(example = "SUCCESS")]
    status: &'static str,
    /// The same in words.
    #[schema(example = "Purchase reserved successfully")]
    message: &'static str,
    /// The order that the user holds; not with `SOLD_OUT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "0198b7a0-5d5c-7c1e-8d6a-1f2e3d4c5b6a")]
    order_id: Option<OrderId>,
    /// `RESERVED` where the order rests on Redis alone, since RabbitMQ is away; usually absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "RESERVED")]
    durability: Option<&'static str>,
}

/// What a user holds of a sale.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserPurchase {
    /// Whether there is an order.
    purchased: bool,
    /// The order.
    #[schema(required, example = "0198b7a0-5d5c-7c1e-8d6a-1f2e3d4c5b6a")]
    order_id: Option<String>,
    /// `RESERVED`, `CONFIRMED` or `NOT_PURCHASED`.
    #[schema(example = "CONFIRMED")]
    status: &'static str,
}

/// Tries to buy one unit.
///
/// Whoever asks again after a lost reply is told `ALREADY_PURCHASED` with the same order.
#[utoipa::path(
    post,
    path = "/api/v1/sale/purchase",
    tag = "sale",
    request_body = PurchaseRequest<'_>,
    responses(
        (status = 200, description = "The attempt was decided", body = PurchaseReply),
        PurchaseProblems,
    )
)]
pub(crate) async fn attempt(State(app): State<App>, request: extract::Request) -> Response {
    answer(app, request).await
}

/// The same, of a request as it comes from the connection.
pub(super) async fn answer<B: Piecewise>(app: App, request: Request<B>) -> Response {
    let started = Instant::now();
    let mut response = match try_attempt(&app, request, started).await {
        Ok(response) => response,
        Err(problem) => {
            app.metrics.count_problem(problem.status);
            problem.into_response()
        }
    };
    let elapsed = started.elapsed();
    app.metrics.observe_purchase(elapsed);
    response.headers_mut().insert(SERVER_TIMING, server_timing(elapsed));
    response
}

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// How long the decision took, in milliseconds.
fn server_timing(took: Duration) -> HeaderValue {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let text = format!("purchase;dur={}.{:03}", micros / 1_000, micros % 1_000);
    HeaderValue::try_from(text).expect("digits are a valid header")
}

async fn try_attempt<B: Piecewise>(
    app: &App,
    request: Request<B>,
    started: Instant,
) -> Result<Response, Problem> {
    let body = body::json(request, app.body_timeout).await?;
    let PurchaseRequest { sale_id, user_id } = body::parse(&body)?;
    let decision = app.sales.attempt(&sale_id, &user_id).await?;
    app.count(&sale_id, &decision, started.elapsed());
    match decision {
        Decision::SoldOut => Ok(json(Bytes::from_static(SOLD_OUT_BODY))),
        Decision::Reserved(reservation) => {
            let durability = app.vitals.is_provisional().then_some("RESERVED");
            Ok(reply(true, "SUCCESS", RESERVED, reservation.order_id, durability))
        }
        Decision::AlreadyPurchased(purchase) => {
            // Whoever has lost the first reply hears no more of it than this one.
            let durability = (purchase.status != OrderStatus::Confirmed && app.vitals.is_provisional())
                .then_some("RESERVED");
            Ok(reply(false, "ALREADY_PURCHASED", ALREADY_PURCHASED, purchase.order_id, durability))
        }
        Decision::NotActive => {
            // Whoever bought in time and asks late still hears of the order.
            // That this cannot be looked up changes nothing of the decision.
            let held = app.sales.purchase(&sale_id, &user_id).await.ok().flatten();
            let order_id = held.map(|purchase| purchase.order_id.to_string());
            Err(Problem { order_id, ..Problem::bad_request(NOT_ACTIVE) })
        }
    }
}

fn reply(
    success: bool,
    status: &'static str,
    message: &'static str,
    order_id: OrderId,
    durability: Option<&'static str>,
) -> Response {
    let reply = PurchaseReply { success, status, message, order_id: Some(order_id), durability };
    json(serde_json::to_vec(&reply).expect("a reply is plain text").into())
}

fn json(body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What a user holds of a sale; known as soon as it is reserved.
#[utoipa::path(
    get,
    path = "/api/v1/sale/{saleId}/user/{userId}/purchase",
    tag = "sale",
    params(SaleInPath, UserInPath),
    responses(
        (status = 200, description = "What the user holds", body = UserPurchase),
        LookupProblems,
    )
)]
pub(crate) async fn of_user(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Momentary<UserPurchase>, Problem> {
    let (sale, user) = super::path(path)?;
    let held = app.sales.purchase(&sale, &user).await?;
    Ok(Momentary(match held {
        Some(held) => UserPurchase {
            purchased: true,
            order_id: Some(held.order_id.to_string()),
            status: held.status.as_str(),
        },
        None => UserPurchase { purchased: false, order_id: None, status: "NOT_PURCHASED" },
    }))
}
