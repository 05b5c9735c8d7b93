//! Admission: who are you, and may you do this.
//!
//! Programs bring the admin token with each request; an operator's browser brings it once and has a session
//! from then on. What a crowd may try (rate limits, signed user ids, waiting rooms) will stand here too, before
//! anything reaches a sale.
//!
//! - [`admin_token`]: the token, given or made.
//! - [`session`]: the signed cookie of the console, and what its forms carry.
//! - [`origin`]: whether a form comes from our own pages.
//! - [`sign_in_limit`]: how often somebody may try to sign in.

mod admin_token;
mod origin;
mod session;
mod sign_in_limit;

use axum::{
    body::Body,
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use flashsale_core::clock::Timestamp;
use governor::clock::MonotonicClock;
use http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts};

pub(crate) use admin_token::{AdminToken, DEMO, FILE_NAME};
pub(crate) use origin::is_ours;
pub(crate) use session::{COOKIE, LIFE, Session, Sessions};
pub(crate) use sign_in_limit::{SignInLimit, TooOften};

use crate::http::{App, NO_STORE, Problem, body, console};

/// Where a script sends what a form sends as `csrf`.
const CSRF_HEADER: HeaderName = HeaderName::from_static("x-csrf-token");

/// Lets a request pass that carries the admin token.
pub(crate) async fn require_admin(State(app): State<App>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION);
    let token = header.and_then(|value| bearer(value.as_bytes()));
    match token {
        Some(token) if app.admin_token.admits(token) => {
            let mut response = next.run(request).await;
            response.headers_mut().entry(header::CACHE_CONTROL).or_insert(NO_STORE);
            response
        }
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

/// The door of the console: who may come in, and how often somebody may knock.
pub(crate) struct Door {
    pub(crate) sessions: Sessions,
    pub(crate) limit: SignInLimit,
}

impl Door {
    pub(crate) fn new(token: &AdminToken) -> Self {
        Self { sessions: Sessions::new(token), limit: SignInLimit::new(MonotonicClock) }
    }

    /// The session that a request belongs to.
    pub(crate) fn session(&self, headers: &HeaderMap, now: Timestamp) -> Option<Session> {
        cookies(headers, COOKIE).find_map(|cookie| self.sessions.unseal(cookie, now))
    }
}

/// The values of the cookies of that name. There may be several, one for each path that was ever set.
pub(crate) fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.filter(move |(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

/// Who is signed in, for the handlers behind [`require_operator`].
#[derive(Clone)]
pub(crate) struct Operator(pub(crate) Session);

impl FromRequestParts<App> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "This page stands outside the console's door")
        })
    }
}

/// Lets a request of the console pass whose session is valid; where it changes something, also only if it comes
/// from a page of ours and carries that session's own token.
pub(crate) async fn require_operator(State(app): State<App>, request: Request, next: Next) -> Response {
    let changes = ![Method::GET, Method::HEAD].contains(request.method());
    if changes && !is_ours(request.headers()) {
        return console::forbidden("This was sent from a page of another site.");
    }
    let Some(session) = app.door.session(request.headers(), app.sales.now()) else {
        let asked = request.uri().path_and_query().filter(|_| !changes);
        return console::to_sign_in(asked.map(http::uri::PathAndQuery::as_str));
    };
    let passed = if changes { with_csrf(&app, &session, request).await } else { Ok(request) };
    match passed {
        Ok(mut request) => {
            request.extensions_mut().insert(Operator(session));
            next.run(request).await
        }
        Err(refusal) => refusal,
    }
}

/// The request, if it carries the token of its session's forms: in a header, or else in its body.
async fn with_csrf(app: &App, session: &Session, request: Request) -> Result<Request, Response> {
    let is_csrf = |token: &str| app.door.sessions.is_csrf(session, token);
    let header = request.headers().get(CSRF_HEADER).and_then(|token| token.to_str().ok());
    if header.is_some_and(is_csrf) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    let body = body::read_up_to(console::FORM_BYTES, request, app.body_timeout).await;
    let body = body.map_err(|problem| console::problem(&problem))?;
    let mut fields = form_urlencoded::parse(&body);
    if fields.any(|(name, value)| name == "csrf" && is_csrf(&value)) {
        return Ok(Request::from_parts(parts, Body::from(body.clone())));
    }
    Err(console::forbidden(
        "The form was not made for this session. Load the page again, and send it from there.",
    ))
}
