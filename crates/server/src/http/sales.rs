//! The state of sales: `GET /api/v1/sales` and `GET /api/v1/sale/{saleId}/status`.

use axum::extract::{Path, State, rejection::PathRejection};
use flashsale_core::{
    product::Price,
    sale::{Phase, SaleStatus},
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    App, Momentary,
    openapi::SaleInPath,
    problem::{LookupProblems, Problem, ProblemBody},
};

/// The state of a sale at one instant.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SaleStatus)]
pub(crate) struct SaleBody {
    /// Its id.
    #[schema(example = "sale_1")]
    sale_id: String,
    /// What people call it.
    #[schema(example = "Limited Edition Product - Flash Sale")]
    name: String,
    /// Units that can still be had.
    #[schema(example = 95)]
    remaining_stock: u32,
    /// Units that are taken: reserved and confirmed.
    #[schema(example = 5)]
    total_sold: u32,
    /// Whether a purchase may be tried right now.
    sale_active: bool,
    /// When it opens, RFC 3339.
    #[schema(example = "2026-02-23T03:00:00.000Z")]
    starts_at: String,
    /// When it closes, RFC 3339.
    #[schema(example = "2026-02-23T04:00:00.000Z")]
    ends_at: String,
    /// `UPCOMING`, `ACTIVE` or `ENDED`, by the clock alone.
    #[schema(example = "ACTIVE")]
    status: &'static str,
    /// Units in all.
    #[schema(example = 100)]
    total_stock: u32,
    /// Of the units that are taken, those whose orders are still to be confirmed.
    reserved: u32,
    /// Of the units that are taken, those whose orders are confirmed.
    confirmed: u32,
    /// Whether the shop has stopped it for now.
    paused: bool,
    /// Which of its lives this is; a reset begins the next.
    #[schema(example = 1)]
    epoch: u32,
    /// The moment of this state, by the clock that decides, RFC 3339.
    #[schema(example = "2026-02-23T03:12:34.567Z")]
    server_time: String,
    /// What it is, in plain text; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Made once, and never again.")]
    description: Option<String>,
    /// Where its picture is; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://shop.example/pictures/42.webp")]
    image_url: Option<String>,
    /// What one unit costs, with the decimals of its currency; absent where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, example = 129.00)]
    price: Option<Box<RawValue>>,
    /// The currency of the price, by ISO 4217.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "EUR")]
    currency: Option<String>,
}

impl SaleBody {
    /// The same without its texts and its picture, which do not change while people look.
    pub(crate) fn figures(status: SaleStatus) -> Self {
        Self { description: None, image_url: None, ..status.into() }
    }
}

impl From<SaleStatus> for SaleBody {
    fn from(status: SaleStatus) -> Self {
        let product = &*status.sale.product;
        Self {
            description: product.description.clone(),
            image_url: product.image_url.clone(),
            price: product.price.map(number),
            currency: product.price.map(|price| price.currency().to_owned()),
            sale_id: status.sale.id.to_string(),
            remaining_stock: status.available(),
            total_sold: status.sold(),
            sale_active: status.sale.is_open(status.now),
            starts_at: status.sale.window.starts_at().to_string(),
            ends_at: status.sale.window.ends_at().to_string(),
            status: match status.phase() {
                Phase::Upcoming => "UPCOMING",
                Phase::Active => "ACTIVE",
                Phase::Ended => "ENDED",
            },
            total_stock: status.sale.total_stock,
            reserved: status.reserved,
            confirmed: status.confirmed,
            paused: status.sale.paused,
            epoch: status.sale.epoch.0,
            server_time: status.now.to_string(),
            name: status.sale.name,
        }
    }
}

/// A price as a JSON number that keeps its decimals.
fn number(price: Price) -> Box<RawValue> {
    RawValue::from_string(price.amount()).expect("an amount is a JSON number")
}

/// All sales, in the order in which they were made.
#[utoipa::path(
    get,
    path = "/api/v1/sales",
    tag = "sale",
    responses(
        (status = 200, description = "All sales", body = Vec<SaleBody>),
        (status = 503, description = "A part that is needed is away; see Retry-After", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(State(app): State<App>) -> Result<Momentary<Vec<SaleBody>>, Problem> {
    Ok(Momentary(app.sales.statuses().await?.into_iter().map(SaleBody::from).collect()))
}

/// The state of one sale.
#[utoipa::path(
    get,
    path = "/api/v1/sale/{saleId}/status",
    tag = "sale",
    params(SaleInPath),
    responses(
        (status = 200, description = "Its state", body = SaleBody),
        LookupProblems,
    )
)]
pub(crate) async fn status(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Momentary<SaleBody>, Problem> {
    Ok(Momentary(app.sales.status(&super::path(path)?).await?.into()))
}
