//! The console: where an operator runs sales with a browser. Behind a sign-in with the admin token.
//!
//! Everything works without a script: each change is a form whose answer is a redirect to a page that says what was
//! done, so that loading again does nothing twice. What a form got wrong is told at its fields, with what was typed.

mod form;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod integrity;
mod live;
mod records;
mod sales;
mod sign_in;
mod system;

use axum::{
    Router,
    extract::{FromRequestParts, Path, Request, rejection::PathRejection},
    middleware,
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};

pub(crate) use self::integrity::Judge;
use super::{App, Problem, body};
use crate::{
    admission::{self, Operator, Session},
    web::console::{self as web, Flash, Frame, Here},
};

/// The cookie that carries a message to the next page.
const FLASH: &str = "flashsale_flash";
/// How long a message waits for its page, in seconds.
const FLASH_S: u64 = 60;
/// Where a message can be shown is all of the console, and nothing else.
const PATH: &str = "/console";
/// When an operator should come again whose page could not be made, in seconds.
const RETRY_AFTER_S: u64 = 5;

/// The longest form, in bytes: a description of 2,000 characters, each of which a form may write as 12.
pub(crate) const FORM_BYTES: usize = 64 * 1024;

type SalePath = Result<Path<String>, PathRejection>;

/// Everything below `/console`.
pub(super) fn routes(app: &App) -> Router<App> {
    let inside = Router::new()
        .route("/console", get(sales::list))
        .route("/console/sales", get(to_list).post(sales::create))
        .route("/console/new-sale", get(sales::new))
        .route("/console/sales/{sale_id}", get(sales::show))
        .route("/console/sales/{sale_id}/edit", get(sales::edit).post(sales::change))
        .route("/console/sales/{sale_id}/clone", get(sales::copy))
        .route("/console/sales/{sale_id}/pause", post(sales::pause))
        .route("/console/sales/{sale_id}/resume", post(sales::resume))
        .route("/console/sales/{sale_id}/end", post(sales::end))
        .route("/console/sales/{sale_id}/restock", post(sales::restock))
        .route("/console/sales/{sale_id}/delete", post(sales::delete))
        .route("/console/sales/{sale_id}/reset", get(sales::ask_reset).post(sales::reset))
        .route("/console/sales/{sale_id}/integrity", get(integrity::show).post(integrity::check))
        .route("/console/sales/{sale_id}/orders", get(records::orders))
        .route("/console/sales/{sale_id}/orders.csv", get(records::orders_csv))
        .route("/console/sales/{sale_id}/orders.ndjson", get(records::orders_ndjson))
        .route("/console/sales/{sale_id}/audit", get(records::audit))
        .route("/console/sales/{sale_id}/audit.csv", get(records::audit_csv))
        .route("/console/sales/{sale_id}/audit.ndjson", get(records::audit_ndjson))
        .route("/console/sales/{sale_id}/events", get(live::watch))
        .route("/console/system", get(system::show))
        .route("/console/sign-out", post(sign_in::leave))
        .route("/console/{*elsewhere}", get(nowhere))
        .route_layer(middleware::from_fn_with_state(app.clone(), admission::require_operator));
    let door = Router::new().route("/console/sign-in", get(sign_in::show).post(sign_in::enter));
    inside.merge(door)
}

/// `GET /console/sales`, for whoever shortens an address.
async fn to_list() -> Response {
    see(PATH)
}

/// Any other path: a page from which the console goes on.
async fn nowhere(desk: Desk, uri: http::Uri) -> Response {
    desk.problem(&Problem::new(StatusCode::NOT_FOUND, format!("There is nothing at {}.", uri.path())))
}

/// An operator at work: whose session it is, and what the last page left to be said.
pub(crate) struct Desk {
    session: Session,
    flash: Option<Flash>,
    /// Why purchases cannot be made, if they cannot.
    trouble: Option<String>,
    app: App,
    secure: bool,
}

impl FromRequestParts<App> for Desk {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let Operator(session) = Operator::from_request_parts(parts, app).await?;
        let flash = admission::cookies(&parts.headers, FLASH).find_map(|cookie| {
            let (tag, words) = cookie.split_once('.')?;
            app.door.sessions.signed_words(&session, words, tag).then_some(())?;
            let (kind, text) = form_urlencoded::parse(words.as_bytes()).next()?;
            Some(Flash { failed: kind == "failed", text: text.into_owned() })
        });
        let trouble = app.vitals.ready().await.err().map(|error| error.to_string());
        Ok(Self { session, flash, trouble, app: app.clone(), secure: is_secure(&parts.headers) })
    }
}

impl Desk {
    fn frame(&self, here: Here) -> Frame {
        let csrf = self.app.door.sessions.csrf(&self.session);
        Frame { csrf, flash: self.flash.clone(), here, trouble: self.trouble.clone() }
    }

