//! The OpenAPI document, and a page for it that works offline.

use std::sync::{Arc, LazyLock};

use axum::{
    Json,
    extract::{Path, rejection::PathRejection},
    response::{IntoResponse, Redirect, Response},
};
use http::{StatusCode, header};
use utoipa::{
    IntoParams, Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerFile};

use super::{Problem, admin, events, export, health, metrics, path, purchase, sales};

/// The sale that a path names.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it only describes a part of a path")]
pub(crate) struct SaleInPath {
    /// The sale
    #[param(rename = "saleId", example = "sale_1", pattern = "^[A-Za-z0-9_-]{1,64}$")]
    sale_id: String,
}

/// The user that a path names.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it only describes a part of a path")]
pub(crate) struct UserInPath {
    /// The user, percent-encoded: at most 255 bytes without control characters
    #[param(
        rename = "userId",
        example = "user123",
        min_length = 1,
        max_length = 255,
        pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]+$"
    )]
    user_id: String,
}

/// The document, from the handlers' own words.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Flashsale",
        description = "Sells a limited stock to a crowd: never oversold, one a user, first come first served, and nothing lost.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "sale", description = "Look at sales and buy"),
        (name = "admin", description = "Run sales; with the admin token"),
        (name = "operation", description = "Keep it running"),
    ),
    paths(
        sales::list, sales::status, events::of_all, events::of_sale, purchase::attempt, purchase::of_user,
        admin::create, admin::show, admin::change, admin::delete, admin::pause, admin::resume, admin::reset,
        export::orders, export::audit,
        health::health, health::live, health::ready, metrics::scrape,
    ),
    modifiers(&AdminTokenScheme, &ShortLookup),
)]
struct Document;

struct AdminTokenScheme;

impl Modify for AdminTokenScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "The admin token: FLASHSALE_ADMIN_TOKEN, or the file admin-token in the data folder",
            ))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("adminToken", SecurityScheme::Http(scheme));
    }
}

/// The lookup of a purchase under its second path, as the seed's diagram has it.
struct ShortLookup;

impl Modify for ShortLookup {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let long = "/api/v1/sale/{saleId}/user/{userId}/purchase";
        let mut item = document.paths.paths.get(long).expect("the lookup is documented").clone();
        let operation = item.get.as_mut().expect("the lookup is a GET");
        operation.operation_id = Some("of_user_short".to_owned());
        document.paths.paths.insert(long.trim_end_matches("/purchase").to_owned(), item);
    }
}

/// The document as `flashsale openapi` prints it.
pub(crate) fn pretty() -> String {
    serde_json::to_string_pretty(&Document::openapi()).expect("the document is plain data")
}

/// `GET /openapi.json`.
pub(crate) async fn document() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}

/// `GET /docs`: to the page, whose files lie below it.
pub(crate) async fn page() -> Redirect {
    Redirect::permanent("/docs/index.html")
}

static PAGE: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    // Without the badge of a validator on the Internet.
    Arc::new(Config::from("/openapi.json").validator_url("none"))
});

/// The page sets styles on its elements, so it needs more than our own pages do.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A file of the page as we serve it: the page itself with our title, and as wide as the screen that it is read on.
fn ours(file: &str, bytes: Vec<u8>) -> Vec<u8> {
    const TITLE: &str = "<title>Swagger UI</title>";
    const OURS: &str = "<title>Flashsale API</title>\n    \
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">";
    if file != "index.html" {
        return bytes;
    }
    String::from_utf8_lossy(&bytes).replacen(TITLE, OURS, 1).into_bytes()
}

/// A file of the page.
pub(crate) async fn file(file: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let file = path(file)?;
    match utoipa_swagger_ui::serve(&file, PAGE.clone()) {
        Ok(Some(SwaggerFile { bytes, content_type, gzpipped: false, .. })) => {
            let headers = [
                (header::CONTENT_TYPE, content_type),
                (header::CONTENT_SECURITY_POLICY, POLICY.to_owned()),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            ];
            Ok((headers, ours(&file, bytes.into_owned())).into_response())
        }
        _ => Err(Problem::new(StatusCode::NOT_FOUND, format!("There is no page /docs/{file}"))),
    }
}
