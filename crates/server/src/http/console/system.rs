//! How the program is, what it runs with, and who was at the console's door.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use flashsale_core::operator::OperatorRecord;
use http::StatusCode;
use serde::Deserialize;

use super::{App, Desk};
use crate::web::console::{self as web, Here, PartView, SettingView, SystemView, VisitView};

/// Rows of the operator log on a page.
const ROWS: u32 = 25;

/// Where a page of the operator log begins.
#[derive(Deserialize)]
pub(super) struct Older {
    before: Option<i64>,
}

/// `GET /console/system`.
pub(super) async fn show(
    State(app): State<App>,
    desk: Desk,
    query: Result<Query<Older>, QueryRejection>,
) -> Response {
    let before = query.ok().and_then(|Query(Older { before })| before);
    let parts = app.vitals.parts().await;
    let ready = app.vitals.ready().await;
    // A log that cannot be read is worth a line, and the rest of the page all the same.
    let (visits, older, unread) = match app.operators.newest(before, ROWS).await {
        Ok(page) => (page.rows.iter().map(visit).collect(), page.next, None),
        Err(error) => (Vec::new(), None, Some(error.to_string())),
    };
    let settings = app.settings.iter().map(|setting| SettingView {
        name: setting.name.clone(),
        value: setting.value.clone(),
        source: setting.source,
    });
    let system = SystemView {
        profile: app.vitals.profile(),
        version: env!("CARGO_PKG_VERSION"),
        promise: app.vitals.promise(),
        provisional: app.vitals.is_provisional(),
        up_ms: i64::try_from(app.started.elapsed().as_millis()).unwrap_or(i64::MAX),
        trouble: ready.err().map(|error| error.to_string()),
        parts: parts
            .into_iter()
            .map(|(name, part)| PartView { name, up: part.status == "up", detail: part.detail })
            .collect(),
        settings: settings.collect(),
        visits,
        is_newest: before.is_none(),
        older,
        unread,
    };
    desk.page(StatusCode::OK, web::system(desk.frame(Here::System), system))
}

fn visit(record: &OperatorRecord) -> VisitView {
    VisitView {
        at_ms: record.entry.at.as_millis(),
        event: record.entry.event.as_str(),
        address: record.entry.address.to_string(),
    }
}
