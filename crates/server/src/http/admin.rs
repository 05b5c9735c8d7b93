//! What a shop does with its sales: make, change, pause, reset and delete them. Behind the admin token.

use axum::{
    Json as Reply,
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use flashsale_core::{
    clock::Timestamp,
    error::Invalid,
    product::{Price, Product, ProductChange},
    sale::SaleChange,
    service::SaleRequest,
};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type},
};

use super::{
    App,
    body::Json,
    openapi::SaleInPath,
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
    #[serde(deserialize_with = "stock")]
    #[schema(example = 100, minimum = 1, maximum = 10_000_000)]
    total_stock: u32,
    /// When it opens, RFC 3339.
    #[schema(value_type = String, format = DateTime, example = "2026-02-23T03:00:00.000Z")]
    starts_at: Timestamp,
    /// When it closes, RFC 3339; later than `startsAt`.
    #[schema(value_type = String, format = DateTime, example = "2026-02-23T04:00:00.000Z")]
    ends_at: Timestamp,
    /// What it is, in plain text of at most 2,000 characters; line breaks count.
    #[schema(example = "Made once, and never again.", max_length = 2_000)]
    description: Option<String>,
    /// Where its picture is: an `https:` or `http:` URL, or a path of this site.
    #[schema(example = "https://shop.example/pictures/42.webp", max_length = 2_000)]
    image_url: Option<String>,
    /// What one unit costs, as a number or as a decimal in text; with `currency`.
    price: Option<Amount>,
    /// The currency of the price, by ISO 4217.
    #[schema(example = "EUR", pattern = "^[A-Z]{3}$")]
    currency: Option<String>,
}

impl CreateSale {
    /// The same in the terms of the service.
    pub(super) fn request(self) -> Result<SaleRequest, Invalid> {
        let Self { sale_id, name, total_stock, starts_at, ends_at, description, image_url, .. } = self;
        let price = price(self.price.as_ref(), self.currency.as_deref())?;
        let product = Product { description, image_url, price };
        Ok(SaleRequest { sale_id, name, total_stock, starts_at, ends_at, product })
    }
}

/// What to change of a sale; what is not named stays.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ChangeSale {
    /// A new name, of 1 to 200 characters.
    #[serde(default, deserialize_with = "named")]
    #[schema(nullable = false, min_length = 1, max_length = 200)]
    name: Option<String>,
    /// A new total stock, 1 to 10,000,000, and not below a unit that somebody holds.
    #[serde(default, deserialize_with = "named_stock")]
    #[schema(nullable = false, minimum = 1, maximum = 10_000_000)]
    total_stock: Option<u32>,
    /// A new start, RFC 3339.
    #[serde(default, deserialize_with = "named")]
    #[schema(value_type = Option<String>, nullable = false, format = DateTime)]
    starts_at: Option<Timestamp>,
    /// A new end, RFC 3339; later than the start.
    #[serde(default, deserialize_with = "named")]
    #[schema(value_type = Option<String>, nullable = false, format = DateTime)]
    ends_at: Option<Timestamp>,
    /// Stop it for now, or let it go on.
    #[serde(default, deserialize_with = "named")]
    #[schema(nullable = false)]
    paused: Option<bool>,
    /// A new description; `null` takes it away.
    #[serde(default, deserialize_with = "named")]
    #[schema(value_type = Option<String>, max_length = 2_000)]
    description: Option<Option<String>>,
    /// A new picture; `null` takes it away.
    #[serde(default, deserialize_with = "named")]
    #[schema(value_type = Option<String>, max_length = 2_000)]
    image_url: Option<Option<String>>,
    /// A new price, with its `currency`; `null` takes both away.
    #[serde(default, deserialize_with = "named")]
    #[schema(value_type = Option<Amount>)]
    price: Option<Option<Amount>>,
    /// The currency of the new price, given with it; `null` takes both away.
    #[serde(default, deserialize_with = "named")]
    #[schema(value_type = Option<String>, pattern = "^[A-Z]{3}$")]
    currency: Option<Option<String>>,
}

