//! The storefront's pages: what a browser gets that asks for HTML, on the shop's own site or in a frame elsewhere.

use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

use axum::{
    Form,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
};
use flashsale_core::{
    Error,
    inventory::Decision,
    order::{OrderStatus, Purchase, Reservation},
    sale::{Phase, SaleStatus},
};
use flate2::Compression;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header, request::Parts};
use serde::Deserialize;

use super::{App, body, path, problem::Problem};
use crate::web::{self, Held, Look, Notice, Place, PurchaseView, SaleView, Visit, Words};

type SalePath = Result<Path<String>, PathRejection>;

/// When a visitor should come again whose page could not be made, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
/// Below this many bytes a page gains nothing from being compressed: it fits a packet anyhow.
const WORTH_COMPRESSING: usize = 1_024;

/// Who may keep a page.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Keep {
    /// A shared cache, for two seconds, so that a crowd that comes at once is one request to us; a browser asks every
    /// time. What is live on the page comes apart from it, by the event stream: its script takes figures and clock from
    /// there, so that two seconds of age are seen by nobody for longer than the stream takes to open.
    Shared,
    /// Nobody: it is of one visitor, or of one moment.
    Nobody,
}

impl Keep {
    fn header(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Shared => "public, max-age=0, s-maxage=2",
            Self::Nobody => "no-store",
        })
    }

    /// A page that is sent to many is worth more effort than one that is sent once.
    fn effort(self) -> Compression {
        match self {
            Self::Shared => Compression::default(),
            Self::Nobody => Compression::fast(),
        }
    }
}

/// Makes the pages of one visitor: in which language, compressed or not, on the site or in a frame.
pub(crate) struct Desk {
    app: App,
    words: &'static Words,
    gzip: bool,
    /// Whether it is a browser that asks, which wants pages.
    html: bool,
    place: Place,
}

impl FromRequestParts<App> for Desk {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let framed = parts.uri.path().starts_with("/widget/");
        Ok(Self {
            app: app.clone(),
            words: Words::asked_for(&parts.headers),
            gzip: web::assets::accepts_gzip(&parts.headers),
            html: wants_html(&parts.headers),
            place: if framed { Place::Frame } else { Place::Page },
        })
    }
}

impl Desk {
    fn look(&self) -> Look<'_> {
        Look { words: self.words, theme: self.app.theme.as_ref().map(web::assets::Asset::url) }
    }

    fn policy(&self) -> HeaderValue {
        match self.place {
            Place::Page => HeaderValue::from_static(web::CONTENT_SECURITY_POLICY),
            Place::Frame => self.app.embed.policy(),
        }
    }

    fn sale(&self, status: StatusCode, keep: Keep, sale: &SaleStatus, visit: Visit) -> Response {
        let html = match self.place {
            Place::Page => web::pages::sale(self.look(), view(sale), visit),
            Place::Frame => web::pages::frame(self.look(), view(sale), visit, self.app.embed.origins()),
        };
        self.page(status, keep, html)
    }

    /// What went wrong where programs may ask as well: a page for a browser, a problem for a program.
    pub(super) fn answer(&self, problem: Problem) -> Response {
        if self.html { self.problem(&problem) } else { problem.into_response() }
    }

    fn problem(&self, problem: &Problem) -> Response {
        let status = problem.status.as_u16();
        self.page(
            problem.status,
            Keep::Nobody,
            web::pages::error(self.look(), self.place, status, &problem.message),
        )
    }

    pub(super) fn page(&self, status: StatusCode, keep: Keep, html: askama::Result<String>) -> Response {
        let html = match html {
            Ok(html) => html,
            Err(error) => {
                return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
            }
        };
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (header::CONTENT_LANGUAGE, HeaderValue::from_static(self.words.lang)),
            (header::CONTENT_SECURITY_POLICY, self.policy()),
            (header::CACHE_CONTROL, keep.header()),
            (header::VARY, HeaderValue::from_static("accept-language, accept-encoding")),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        // There is no secret on a page that its length could give away: no cookie, no token.
        let gzip = self.gzip && html.len() >= WORTH_COMPRESSING;
        let body = if gzip { web::assets::gzip(html.as_bytes(), keep.effort()) } else { html.into_bytes() };
        let mut response = (status, headers, body).into_response();
        if gzip {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}

/// The form of a sale's page, and the query of a lookup.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Visitor {
    user_id: Option<String>,
}

