//! Orders and the audit trail as CSV or NDJSON, streamed page by page: the size of an export is not a
//! matter of memory.

use std::{collections::VecDeque, io};

use axum::{
    body::{Body, Bytes},
    extract::{Path, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use flashsale_core::{
    Error, Result as CoreResult,
    audit::AuditEvent,
    ids::{Epoch, SaleId},
    order::Order,
    ports::{OrderStore, Page},
};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    App,
    openapi::SaleInPath,
    path,
    problem::{AdminProblems, Problem, ProblemBody},
};

/// Rows of a page: large enough to stream fast, small enough to hold in memory many times.
const PAGE: u32 = 256;

type SalePath = Result<Path<String>, PathRejection>;

/// How rows are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// Rows of text, under a row of names.
    Csv,
    /// A JSON object a line.
    Ndjson,
}

impl Format {
    /// What the client would have: NDJSON unless it asks for CSV.
    pub(super) fn accepted(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(accept) = headers.get(header::ACCEPT) else { return Ok(Self::Ndjson) };
        let accept = accept.to_str().unwrap_or_default().to_ascii_lowercase();
        let (mut known, mut weight) = (None, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next() {
                Some("text/csv" | "text/*") => Self::Csv,
                Some("application/x-ndjson" | "application/ndjson" | "application/*" | "*/*") => Self::Ndjson,
                _ => continue,
            };
            let q = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            // Of what is wanted as much, the first; what has no weight is not wanted.
            if q > weight {
                (known, weight) = (Some(format), q);
            }
        }
        known.ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_ACCEPTABLE,
                "An export is text/csv or application/x-ndjson; ask for one of them with Accept",
            )
        })
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// Something that is exported.
pub(super) trait Row: Sized + Send + 'static {
    const NAME: &'static str;
    const COLUMNS: &'static [&'static str];

    fn page(
        store: &dyn OrderStore,
        sale: &SaleId,
        after: i64,
    ) -> impl Future<Output = CoreResult<Page<Self>>> + Send;
    /// The epoch that all rows are of, where they are of one.
    fn epoch(_: &dyn OrderStore, _: &SaleId) -> impl Future<Output = CoreResult<Option<Epoch>>> + Send {
        async { Ok(None) }
    }
    fn cells(&self) -> Vec<String>;
    fn json(&self) -> serde_json::Result<Vec<u8>>;
}

impl Row for Order {
    const NAME: &'static str = "orders";
    const COLUMNS: &'static [&'static str] = &[
        "orderId",
        "saleId",
        "epoch",
        "unit",
        "userId",
        "status",
        "reservedAt",
        "createdAt",
        "confirmedAt",
        "releasedAt",
    ];

    async fn page(store: &dyn OrderStore, sale: &SaleId, after: i64) -> CoreResult<Page<Self>> {
        store.orders(sale, after, PAGE).await
    }

    async fn epoch(store: &dyn OrderStore, sale: &SaleId) -> CoreResult<Option<Epoch>> {
        store.epoch(sale).await.map(Some)
    }

    fn cells(&self) -> Vec<String> {
        let maybe = |moment: Option<flashsale_core::clock::Timestamp>| {
            moment.map(|moment| moment.to_string()).unwrap_or_default()
        };
        vec![
            self.id.to_string(),
            self.sale_id.to_string(),
            self.epoch.to_string(),
            self.unit.to_string(),
            self.user_id.to_string(),
            self.status.to_string(),
            self.reserved_at.to_string(),
            self.created_at.to_string(),
            maybe(self.confirmed_at),
            maybe(self.released_at),
        ]
    }

    fn json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
}

