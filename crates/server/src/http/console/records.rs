//! Orders and the audit trail: searched page by page, and exported through the session.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use flashsale_core::{
    Error,
    audit::{AuditEvent, EventType},
    error::Invalid,
    ids::SaleId,
    order::{Order, OrderStatus},
    ports::{FindEvents, FindOrders, Found},
};
use http::StatusCode;
use serde::Deserialize;

use super::{App, Desk, Problem, SalePath, form::sentence};
use crate::{
    http::{
        export::{self, Format},
        path,
    },
    web::console::{AuditPage, EventView, Here, Listing, OrderView, OrdersPage},
};

/// Rows of a page.
const ROWS: u32 = 50;

/// What is looked for, as it was typed.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    user: String,
    order: String,
    /// A status or a type of event; nothing for all.
    kind: String,
    /// Where the page before ended.
    before: String,
}

type Search = Result<Query<Asked>, QueryRejection>;

impl Asked {
    pub(super) fn is_search(&self) -> bool {
        !(self.user.is_empty() && self.order.is_empty() && self.kind.is_empty())
    }

    /// The query of the page that goes on at `next`.
    pub(super) fn on(&self, next: i64) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [("user", &self.user), ("order", &self.order), ("kind", &self.kind)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        query.append_pair("before", &next.to_string()).finish()
    }
}

/// A word that was typed: nothing where it is empty, or what is wrong with it.
fn typed<T: std::str::FromStr<Err = Invalid>>(text: &str) -> Result<Option<T>, String> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|Invalid { complaint, .. }| sentence(&complaint)),
    }
}

/// `GET /console/sales/{saleId}/orders`.
pub(super) async fn orders(State(app): State<App>, desk: Desk, sale: SalePath, query: Search) -> Response {
    let shown = async {
        let (sale, asked) = asked(sale, query)?;
        let (user, order) = (typed(&asked.user), typed(asked.order.trim()));
        let find = |user: &_, order: &_| FindOrders {
            user: Clone::clone(user),
            order: Clone::clone(order),
            status: asked.kind.parse().ok(),
            before: asked.before.parse().ok(),
            limit: ROWS,
        };
        let found = match (&user, &order) {
            (Ok(user), Ok(order)) => app.store.find_orders(&sale, &find(user, order)).await?,
            _ => Found::nothing(),
        };
        let statuses = [
            ("", "Live: reserved or confirmed"),
            ("RESERVED", "Reserved"),
            ("CONFIRMED", "Confirmed"),
            ("EXPIRED", "Expired"),
            ("CANCELLED", "Cancelled"),
        ];
        let list = listing(&app, &sale, &asked, user.err(), &statuses, &found, order_view).await?;
        let (frame, order_error) = (desk.frame(Here::Sales), order.err());
        Ok::<_, Problem>(OrdersPage { frame, list, order: asked.order, order_error })
    };
    match shown.await {
        Ok(page) => {
            let wrong = page.order_error.is_some() || page.list.user_error.is_some();
            desk.page(status(wrong), page.html())
        }
        Err(problem) => desk.problem(&problem),
    }
}

/// `GET /console/sales/{saleId}/audit`.
pub(super) async fn audit(State(app): State<App>, desk: Desk, sale: SalePath, query: Search) -> Response {
    let shown = async {
        let (sale, asked) = asked(sale, query)?;
        let user = typed(&asked.user);
        let find = |user: &_| FindEvents {
            user: Clone::clone(user),
            event_type: asked.kind.parse().ok(),
            before: asked.before.parse().ok(),
            limit: ROWS,
        };
        let found = match &user {
            Ok(user) => app.store.find_events(&sale, &find(user)).await?,
            Err(_) => Found::nothing(),
        };
        let types: Vec<_> =
            [("", "All")].into_iter().chain(EventType::ALL.map(|one| (one.as_str(), one.as_str()))).collect();
        let list = listing(&app, &sale, &asked, user.err(), &types, &found, event_view).await?;
        Ok::<_, Problem>(AuditPage { frame: desk.frame(Here::Sales), list })
    };
    match shown.await {
        Ok(page) => desk.page(status(page.list.user_error.is_some()), page.html()),
        Err(problem) => desk.problem(&problem),
    }
}

fn asked(sale: SalePath, query: Search) -> Result<(SaleId, Asked), Problem> {
    let Query(asked) = query.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    Ok((path(sale)?.parse()?, asked))
}

fn status(wrong: bool) -> StatusCode {
    if wrong { StatusCode::BAD_REQUEST } else { StatusCode::OK }
}

/// What both lists show beside their rows.
async fn listing<T, V>(
    app: &App,
    sale: &SaleId,
    asked: &Asked,
    user_error: Option<String>,
    kinds: &[(&'static str, &'static str)],
    found: &Found<T>,
    view: impl Fn(&T) -> V,
) -> Result<Listing<V>, Problem> {
    // The trail of a deleted sale stays, without the sale's name.
    let name = match app.sales.status(sale.as_str()).await {
        Ok(status) => status.sale.name,
        Err(Error::UnknownSale(id)) => id.to_string(),
        Err(error) => return Err(error.into()),
    };
    Ok(Listing {
        sale_id: sale.to_string(),
        name,
        user: asked.user.clone(),
        user_error,
        kinds: kinds.iter().map(|(value, words)| (*value, *words, asked.kind == *value)).collect(),
        rows: found.rows.iter().map(view).collect(),
        is_newest: asked.before.is_empty(),
        on: found.next.map(|next| asked.on(next)),
        is_search: asked.is_search(),
    })
}

fn order_view(order: &Order) -> OrderView {
    let settled_at = order.released_at.or(order.confirmed_at);
    OrderView {
        order_id: order.id.to_string(),
        unit: order.unit.0,
        user_id: order.user_id.to_string(),
        status: OrderStatus::as_str(order.status),
        reserved_at: order.reserved_at.to_string(),
        settled_at: settled_at.map(|at| at.to_string()).unwrap_or_default(),
    }
}

fn event_view(event: &AuditEvent) -> EventView {
    EventView {
        at: event.created_at.to_string(),
        event_type: event.event_type.as_str(),
        user_id: event.user_id.to_string(),
        metadata: event.metadata.clone(),
    }
}

/// `GET …/orders.csv`.
pub(super) async fn orders_csv(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    whole(&desk, async { export::orders_as(Format::Csv, app, &path(sale)?).await }).await
}

/// `GET …/orders.ndjson`.
pub(super) async fn orders_ndjson(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    whole(&desk, async { export::orders_as(Format::Ndjson, app, &path(sale)?).await }).await
}

/// `GET …/audit.csv`.
pub(super) async fn audit_csv(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    whole(&desk, async { export::audit_as(Format::Csv, app, &path(sale)?).await }).await
}

/// `GET …/audit.ndjson`.
pub(super) async fn audit_ndjson(State(app): State<App>, desk: Desk, sale: SalePath) -> Response {
    whole(&desk, async { export::audit_as(Format::Ndjson, app, &path(sale)?).await }).await
}

async fn whole(desk: &Desk, export: impl Future<Output = Result<Response, Problem>>) -> Response {
    export.await.unwrap_or_else(|problem| desk.problem(&problem))
}
