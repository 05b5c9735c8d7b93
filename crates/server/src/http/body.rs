//! Reads request bodies within their bounds, and makes of them what they should be, or a clear 4xx.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use axum::{
    body::{Bytes, HttpBody},
    extract::{self, FromRequest},
};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{App, problem::Problem};

/// The longest body of any request but the console's, in bytes. The longest honest one is a sale's whose name, description
/// and picture are as long as they may be, and come from a client that writes each character as `\uXXXX`.
pub(crate) const BODY_BYTES: usize = 40 * 1024;
/// How much of a body that is too long is read and thrown away, so that its sender hears why.
const DISCARDED_BYTES: usize = 8 << 20;

/// A body as it arrives.
pub(crate) trait Piecewise: HttpBody<Data = Bytes> + Unpin {}

impl<B: HttpBody<Data = Bytes> + Unpin> Piecewise for B {}

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: extract::Request, app: &App) -> Result<Self, Problem> {
        let body = json(request, app.body_timeout).await?;
        parse(&body).map(Self)
    }
}

/// The bytes of a body that says that it is JSON.
pub(crate) async fn json<B: Piecewise>(request: Request<B>, within: Duration) -> Result<Bytes, Problem> {
    let is_json = is_of_type(request.headers(), "application/json");
    let is_encoded =
        request.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    let body = read(request, within).await?;
    if is_encoded {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The body must not be compressed or encoded otherwise (Content-Encoding)",
        ));
    }
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
    // To keep track of the path costs as much as to parse, and only who is refused wants to know it.
    serde_json::from_slice(body).or_else(|_| parse_with_path(body))
}

/// The same, to say what is wrong and where.
fn parse_with_path<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
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
pub(crate) async fn read<B: Piecewise>(request: Request<B>, within: Duration) -> Result<Bytes, Problem> {
    read_up_to(BODY_BYTES, request, within).await
}

/// The same with a bound of the caller's own.
pub(crate) async fn read_up_to<B: Piecewise>(
    bytes: usize,
    request: Request<B>,
    within: Duration,
) -> Result<Bytes, Problem> {
    let (length, mut body) = (content_length(request.headers()), request.into_body());
    let reading = async {
        if length.is_some_and(|length| length > bytes as u64) {
            if length.is_some_and(|length| length <= DISCARDED_BYTES as u64) {
                discard(&mut body).await;
            }
            return Err(too_long(bytes));
        }
        collect(&mut body, bytes).await
    };
    // Nearly always all of it came with the header, and no clock is needed.
    let mut reading = pin!(reading);
    if let Poll::Ready(read) = poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await {
        return read;
    }
    timeout(within, reading).await.unwrap_or_else(|_| {
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "The body took too long to arrive"))
    })
}

/// The whole body. One that comes in one piece is not copied.
async fn collect(body: &mut impl Piecewise, most: usize) -> Result<Bytes, Problem> {
    let (mut first, mut whole) = (Bytes::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("The body broke off before its end"))?;
        let Ok(piece) = frame.into_data() else { continue };
        if first.len().max(whole.len()) + piece.len() > most {
            discard(body).await;
            return Err(too_long(most));
        }
        if first.is_empty() {
            first = piece;
            continue;
        }
        if whole.is_empty() {
            whole.extend_from_slice(&first);
        }
        whole.extend_from_slice(&piece);
    }
    Ok(if whole.is_empty() { first } else { whole.into() })
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

async fn discard(body: &mut impl Piecewise) {
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
