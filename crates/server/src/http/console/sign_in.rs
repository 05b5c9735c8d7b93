//! The console's door: in with the admin token, out again, and all of it on record.

use axum::{
    extract::{Query, Request, State},
    response::Response,
};
use flashsale_core::operator::{OperatorEntry, OperatorEvent};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tracing::{info, warn};

use super::{App, Fields, PATH, Problem, cookie, forbidden, is_secure, page, problem, see, set_cookie};
use crate::{
    admission::{COOKIE, LIFE, TooOften, is_ours},
    http::listener::Peer,
    web::console as web,
};

/// Where to go once signed in.
#[derive(Deserialize)]
pub(super) struct Next {
    #[serde(default)]
    next: String,
}

/// `GET /console/sign-in`: the form; or on, for somebody who is signed in.
pub(super) async fn show(
    State(app): State<App>,
    query: Result<Query<Next>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let next = query.map_or_else(|_| String::new(), |Query(Next { next })| next);
    let next = safe(&next);
    if app.door.session(&headers, app.sales.now()).is_some() {
        return see(next);
    }
    page(StatusCode::OK, web::sign_in(next, None))
}

/// `POST /console/sign-in`: in with the right token.
pub(super) async fn enter(State(app): State<App>, request: Request) -> Response {
    if !is_ours(request.headers()) {
        return forbidden("This was sent from a page of another site.");
    }
    let (secure, peer) = (is_secure(request.headers()), request.extensions().get::<Peer>().copied());
    let entered = async {
        let peer = peer.ok_or_else(|| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "It is not known where this comes from")
        })?;
        let fields = Fields::read(&app, request).await?;
        knock(&app, peer).await?;
        let next = safe(fields.get("next"));
        // Looked at before it is put on record, and told only after.
        let admitted = app.admin_token.admits(fields.get("token").trim().as_bytes());
        let event = if admitted { OperatorEvent::SignedIn } else { OperatorEvent::SignInRefused };
        put_on_record(&app, event, peer).await?;
        if !admitted {
            return Ok(page(StatusCode::FORBIDDEN, web::sign_in(next, Some("This is not the admin token."))));
        }
        let session = app.door.sessions.begin(app.sales.now());
        let mut response = see(next);
        let sealed = app.door.sessions.seal(&session);
        set_cookie(&mut response, &cookie(COOKIE, &sealed, LIFE.as_secs(), secure));
        Ok::<_, Problem>(response)
    };
    entered.await.unwrap_or_else(|refusal| problem(&refusal))
}

/// `POST /console/sign-out`: this browser forgets its session.
pub(super) async fn leave(State(app): State<App>, request: Request) -> Response {
    let secure = is_secure(request.headers());
    if let Some(peer) = request.extensions().get::<Peer>()
        && let Err(unrecorded) = put_on_record(&app, OperatorEvent::SignedOut, *peer).await
    {
        // Nobody is kept in because a record cannot be written.
        warn!(reason = unrecorded.message, "a sign-out is not on record");
    }
    let mut response = see(&format!("{PATH}/sign-in"));
    set_cookie(&mut response, &cookie(COOKIE, "", 0, secure));
    response
}

/// Whether somebody may try now.
async fn knock(app: &App, peer: Peer) -> Result<(), Problem> {
    let Err(TooOften { retry_after, tell }) = app.door.limit.admit(peer.0) else { return Ok(()) };
    if tell && let Err(unrecorded) = put_on_record(app, OperatorEvent::LockedOut, peer).await {
        warn!(reason = unrecorded.message, "a lock-out is not on record");
    }
    let text = format!(
        "There were too many tries to sign in; try again in {} s. Sessions that are open go on; so does the API.",
        retry_after.as_millis().div_ceil(1_000)
    );
    Err(Problem { retry_after: Some(retry_after), ..Problem::new(StatusCode::TOO_MANY_REQUESTS, text) })
}

/// Puts on record who was at the door. What cannot be recorded does not happen.
async fn put_on_record(app: &App, event: OperatorEvent, Peer(address): Peer) -> Result<(), Problem> {
    let entry = OperatorEntry { at: app.sales.now(), event, address };
    app.operators.record(&entry).await?;
    match event {
        OperatorEvent::SignedIn | OperatorEvent::SignedOut => info!(%address, "console: {event}"),
        OperatorEvent::SignInRefused | OperatorEvent::LockedOut => warn!(%address, "console: {event}"),
    }
    Ok(())
}

/// Where to go: a page of the console, and never another site.
pub(super) fn safe(next: &str) -> &str {
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    match next.strip_prefix(PATH) {
        Some(rest) if plain && (rest.is_empty() || rest.starts_with(['/', '?'])) => next,
        _ => PATH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_on_leads_nowhere_but_into_the_console() {
        for good in
            ["/console", "/console/system", "/console/sales/a/audit?user=b&type=RESERVED", "/console?x"]
        {
            assert_eq!(safe(good), good);
        }
        for bad in [
            "",
            "/",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example/console",
            "/consoles",
            "/console.evil.example",
            "/console@evil.example",
            "console",
            "/console/\\evil",
            "/console/a b",
            "/console\r\nset-cookie: a=b",
            "javascript:alert(1)",
            "/console/é",
        ] {
            assert_eq!(safe(bad), "/console", "{bad:?}");
        }
    }
}
