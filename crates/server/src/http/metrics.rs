//! What an operator's Prometheus collects.

use std::{
    fmt::{self, Write},
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use flashsale_core::{inventory::Decision, sale::SaleStatus};
use http::{HeaderValue, StatusCode, header};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use super::{
    App, NO_STORE,
    problem::{Problem, ProblemBody},
};
use crate::{live::Hub, vitals::Measure};

/// How an attempt was answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Outcome {
    Success,
    AlreadyPurchased,
    SoldOut,
    NotActive,
}

impl From<&Decision> for Outcome {
    fn from(decision: &Decision) -> Self {
        match decision {
            Decision::Reserved(_) => Self::Success,
            Decision::AlreadyPurchased(_) => Self::AlreadyPurchased,
            Decision::SoldOut => Self::SoldOut,
            Decision::NotActive => Self::NotActive,
        }
    }
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        // As the API says it.
        encoder.write_str(match self {
            Self::Success => "SUCCESS",
            Self::AlreadyPurchased => "ALREADY_PURCHASED",
            Self::SoldOut => "SOLD_OUT",
            Self::NotActive => "NOT_ACTIVE",
        })
    }
}

const OUTCOMES: [Outcome; 4] =
    [Outcome::Success, Outcome::AlreadyPurchased, Outcome::SoldOut, Outcome::NotActive];

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct SaleLabel {
    sale: String,
}

/// What is counted as it happens. Each counter of the hot path is one atomic addition.
pub(crate) struct Metrics {
    registry: Registry,
    outcomes: [Counter; 4],
    problems: Family<StatusLabel, Counter>,
    purchase_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("flashsale");
        let attempts = Family::<OutcomeLabel, Counter>::default();
        registry.register("attempts", "Attempts to buy, by outcome", attempts.clone());
        let problems = Family::<StatusLabel, Counter>::default();
        registry.register("purchase_problems", "Purchases that ended in a problem", problems.clone());
        // There from the start, so that the first one is a rise.
        let unavailable = StatusLabel { status: StatusCode::SERVICE_UNAVAILABLE.as_u16() };
        drop(problems.get_or_create(&unavailable));
        // From 10 µs to 5 s.
        let purchase_seconds = Histogram::new(exponential_buckets(0.000_01, 2.0, 20));
        registry.register_with_unit(
            "purchase",
            "How long purchases took, from the header to the reply",
            Unit::Seconds,
            purchase_seconds.clone(),
        );
        let outcomes = OUTCOMES.map(|outcome| attempts.get_or_create_owned(&OutcomeLabel { outcome }));
        Self { registry, outcomes, problems, purchase_seconds }
    }

    pub(crate) fn count(&self, decision: &Decision) {
        self.outcomes[Outcome::from(decision) as usize].inc();
    }

    pub(crate) fn count_problem(&self, status: StatusCode) {
        self.problems.get_or_create(&StatusLabel { status: status.as_u16() }).inc();
    }

    pub(crate) fn observe_purchase(&self, took: Duration) {
        self.purchase_seconds.observe(took.as_secs_f64());
    }
}

/// `GET /metrics`, in the OpenMetrics text format.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"),
        (status = 503, description = "A part that is needed is away", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn scrape(State(app): State<App>) -> Result<Response, Problem> {
    let mut state = snapshot(&app.sales.statuses().await?, &app.vitals.measures());
    register_viewers(&mut state, &app.hub);
    let mut text = String::new();
    let mut later = String::new();
    let unwritable = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The metrics cannot be written");
    encode(&mut text, &app.metrics.registry).map_err(unwritable)?;
    encode(&mut later, &state).map_err(unwritable)?;
    // One document has one end.
    let text = format!("{}{later}", text.trim_end_matches("# EOF\n"));
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let headers =
        [(header::CONTENT_TYPE, HeaderValue::from_static(content_type)), (header::CACHE_CONTROL, NO_STORE)];
    Ok((headers, text).into_response())
}

fn register_viewers(registry: &mut Registry, hub: &Hub) {
    let by_sale = Family::<SaleLabel, Gauge<i64, AtomicI64>>::default();
    for (sale, count) in hub.viewers_by_sale() {
        by_sale.get_or_create(&SaleLabel { sale: sale.to_string() }).set(i64::from(count));
    }
    registry.register("sale_viewers", "People who watch a sale through this replica", by_sale);
    let all = Gauge::<i64, AtomicI64>::default();
    all.set(i64::from(hub.viewers()));
    registry.register("viewers", "People who watch one sale or all through this replica", all);
}

/// What is read when it is asked for.
fn snapshot(sales: &[SaleStatus], measures: &[Measure]) -> Registry {
    let mut registry = Registry::with_prefix("flashsale");
    let units = |get: fn(&SaleStatus) -> u32| {
        let family = Family::<SaleLabel, Gauge<i64, AtomicI64>>::default();
        for status in sales {
            let label = SaleLabel { sale: status.sale.id.to_string() };
            family.get_or_create(&label).set(i64::from(get(status)));
        }
        family
    };
    registry.register("sale_stock_units", "Units in all", units(|status| status.sale.total_stock));
    registry.register("sale_available_units", "Units that can still be had", units(SaleStatus::available));
    registry.register(
        "sale_reserved_units",
        "Units reserved, to be confirmed",
        units(|status| status.reserved),
    );
    registry.register("sale_confirmed_units", "Units confirmed", units(|status| status.confirmed));

    for &Measure { name, help, value, total } in measures {
        if total {
            let counter = Counter::<u64, AtomicU64>::default();
            counter.inc_by(value);
            registry.register(name, help, counter);
        } else {
            let gauge = Gauge::<i64, AtomicI64>::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            registry.register(name, help, gauge);
        }
    }
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_stand_where_their_counters_do() {
        for (index, outcome) in OUTCOMES.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }
}