impl Row for AuditEvent {
    const NAME: &'static str = "audit";
    const COLUMNS: &'static [&'static str] =
        &["id", "saleId", "userId", "eventType", "metadata", "createdAt"];

    async fn page(store: &dyn OrderStore, sale: &SaleId, after: i64) -> CoreResult<Page<Self>> {
        store.audit(sale, after, PAGE).await
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.sale_id.to_string(),
            self.user_id.to_string(),
            self.event_type.to_string(),
            self.metadata.clone(),
            self.created_at.to_string(),
        ]
    }

    fn json(&self) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Line<'a> {
            id: i64,
            sale_id: &'a SaleId,
            user_id: &'a str,
            event_type: &'a str,
            metadata: Box<RawValue>,
            created_at: String,
        }
        serde_json::to_vec(&Line {
            id: self.id,
            sale_id: &self.sale_id,
            user_id: self.user_id.as_str(),
            event_type: self.event_type.as_str(),
            metadata: RawValue::from_string(self.metadata.clone())?,
            created_at: self.created_at.to_string(),
        })
    }
}

/// A sale's orders, as NDJSON or, with `Accept: text/csv`, as CSV.
#[utoipa::path(
    get,
    path = "/api/v1/admin/sales/{saleId}/orders",
    tag = "admin",
    security(("adminToken" = [])),
    params(SaleInPath),
    responses(
        (status = 200, description = "All orders, streamed", content((String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 406, description = "Neither format is accepted", body = ProblemBody, content_type = "application/problem+json"),
        AdminProblems,
    )
)]
pub(crate) async fn orders(
    State(app): State<App>,
    sale: SalePath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    orders_as(Format::accepted(&headers)?, app, &path(sale)?).await
}

/// A sale's audit trail, over all its epochs, as NDJSON or, with `Accept: text/csv`, as CSV.
#[utoipa::path(
    get,
    path = "/api/v1/admin/sales/{saleId}/audit",
    tag = "admin",
    security(("adminToken" = [])),
    params(SaleInPath),
    responses(
        (status = 200, description = "All events, streamed", content((String = "application/x-ndjson"), (String = "text/csv"))),
        (status = 406, description = "Neither format is accepted", body = ProblemBody, content_type = "application/problem+json"),
        AdminProblems,
    )
)]
pub(crate) async fn audit(
    State(app): State<App>,
    sale: SalePath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    audit_as(Format::accepted(&headers)?, app, &path(sale)?).await
}

/// A sale's orders in a format.
pub(super) async fn orders_as(format: Format, app: App, sale: &str) -> Result<Response, Problem> {
    export::<Order>(app, sale, format).await
}

/// A sale's audit trail in a format.
pub(super) async fn audit_as(format: Format, app: App, sale: &str) -> Result<Response, Problem> {
    export::<AuditEvent>(app, sale, format).await
}

/// Where an export stands.
struct Progress {
    app: App,
    sale: SaleId,
    /// Which epoch all of it is of, where it is of one.
    epoch: Option<Epoch>,
    format: Format,
    /// Chunks that are ready to be sent.
    ready: VecDeque<Bytes>,
    /// The key to go on from; `None` at the end.
    next: Option<i64>,
}