/// `GET /`: all sales.
pub(crate) async fn index(State(app): State<App>, desk: Desk, uri: Uri) -> Response {
    match app.sales.statuses().await {
        Ok(sales) => {
            let now = app.sales.now().as_millis();
            let html = web::pages::index(desk.look(), sales.iter().map(view).collect(), now);
            desk.page(StatusCode::OK, shell(&uri), html)
        }
        Err(error) => desk.problem(&error.into()),
    }
}

/// A page without a query is the same for everybody.
fn shell(uri: &Uri) -> Keep {
    if uri.query().is_none() { Keep::Shared } else { Keep::Nobody }
}

/// `GET /sales/{saleId}` and `GET /widget/{saleId}`: one sale; with `?userId=`, what that user holds.
pub(crate) async fn sale(
    State(app): State<App>,
    desk: Desk,
    uri: Uri,
    sale: SalePath,
    query: Result<Query<Visitor>, QueryRejection>,
) -> Response {
    let shown = async {
        if !uri.query().is_none_or(|query| is_text(query.as_bytes())) {
            return Err(not_text());
        }
        let Query(Visitor { user_id }) =
            query.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
        let status = app.sales.status(&path(sale)?).await?;
        let visit = look_up(&app, &status, user_id.unwrap_or_default()).await?;
        let code = visit.notice.as_ref().map_or(StatusCode::OK, code_of);
        Ok::<_, Problem>(desk.sale(code, shell(&uri), &status, visit))
    };
    shown.await.unwrap_or_else(|problem| desk.problem(&problem))
}

/// What a user holds of a sale, or what is wrong with asking so; nothing, where no user is named.
async fn look_up(app: &App, status: &SaleStatus, user_id: String) -> Result<Visit, Problem> {
    if user_id.is_empty() {
        return Ok(Visit::default());
    }
    let (notice, purchase) = match app.sales.purchase(status.sale.id.as_str(), &user_id).await {
        Ok(found) => {
            let purchase = found
                .as_ref()
                .map_or(PurchaseView::NotPurchased, |found| PurchaseView::Purchased(held(found)));
            (None, Some(purchase))
        }
        Err(error) => (Some(notice_of(error)?), None),
    };
    Ok(Visit { user_id, notice, purchase })
}

/// `POST /sales/{saleId}` and `POST /widget/{saleId}`: buys, and shows the answer on the sale's page.
pub(crate) async fn buy(State(app): State<App>, desk: Desk, sale: SalePath, request: Request) -> Response {
    let started = Instant::now();
    let bought = async {
        let sale = path(sale)?;
        // Unknown sales are told before anything of the form is.
        app.sales.status(&sale).await?;
        let user_id = read_form(request, app.body_timeout).await?;
        let decided = app.sales.attempt(&sale, &user_id).await;
        if let Ok(decision) = &decided {
            app.count(&sale, decision, started.elapsed());
        }
        let notice = match decided {
            Ok(Decision::Reserved(reservation)) => Notice::Reserved(just_reserved(&reservation)),
            Ok(Decision::AlreadyPurchased(found)) => Notice::AlreadyPurchased(held(&found)),
            Ok(Decision::SoldOut) => Notice::SoldOut,
            Ok(Decision::NotActive) => Notice::NotActive,
            Err(error) => notice_of(error)?,
        };
        let (code, status) = (code_of(&notice), app.sales.status(&sale).await?);
        let visit = Visit { user_id, notice: Some(notice), purchase: None };
        Ok::<_, Problem>(desk.sale(code, Keep::Nobody, &status, visit))
    };
    bought.await.unwrap_or_else(|problem| desk.problem(&problem))
}

