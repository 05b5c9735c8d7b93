//! Admission: who are you, and may you do this.
//!
//! Today that is the admin token. What a crowd may try (rate limits, signed user ids, waiting rooms) will
//! stand here too, before anything reaches a sale.

mod admin_token;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};

pub(crate) use admin_token::{AdminToken, DEMO, FILE_NAME};

use crate::http::{App, Problem};

/// Lets a request pass that carries the admin token.
pub(crate) async fn require_admin(State(app): State<App>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION);
    let token = header.and_then(|value| bearer(value.as_bytes()));
    match token {
        Some(token) if app.admin_token.admits(token) => next.run(request).await,
        Some(_) => Problem::new(StatusCode::UNAUTHORIZED, "The admin token is wrong").into_response(),
        None => Problem::new(
            StatusCode::UNAUTHORIZED,
            "This needs the admin token, as the header Authorization: Bearer <token>",
        )
        .into_response(),
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}
