//! The storefront's pages: what a browser gets that asks for HTML.

use std::time::{Duration, Instant};

use axum::{
    Form,
    extract::{
        FromRequest, Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::{Html, IntoResponse, Response},
};
use flashsale_core::{
    Error,
    inventory::Decision,
    order::{OrderStatus, Purchase},
    sale::{Phase, SaleStatus},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;

use super::{App, body, path, problem::Problem};
use crate::web::{self, Notice, PurchaseView, SaleView};

type SalePath = Result<Path<String>, PathRejection>;

/// When a visitor should come again whose page could not be made, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// The form of a sale's page, and the query of a lookup.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Visitor {
    user_id: Option<String>,
}

/// `GET /`: all sales.
pub(crate) async fn index(State(app): State<App>) -> Response {
    match app.sales.statuses().await {
        Ok(sales) => {
            let now = app.sales.now().as_millis();
            page(StatusCode::OK, web::pages::index(sales.iter().map(view).collect(), now))
        }
        Err(error) => problem_page(&error.into()),
    }
}

/// `GET /sales/{saleId}`: one sale; with `?userId=`, what that user holds.
pub(crate) async fn sale(
    State(app): State<App>,
    sale: SalePath,
    query: Result<Query<Visitor>, QueryRejection>,
) -> Response {
    let shown = async {
        let Query(Visitor { user_id }) =
            query.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
        let status = app.sales.status(&path(sale)?).await?;
        let user = user_id.as_deref().filter(|user| !user.is_empty());
        let (notice, held) = match user {
            Some(user) => match app.sales.purchase(status.sale.id.as_str(), user).await {
                Ok(held) => (None, Some(held.as_ref().map_or(PurchaseView::NotPurchased, purchase_view))),
                Err(error) => (Some(notice_of(error)?), None),
            },
            None => (None, None),
        };
        let (code, now) = (notice.as_ref().map_or(StatusCode::OK, code_of), status.now.as_millis());
        Ok::<_, Problem>(page(code, web::pages::sale(view(&status), now, user, notice, held)))
    };
    shown.await.unwrap_or_else(|problem| problem_page(&problem))
}

/// `POST /sales/{saleId}`: buys, and shows the answer on the sale's page.
pub(crate) async fn buy(State(app): State<App>, sale: SalePath, request: Request) -> Response {
    let started = Instant::now();
    let bought = async {
        let sale = path(sale)?;
        // Unknown sales are told before anything of the form is.
        app.sales.status(&sale).await?;
        let user = read_form(request, app.body_timeout).await?;
        let decided = app.sales.attempt(&sale, &user).await;
        if let Ok(decision) = &decided {
            app.count(&sale, decision, started.elapsed());
        }
        let notice = match decided {
            Ok(Decision::Reserved(held)) => Notice::Reserved { order_id: held.order_id.to_string() },
            Ok(Decision::AlreadyPurchased(held)) => {
                Notice::AlreadyPurchased { order_id: held.order_id.to_string() }
            }
            Ok(Decision::SoldOut) => Notice::SoldOut,
            Ok(Decision::NotActive) => Notice::NotActive,
            Err(error) => notice_of(error)?,
        };
        let code = code_of(&notice);
        let status = app.sales.status(&sale).await?;
        let html = web::pages::sale(view(&status), status.now.as_millis(), Some(&user), Some(notice), None);
        Ok::<_, Problem>(page(code, html))
    };
    bought.await.unwrap_or_else(|problem| problem_page(&problem))
}

async fn read_form(request: Request, within: Duration) -> Result<String, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::read(Request::from_parts(parts.clone(), body), within).await?;
    let request = Request::from_parts(parts, body.into());
    let Form(visitor) = Form::<Visitor>::from_request(request, &())
        .await
        .map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    Ok(visitor.user_id.unwrap_or_default())
}

/// `GET /assets/{name}`: a file that pages refer to.
pub(crate) async fn asset(
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = path(name)?;
    web::assets::serve(&name, &headers)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("There is no file /assets/{name}")))
}

/// Any other path: a page for a browser, a problem for a program.
pub(crate) async fn unknown(uri: Uri, headers: HeaderMap) -> Response {
    let problem = Problem::new(StatusCode::NOT_FOUND, format!("There is nothing at {}", uri.path()));
    if wants_html(&headers) { problem_page(&problem) } else { problem.into_response() }
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
    SaleView {
        sale_id: status.sale.id.to_string(),
        name: status.sale.name.clone(),
        total: status.sale.total_stock,
        remaining: status.available(),
        sold: status.sold(),
        phase: match status.phase() {
            Phase::Upcoming => web::Phase::Upcoming,
            Phase::Active => web::Phase::Live,
            Phase::Ended => web::Phase::Ended,
        },
        paused: status.sale.paused,
        starts_at_ms: status.sale.window.starts_at().as_millis(),
        ends_at_ms: status.sale.window.ends_at().as_millis(),
    }
}

fn purchase_view(held: &Purchase) -> PurchaseView {
    let status = match held.status {
        OrderStatus::Confirmed => web::OrderStatus::Confirmed,
        _ => web::OrderStatus::Reserved,
    };
    PurchaseView::Purchased { order_id: held.order_id.to_string(), status }
}

/// What a visitor reads when an attempt could not be decided; problems of the sale itself are pages.
fn notice_of(error: Error) -> Result<Notice, Problem> {
    match error {
        Error::Invalid(invalid) if invalid.field == "userId" => {
            Ok(Notice::InvalidUserId(format!("A user ID {}.", invalid.complaint)))
        }
        Error::Busy { retry_after } => Ok(Notice::Busy { retry_after_s: retry_after.as_secs().max(1) }),
        Error::Unavailable { .. } => Ok(Notice::Unavailable),
        other => Err(other.into()),
    }
}

fn code_of(notice: &Notice) -> StatusCode {
    match notice {
        Notice::InvalidUserId(_) | Notice::NotActive => StatusCode::BAD_REQUEST,
        Notice::Busy { .. } | Notice::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Notice::Reserved { .. } | Notice::AlreadyPurchased { .. } | Notice::SoldOut => StatusCode::OK,
    }
}

fn problem_page(problem: &Problem) -> Response {
    let title = problem.status.canonical_reason().unwrap_or("Error");
    page(problem.status, web::pages::error(problem.status.as_u16(), title, &problem.message))
}

fn page(status: StatusCode, html: askama::Result<String>) -> Response {
    match html {
        Ok(html) => {
            let headers = [
                (header::CONTENT_SECURITY_POLICY, web::CONTENT_SECURITY_POLICY),
                // The page carries the server's clock and the stock of this instant.
                (header::CACHE_CONTROL, "no-store"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (header::REFERRER_POLICY, "no-referrer"),
            ];
            let mut response = (status, headers, Html(html)).into_response();
            if status == StatusCode::SERVICE_UNAVAILABLE {
                response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            response
        }
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