async fn read_form(request: Request, within: Duration) -> Result<String, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::read(Request::from_parts(parts.clone(), body), within).await?;
    if !is_text(&body) {
        return Err(not_text());
    }
    let request = Request::from_parts(parts, body.into());
    let Form(visitor) = Form::<Visitor>::from_request(request, &())
        .await
        .map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    Ok(visitor.user_id.unwrap_or_default())
}

/// Whether a form is text in UTF-8. Read as most do, what is not would become the same character, whatever it was, and
/// different users the same one.
fn is_text(form: &[u8]) -> bool {
    percent_encoding::percent_decode(form).decode_utf8().is_ok()
}

fn not_text() -> Problem {
    Problem::bad_request("The user ID must be text in UTF-8")
}

/// `GET /assets/{name}`: a file that pages refer to.
pub(crate) async fn asset(
    State(app): State<App>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = path(name)?;
    let theme = || app.theme.as_ref().and_then(|theme| theme.serve(&name, &headers));
    web::assets::serve(&name, &headers)
        .or_else(theme)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("There is no file /assets/{name}")))
}

/// Any other path: a page for a browser, a problem for a program.
pub(crate) async fn unknown(desk: Desk, uri: Uri) -> Response {
    desk.answer(Problem::new(StatusCode::NOT_FOUND, format!("There is nothing at {}", uri.path())))
}

/// A known path with a method that it does not have.
pub(crate) async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

pub(super) fn view(status: &SaleStatus) -> SaleView {
    let product = &status.sale.product;
    SaleView {
        sale_id: status.sale.id.to_string(),
        name: status.sale.name.clone(),
        description: product.description.clone(),
        image_url: product.image_url.clone(),
        price: product.price.map(|price| (price.amount(), price.currency().to_owned())),
        total: status.sale.total_stock,
        remaining: status.available(),
        sold: status.sold(),
        reserved: status.reserved,
        phase: match status.phase() {
            Phase::Upcoming => web::Phase::Upcoming,
            Phase::Active => web::Phase::Live,
            Phase::Ended => web::Phase::Ended,
        },
        paused: status.sale.paused,
        starts_at_ms: status.sale.window.starts_at().as_millis(),
        ends_at_ms: status.sale.window.ends_at().as_millis(),
        now_ms: status.now.as_millis(),
    }
}

fn held(found: &Purchase) -> Held {
    let status = match found.status {
        OrderStatus::Confirmed => web::OrderStatus::Confirmed,
        _ => web::OrderStatus::Reserved,
    };
    Held { order_id: found.order_id.to_string(), status }
}

fn just_reserved(reservation: &Reservation) -> Held {
    Held { order_id: reservation.order_id.to_string(), status: web::OrderStatus::Reserved }
}

/// What a visitor reads when an attempt could not be decided; problems of the sale itself are pages.
fn notice_of(error: Error) -> Result<Notice, Problem> {
    match error {
        Error::Invalid(invalid) if invalid.field == "userId" => Ok(Notice::InvalidUserId(invalid.complaint)),
        Error::Busy { retry_after } => Ok(Notice::Busy { retry_after_s: retry_after.as_secs().max(1) }),
        Error::Unavailable { .. } => Ok(Notice::Unavailable),
        other => Err(other.into()),
    }
}

fn code_of(notice: &Notice) -> StatusCode {
    match notice {
        Notice::InvalidUserId(_) | Notice::NotActive => StatusCode::BAD_REQUEST,
        Notice::Busy { .. } | Notice::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Notice::Reserved(_) | Notice::AlreadyPurchased(_) | Notice::SoldOut => StatusCode::OK,
    }
}
