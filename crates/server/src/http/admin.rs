//! What a shop does with its sales: make, change, pause, reset and delete them. Behind the admin token.

use axum::{
    Json as Reply,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use flashsale_core::{clock::Timestamp, sale::SaleChange, service::SaleRequest};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    App,
    body::Json,
    path,
    problem::{AdminProblems, Problem},
    sales::SaleBody,
};

type SalePath = Result<Path<String>, PathRejection>;

/// A sale to be made.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct CreateSale {
    /// Its id: 1 to 64 characters of `A-Za-z0-9_-`. One is made when there is none.
    #[schema(example = "sneakers-42", pattern = "^[A-Za-z0-9_-]{1,64}$")]
    sale_id: Option<String>,
    /// What people call it, in 1 to 200 characters.
    #[schema(example = "Limited sneakers", min_length = 1, max_length = 200)]
    name: String,
    /// Units in all, 1 to 10,000,000.
    #[schema(example = 100, minimum = 1, maximum = 10_000_000)]
    total_stock: u32,
    /// When it opens, RFC 3339.
    #[schema(value_type = String, format = DateTime, example = "2026-02-23T03:00:00.000Z")]
    starts_at: Timestamp,
    /// When it closes, RFC 3339; later than `startsAt`.
    #[schema(value_type = String, format = DateTime, example = "2026-02-23T04:00:00.000Z")]
    ends_at: Timestamp,
}

/// What to change of a sale; what is not named stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ChangeSale {
    /// A new name, of 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
    /// A new total stock, 1 to 10,000,000, and not below a unit that somebody holds.
    #[schema(minimum = 1, maximum = 10_000_000)]
    total_stock: Option<u32>,
    /// A new start, RFC 3339.
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    /// A new end, RFC 3339; later than the start.
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Timestamp>,
    /// Stop it for now, or let it go on.
    paused: Option<bool>,
}

/// The sale to reset.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResetSale {
    /// Its id.
    #[schema(example = "sale_1", pattern = "^[A-Za-z0-9_-]{1,64}$")]
    sale_id: String,
}

/// The word that a sale has been reset.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResetReply {
    /// Always `true`; anything else is an error.
    success: bool,
    /// The same in words.
    #[schema(example = "Sale sale_1 has been reset")]
    message: String,
}

/// Makes a sale.
#[utoipa::path(
    post,
    path = "/api/v1/admin/sales",
    tag = "admin",
    security(("adminToken" = [])),
    request_body = CreateSale,
    responses(
        (status = 201, description = "The sale was made", body = SaleBody),
        AdminProblems,
    )
)]
pub(crate) async fn create(State(app): State<App>, Json(new): Json<CreateSale>) -> Result<Response, Problem> {
    let CreateSale { sale_id, name, total_stock, starts_at, ends_at } = new;
    let made = app.sales.create(SaleRequest { sale_id, name, total_stock, starts_at, ends_at }).await?;
    let place = HeaderValue::try_from(format!("/api/v1/admin/sales/{}", made.sale.id))
        .expect("a sale id is a valid header");
    let reply = Reply(SaleBody::from(made));
    Ok((StatusCode::CREATED, [(header::LOCATION, place)], reply).into_response())
}

/// The state of one sale.
#[utoipa::path(
    get,
    path = "/api/v1/admin/sales/{saleId}",
    tag = "admin",
    security(("adminToken" = [])),
    params(("saleId" = String, Path, description = "The sale")),
    responses(
        (status = 200, description = "Its state", body = SaleBody),
        AdminProblems,
    )
)]
pub(crate) async fn show(State(app): State<App>, sale: SalePath) -> Result<Reply<SaleBody>, Problem> {
    Ok(Reply(app.sales.status(&path(sale)?).await?.into()))
}

/// Changes a sale; the next request sees it.
#[utoipa::path(
    patch,
    path = "/api/v1/admin/sales/{saleId}",
    tag = "admin",
    security(("adminToken" = [])),
    params(("saleId" = String, Path, description = "The sale")),
    request_body = ChangeSale,
    responses(
        (status = 200, description = "Its new state", body = SaleBody),
        AdminProblems,
    )
)]
pub(crate) async fn change(
    State(app): State<App>,
    sale: SalePath,
    Json(change): Json<ChangeSale>,
) -> Result<Reply<SaleBody>, Problem> {
    let ChangeSale { name, total_stock, starts_at, ends_at, paused } = change;
    let change = SaleChange { name, total_stock, starts_at, ends_at, paused };
    Ok(Reply(app.sales.change(&path(sale)?, change).await?.into()))
}

/// Stops a sale for now.
#[utoipa::path(
    post,
    path = "/api/v1/admin/sales/{saleId}/pause",
    tag = "admin",
    security(("adminToken" = [])),
    params(("saleId" = String, Path, description = "The sale")),
    responses(
        (status = 200, description = "Its new state", body = SaleBody),
        AdminProblems,
    )
)]
pub(crate) async fn pause(State(app): State<App>, sale: SalePath) -> Result<Reply<SaleBody>, Problem> {
    Ok(Reply(app.sales.set_paused(&path(sale)?, true).await?.into()))
}

/// Lets a paused sale go on.
#[utoipa::path(
    post,
    path = "/api/v1/admin/sales/{saleId}/resume",
    tag = "admin",
    security(("adminToken" = [])),
    params(("saleId" = String, Path, description = "The sale")),
    responses(
        (status = 200, description = "Its new state", body = SaleBody),
        AdminProblems,
    )
)]
pub(crate) async fn resume(State(app): State<App>, sale: SalePath) -> Result<Reply<SaleBody>, Problem> {
    Ok(Reply(app.sales.set_paused(&path(sale)?, false).await?.into()))
}

/// Deletes a sale that has no orders. Its audit trail stays.
#[utoipa::path(
    delete,
    path = "/api/v1/admin/sales/{saleId}",
    tag = "admin",
    security(("adminToken" = [])),
    params(("saleId" = String, Path, description = "The sale")),
    responses(
        (status = 204, description = "The sale is gone"),
        AdminProblems,
    )
)]
pub(crate) async fn delete(State(app): State<App>, sale: SalePath) -> Result<StatusCode, Problem> {
    app.sales.delete(&path(sale)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Drops a sale's orders and purchasers, restores its stock, raises its epoch.
#[utoipa::path(
    post,
    path = "/api/v1/admin/reset",
    tag = "admin",
    security(("adminToken" = [])),
    request_body = ResetSale,
    responses(
        (status = 200, description = "The sale was reset", body = ResetReply),
        AdminProblems,
    )
)]
pub(crate) async fn reset(
    State(app): State<App>,
    Json(ResetSale { sale_id }): Json<ResetSale>,
) -> Result<Reply<ResetReply>, Problem> {
    app.sales.reset(&sale_id).await?;
    Ok(Reply(ResetReply { success: true, message: format!("Sale {sale_id} has been reset") }))
}