impl ChangeSale {
    /// The same in the terms of the service.
    pub(super) fn change(self) -> Result<SaleChange, Invalid> {
        let Self { name, total_stock, starts_at, ends_at, paused, description, image_url, .. } = self;
        let price = match (self.price, self.currency) {
            (None, None) => None,
            (Some(None), None | Some(None)) => Some(None),
            (amount, currency) => Some(price(amount.flatten().as_ref(), currency.flatten().as_deref())?),
        };
        let product = ProductChange { description, image_url, price };
        Ok(SaleChange { name, total_stock, starts_at, ends_at, paused, product, expected_stock: None })
    }
}

/// An amount of money, as JSON has it: `129.5`, or `"129.50"`.
pub(crate) struct Amount(String);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Number(number) => Ok(Self(number.to_string())),
            serde_json::Value::String(text) => Ok(Self(text)),
            _ => Err(D::Error::custom(
                "must be a number such as 129.5, or a decimal in text such as \"129.50\"",
            )),
        }
    }
}

impl PartialSchema for Amount {
    fn schema() -> RefOr<Schema> {
        let number = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0));
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(r"^[0-9]+(\.[0-9]+)?$"));
        let either = OneOfBuilder::new().item(number).item(text);
        either.description(Some("An amount of money: 129.5, or \"129.50\"")).examples([json!(129.5)]).into()
    }
}

impl ToSchema for Amount {}

/// A number of units, or the same complaint about what is none as about one that is out of bounds.
fn stock<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let stock = serde_json::Value::deserialize(deserializer)?;
    stock.as_u64().and_then(|stock| u32::try_from(stock).ok()).ok_or_else(|| {
        let most = flashsale_core::sale::TOTAL_STOCK_MAX;
        D::Error::custom(format_args!("must be a whole number from 1 to {most}"))
    })
}

fn named_stock<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    stock(deserializer).map(Some)
}

/// A value that is named, be it `null` where that is one; without it, the default says that it is not.
fn named<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The price that amount and currency make; neither is worth anything alone.
fn price(amount: Option<&Amount>, currency: Option<&str>) -> Result<Option<Price>, Invalid> {
    match (amount, currency) {
        (Some(Amount(amount)), Some(currency)) => Price::new(amount, currency).map(Some),
        (Some(_), None) => Err(Invalid::new("currency", "must be given with a price, such as EUR")),
        (None, Some(_)) => Err(Invalid::new("price", "must be given with a currency, such as 129.00")),
        (None, None) => Ok(None),
    }
}

/// The sale to reset.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ResetSale {
    /// Its id.
    #[schema(example = "sale_1", pattern = "^[A-Za-z0-9_-]{1,64}$")]
    pub(super) sale_id: String,
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
        (
            status = 201, description = "The sale was made", body = SaleBody,
            headers(("Location" = String, description = "Where it is")),
            links(
                ("show" = (operation_id = "show", parameters(("saleId" = "$response.body#/saleId")))),
                ("change" = (operation_id = "change", parameters(("saleId" = "$response.body#/saleId")))),
                ("pause" = (operation_id = "pause", parameters(("saleId" = "$response.body#/saleId")))),
                ("resume" = (operation_id = "resume", parameters(("saleId" = "$response.body#/saleId")))),
                ("delete" = (operation_id = "delete", parameters(("saleId" = "$response.body#/saleId")))),
                ("orders" = (operation_id = "orders", parameters(("saleId" = "$response.body#/saleId")))),
                ("audit" = (operation_id = "audit", parameters(("saleId" = "$response.body#/saleId")))),
                ("status" = (operation_id = "status", parameters(("saleId" = "$response.body#/saleId")))),
            ),
        ),
        AdminProblems,
    )
)]
pub(crate) async fn create(State(app): State<App>, Json(new): Json<CreateSale>) -> Result<Response, Problem> {
    let made = app.sales.create(new.request()?).await?;
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
    params(SaleInPath),
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
    params(SaleInPath),
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
    Ok(Reply(app.sales.change(&path(sale)?, change.change()?).await?.into()))
}

/// Stops a sale for now.
#[utoipa::path(
    post,
    path = "/api/v1/admin/sales/{saleId}/pause",
    tag = "admin",
    security(("adminToken" = [])),
    params(SaleInPath),
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
    params(SaleInPath),
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
    params(SaleInPath),
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
