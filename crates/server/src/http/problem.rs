//! Errors as people and programs get them: `application/problem+json` (RFC 9457), with the seed's fields.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use flashsale_core::Error;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder, response::Response as Documented},
};

use super::NO_STORE;

/// What went wrong with a request.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    /// The order that a user holds of a sale which is not active any more.
    pub(crate) order_id: Option<String>,
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(crate) struct ProblemBody<'a> {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[schema(example = "about:blank")]
    r#type: &'static str,
    /// The status in words.
    #[schema(example = "Bad Request")]
    title: &'a str,
    /// The status.
    #[schema(example = 400)]
    status: u16,
    /// What is wrong with this very request.
    #[schema(example = "Sale is not currently active")]
    detail: &'a str,
    /// As `status`.
    #[schema(example = 400)]
    status_code: u16,
    /// As `detail`.
    #[schema(example = "Sale is not currently active")]
    message: &'a str,
    /// As `title`.
    #[schema(example = "Bad Request")]
    error: &'a str,
    /// The order that the user holds already, where the sale is not active any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<&'a str>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None, order_id: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let (status, retry_after) = match &error {
            Error::UnknownSale(_) => (StatusCode::NOT_FOUND, None),
            Error::SaleExists(_) | Error::Conflict(_) => (StatusCode::CONFLICT, None),
            Error::Invalid(_) => (StatusCode::BAD_REQUEST, None),
            Error::Busy { retry_after } | Error::Unavailable { retry_after, .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, Some(*retry_after))
            }
            Error::Refused(_) => (StatusCode::UNPROCESSABLE_ENTITY, None),
        };
        Self { retry_after, ..Self::new(status, error.to_string()) }
    }
}

impl From<flashsale_core::error::Invalid> for Problem {
    fn from(invalid: flashsale_core::error::Invalid) -> Self {
        Error::Invalid(invalid).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let body = ProblemBody {
            r#type: "about:blank",
            title,
            status: self.status.as_u16(),
            detail: &self.message,
            status_code: self.status.as_u16(),
            message: &self.message,
            error: title,
            order_id: self.order_id.as_deref(),
        };
        let body = serde_json::to_vec(&body).expect("a problem is plain text and numbers");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, NO_STORE);
        if let Some(retry_after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The problems of a lookup, for the API's documentation.
pub(crate) struct LookupProblems;
/// The problems of a purchase.
pub(crate) struct PurchaseProblems;
/// The problems of what only the operator may do.
pub(crate) struct AdminProblems;

impl IntoResponses for LookupProblems {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        documented(&[400, 404, 503])
    }
}

impl IntoResponses for PurchaseProblems {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        documented(&[400, 404, 408, 413, 415, 503])
    }
}

impl IntoResponses for AdminProblems {
    fn responses() -> BTreeMap<String, RefOr<Documented>> {
        documented(&[400, 401, 404, 408, 409, 413, 415, 503])
    }
}

fn documented(statuses: &[u16]) -> BTreeMap<String, RefOr<Documented>> {
    let one = |status: &u16| {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new()
            .description(what(*status))
            .content("application/problem+json", body)
            .build();
        (status.to_string(), RefOr::T(response))
    };
    statuses.iter().map(one).collect()
}

/// What a status means here.
fn what(status: u16) -> &'static str {
    match status {
        400 => "A value is not what it must be, or the sale is not active; the message says which",
        401 => "The admin token is missing or wrong",
        404 => "There is no such sale",
        408 => "The body took too long to arrive",
        409 => "It does not fit the state that the sale is in; the message says why",
        413 => "The body is too long",
        415 => "The body is not JSON",
        _ => "The system is at its limit, or cannot record anything right now; see Retry-After",
    }
}