    /// A page; a message that it shows is used up.
    fn page(&self, status: StatusCode, html: askama::Result<String>) -> Response {
        let mut response = page(status, html);
        if self.flash.is_some() {
            set_cookie(&mut response, &cookie(FLASH, "", 0, self.secure));
        }
        response
    }

    /// What cannot be shown or done, as a page within the console.
    fn problem(&self, problem: &Problem) -> Response {
        let mut response = self.page(problem.status, error(self.frame(Here::Elsewhere), problem));
        retry_after(&mut response, problem);
        response
    }

    /// Off to `path`, which says what was done.
    fn done(&self, path: &str, text: &str) -> Response {
        self.say(path, "done", text)
    }

    /// Off to `path`, which says what could not be done.
    fn failed(&self, path: &str, text: &str) -> Response {
        self.say(path, "failed", text)
    }

    fn say(&self, path: &str, kind: &str, text: &str) -> Response {
        let words = form_urlencoded::Serializer::new(String::new()).append_pair(kind, text).finish();
        let tag = self.app.door.sessions.sign_words(&self.session, &words);
        let mut response = see(path);
        set_cookie(&mut response, &cookie(FLASH, &format!("{tag}.{words}"), FLASH_S, self.secure));
        response
    }
}

/// The address of a sale's page in the console.
fn at(sale: &str) -> String {
    format!("{PATH}/sales/{sale}")
}

/// The fields of a form, in their order.
struct Fields(Vec<(String, String)>);

impl Fields {
    async fn read(app: &App, request: Request) -> Result<Self, Problem> {
        if !body::is_of_type(request.headers(), "application/x-www-form-urlencoded") {
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be a form's fields"));
        }
        let body = body::read_up_to(FORM_BYTES, request, app.body_timeout).await?;
        Ok(Self(form_urlencoded::parse(&body).into_owned().collect()))
    }

    /// The value of the first field of that name; nothing where there is none.
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value)
    }
}

/// What `require_operator` answers to whoever is not signed in.
pub(crate) fn to_sign_in(asked: Option<&str>) -> Response {
    match asked.filter(|asked| *asked != PATH) {
        Some(asked) => {
            let next = form_urlencoded::Serializer::new(String::new()).append_pair("next", asked).finish();
            see(&format!("{PATH}/sign-in?{next}"))
        }
        None => see(&format!("{PATH}/sign-in")),
    }
}

/// What it answers to what was not sent from a page of this session.
pub(crate) fn forbidden(text: &str) -> Response {
    problem(&Problem::new(StatusCode::FORBIDDEN, text))
}

/// What cannot be done, as a page for somebody who may not be signed in.
pub(crate) fn problem(problem: &Problem) -> Response {
    let mut response = page(problem.status, error(Frame::outside(), problem));
    retry_after(&mut response, problem);
    response
}

fn error(frame: Frame, problem: &Problem) -> askama::Result<String> {
    let title = problem.status.canonical_reason().unwrap_or("Error");
    web::error(frame, problem.status.as_u16(), title, &problem.message)
}

fn retry_after(response: &mut Response, problem: &Problem) {
    let seconds = match problem.retry_after {
        Some(after) => after.as_secs_f64().ceil() as u64,
        None if problem.status == StatusCode::SERVICE_UNAVAILABLE => RETRY_AFTER_S,
        None => return,
    };
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
}

/// 303: see another page, by GET.
fn see(path: &str) -> Response {
    let place = HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static(PATH));
    let headers = [(header::LOCATION, place), (header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::SEE_OTHER, headers).into_response()
}

fn page(status: StatusCode, html: askama::Result<String>) -> Response {
    match html {
        Ok(html) => {
            let headers = [
                (header::CONTENT_SECURITY_POLICY, web::CONTENT_SECURITY_POLICY),
                // What a form carries is for this session alone.
                (header::CACHE_CONTROL, "no-store"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                // Not "no-referrer": a browser would then say the origin of our own forms is "null".
                (header::REFERRER_POLICY, "same-origin"),
            ];
            (status, headers, Html(html)).into_response()
        }
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Whether the browser spoke TLS, as the proxy says that it spoke to.
fn is_secure(headers: &HeaderMap) -> bool {
    let forwarded = headers.get("x-forwarded-proto").and_then(|proto| proto.to_str().ok());
    forwarded
        .is_some_and(|proto| proto.split(',').next().unwrap_or_default().trim().eq_ignore_ascii_case("https"))
}

fn cookie(name: &str, value: &str, seconds: u64, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{name}={value}; Path={PATH}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

fn set_cookie(response: &mut Response, cookie: &str) {
    // Cookies are made of hexadecimal digits and what a form's encoding leaves, which is all ASCII.
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}
