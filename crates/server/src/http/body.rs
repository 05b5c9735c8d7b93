//! Reads request bodies within their bounds, and makes of them what they should be, or a clear 4xx.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, Request},
};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{App, problem::Problem};

/// The longest body of any request but the console's, in bytes. The longest honest one is a sale's with a long name.
pub(crate) const BODY_BYTES: usize = 16 * 1024;
/// How much of a body that is too long is read and thrown away, so that its sender hears why.
const DISCARDED_BYTES: usize = 8 << 20;

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let body = json(request, app.body_timeout).await?;
        parse(&body).map(Self)
    }
}

/// The bytes of a body that says that it is JSON.
pub(crate) async fn json(request: Request, within: Duration) -> Result<Bytes, Problem> {
    let is_json = is_of_type(request.headers(), "application/json");
    let body = read(request, within).await?;
    if !is_json {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The body must be JSON, with the header Content-Type: application/json",
        ));
    }
    Ok(body)
}

/// What a JSON body stands for.
pub(crate) fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    // Said here, because a deserializer would also take an array of the fields in their order.
    match body.trim_ascii_start().first() {
        Some(b'{') => {}
        Some(_) => return Err(Problem::bad_request("The body must be a JSON object")),
        None => return Err(Problem::bad_request("The body is empty; it must be a JSON object")),
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if path == "." || inner.is_syntax() || inner.is_eof() {
            Problem::bad_request(format!("The body is not the JSON that it must be: {inner}"))
        } else {
            Problem::bad_request(format!("{path}: {inner}"))
        }
    })?;
    deserializer.end().map_err(|error| {
        Problem::bad_request(format!("The body is not the JSON that it must be: {error}"))
    })?;
    Ok(parsed)
}

/// Reads a whole body, which has this long to arrive.
pub(crate) async fn read(request: Request, within: Duration) -> Result<Bytes, Problem> {
    read_up_to(BODY_BYTES, request, within).await
}

/// The same with a bound of the caller's own.
pub(crate) async fn read_up_to(bytes: usize, request: Request, within: Duration) -> Result<Bytes, Problem> {
    let (length, mut body) = (content_length(request.headers()), request.into_body());
    let reading = async {
        if length.is_some_and(|length| length > bytes as u64) {
            if length.is_some_and(|length| length <= DISCARDED_BYTES as u64) {
                discard(&mut body).await;
            }
            return Err(too_long(bytes));
        }
        match Limited::new(&mut body, bytes).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                discard(&mut body).await;
                Err(too_long(bytes))
            }
            Err(_) => Err(Problem::bad_request("The body broke off before its end")),
        }
    };
    timeout(within, reading).await.unwrap_or_else(|_| {
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "The body took too long to arrive"))
    })
}

/// Whether the body is of this media type, whatever its parameters.
pub(crate) fn is_of_type(headers: &HeaderMap, media_type: &str) -> bool {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split(';').next().is_some_and(|value| value.trim().eq_ignore_ascii_case(media_type))
    })
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn discard(body: &mut Body) {
    let mut left = DISCARDED_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

fn too_long(bytes: usize) -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("The body is too long; it must be at most {bytes} bytes"),
    )
}