async fn export<R: Row>(app: App, sale: &str, format: Format) -> Result<Response, Problem> {
    let sale: SaleId = sale.parse()?;
    // The first page is read before the reply begins, so that what is wrong can still be said.
    let epoch = R::epoch(&*app.store, &sale).await?;
    let first = page::<R>(&*app.store, &sale, epoch, 0).await?;
    let next = first.next;
    let name = format!(
        "attachment; filename=\"{sale}-{}.{}\"",
        R::NAME,
        match format {
            Format::Csv => "csv",
            Format::Ndjson => "ndjson",
        }
    );
    let head = match format {
        Format::Csv => csv_lines([R::COLUMNS].into_iter()),
        Format::Ndjson => Ok(Bytes::new()),
    };
    let lines = app.background.run(async move { rows(format, &first.rows) }).await?;
    let ready = [head, lines].into_iter().collect::<io::Result<_>>().map_err(|error| unwritable(&error))?;
    let progress = Progress { app, sale, epoch, format, ready, next };
    let mut response = Body::from_stream(stream::try_unfold(progress, advance::<R>)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::try_from(name).expect("a sale id is a valid header"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The page after the key `after`. What is of two epochs is the list of neither.
async fn page<R: Row>(
    store: &dyn OrderStore,
    sale: &SaleId,
    epoch: Option<Epoch>,
    after: i64,
) -> CoreResult<Page<R>> {
    let page = R::page(store, sale, after).await?;
    if R::epoch(store, sale).await? != epoch {
        return Err(Error::unavailable("The sale was reset meanwhile; ask again"));
    }
    Ok(page)
}

/// The next chunk. An error here cuts the stream off, so that nobody takes a part for the whole.
async fn advance<R: Row>(mut progress: Progress) -> io::Result<Option<(Bytes, Progress)>> {
    if let Some(chunk) = progress.ready.pop_front() {
        return Ok(Some((chunk, progress)));
    }
    let Some(after) = progress.next else { return Ok(None) };
    let page = page::<R>(&*progress.app.store, &progress.sale, progress.epoch, after);
    let page = page.await.map_err(|error| cut_off(&error))?;
    progress.next = page.next;
    let format = progress.format;
    let chunk = progress
        .app
        .background
        .run(async move { rows(format, &page.rows) })
        .await
        .map_err(|error| cut_off(&error))??;
    Ok(Some((chunk, progress)))
}

pub(super) fn rows<R: Row>(format: Format, rows: &[R]) -> io::Result<Bytes> {
    match format {
        Format::Csv => csv_lines(rows.iter().map(Row::cells)),
        Format::Ndjson => {
            let mut chunk = Vec::with_capacity(rows.len() * 160);
            for row in rows {
                chunk.extend(row.json()?);
                chunk.push(b'\n');
            }
            Ok(chunk.into())
        }
    }
}

fn csv_lines<C: AsRef<[u8]>>(lines: impl Iterator<Item = impl IntoIterator<Item = C>>) -> io::Result<Bytes> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    for cells in lines {
        writer.write_record(cells)?;
    }
    Ok(writer.into_inner().map_err(csv::IntoInnerError::into_error)?.into())
}

fn cut_off(error: &Error) -> io::Error {
    io::Error::other(error.to_string())
}

fn unwritable(error: &io::Error) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("The export cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use flashsale_core::{
        ports::Clock,
        sale::{NewSale, Window},
    };
    use flashsale_embedded::{Embedded, Folder};

    use super::*;
    use crate::ambient::{RandomIds, SystemClock};

    /// Its cursor is a unit, and units begin anew: half of the list would be people who hold nothing any more.
    #[tokio::test]
    async fn a_list_of_orders_ends_where_the_sale_is_reset() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let shop = Embedded::open(&folder, Arc::new(SystemClock), Arc::new(RandomIds)).unwrap();
        let (sales, store, sale) = (shop.inventory(), shop.store(), "sale_1".parse().unwrap());
        let window =
            Window::new(SystemClock.now(), SystemClock.now().after(Duration::from_secs(60))).unwrap();
        sales.create(NewSale::new(sale, "Sale".to_owned(), 10, window).unwrap()).await.unwrap();
        let sale = "sale_1".parse().unwrap();
        for user in ["ada", "bob", "cyd"] {
            sales.attempt(&sale, user.parse().unwrap()).await.unwrap();
        }
        let epoch = <Order as Row>::epoch(&*store, &sale).await.unwrap();
        let first = page::<Order>(&*store, &sale, epoch, 0).await.unwrap();
        assert_eq!(first.rows.len(), 3);
        sales.reset(&sale, None).await.unwrap();
        sales.attempt(&sale, "dan".parse().unwrap()).await.unwrap();
        assert!(page::<Order>(&*store, &sale, epoch, 1).await.is_err());
    }
}
