//! The console's pages: view models in, HTML out. Every word that an operator reads is in `templates/console/`,
//! but for what only a form or a message knows.

mod form;
mod records;

use askama::{Result, Template};

use super::{ENGLISH, SaleView, State, assets, moment};
use crate::verdict::{Check, Verdict};

pub(crate) use form::{Field, Kind, SaleForm};
pub(crate) use records::{AuditPage, EventView, Listing, OrderView, OrdersPage};

/// The policy of the console's pages: our own files only, and nobody may frame them.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     img-src 'self'; form-action 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A chart of a sale's page: its key, its title, its unit, and the lines in it by key and name.
type Chart = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

/// The charts, as `assets/console.js` draws them.
const CHARTS: [Chart; 6] = [
    (
        "rates",
        "Attempts",
        "a second",
        &[("attempts", "Attempts"), ("accepted", "Accepted"), ("rejected", "Rejected")],
    ),
    ("stock", "Stock left", "units", &[("available", "Left")]),
    ("latency", "Latency", "milliseconds", &[("p99", "p99"), ("p95", "p95"), ("p50", "p50")]),
    ("queue", "Order queue", "waiting to be confirmed", &[("queue", "Waiting")]),
    ("lag", "Confirmation lag", "milliseconds", &[("lag", "Lag")]),
    ("viewers", "Viewers", "of the sale's page", &[("viewers", "Viewers")]),
];

/// What is around a page.
pub(crate) struct Frame {
    /// What each form carries; empty for somebody who is not signed in.
    pub(crate) csrf: String,
    /// What the last page left to be said.
    pub(crate) flash: Option<Flash>,
    /// Where in the console this is.
    pub(crate) here: Here,
    /// Why purchases cannot be made, if they cannot.
    pub(crate) trouble: Option<String>,
}

impl Frame {
    /// The frame of a page for somebody who is not signed in.
    pub(crate) fn outside() -> Self {
        Self { csrf: String::new(), flash: None, here: Here::Elsewhere, trouble: None }
    }

    fn is_inside(&self) -> bool {
        !self.csrf.is_empty()
    }
}

/// A message that is shown once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Flash {
    /// Whether it says that something was not done.
    pub(crate) failed: bool,
    /// What it says.
    pub(crate) text: String,
}

/// A part of the console.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Here {
    /// All sales, or one of them.
    Sales,
    /// The form of a new one.
    NewSale,
    /// How the program is.
    System,
    /// None of them.
    Elsewhere,
}

/// A sale as the operator sees it.
pub(crate) struct ConsoleSale {
    /// As visitors see it.
    pub(crate) view: SaleView,
    /// Units taken, to be confirmed.
    pub(crate) reserved: u32,
    /// Units confirmed.
    pub(crate) confirmed: u32,
    /// Which of its lives this is.
    pub(crate) epoch: u32,
}

impl ConsoleSale {
    fn next_epoch(&self) -> u32 {
        self.epoch.saturating_add(1)
    }

    /// Whether it can be ended now: it has begun, and has not ended.
    fn can_end(&self) -> bool {
        self.view.phase == super::Phase::Live
    }
}

/// A part of the system.
pub(crate) struct PartView {
    pub(crate) name: &'static str,
    pub(crate) up: bool,
    pub(crate) detail: String,
}

/// A setting in force.
pub(crate) struct SettingView {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) source: &'static str,
}

/// A line of the operator log.
pub(crate) struct VisitView {
    pub(crate) at_ms: i64,
    pub(crate) event: &'static str,
    pub(crate) address: String,
}

impl VisitView {
    fn at(&self) -> String {
        moment::exact(self.at_ms)
    }

    fn words(&self) -> &'static str {
        match self.event {
            "SIGNED_IN" => "Signed in",
            "SIGN_IN_REFUSED" => "Refused: a wrong token",
            "SIGNED_OUT" => "Signed out",
            _ => "Locked out: too many tries",
        }
    }
}

/// How the program is.
pub(crate) struct SystemView {
    pub(crate) profile: &'static str,
    pub(crate) version: &'static str,
    pub(crate) promise: &'static str,
    /// Whether the promise is less than it usually is.
    pub(crate) provisional: bool,
    pub(crate) up_ms: i64,
    /// Why sales cannot be decided, if they cannot.
    pub(crate) trouble: Option<String>,
    pub(crate) parts: Vec<PartView>,
    pub(crate) settings: Vec<SettingView>,
    pub(crate) visits: Vec<VisitView>,
    /// Whether the log is shown from its newest line on.
    pub(crate) is_newest: bool,
    /// Where older lines begin, if there are any.
    pub(crate) older: Option<i64>,
    /// Why the log cannot be shown, if it cannot.
    pub(crate) unread: Option<String>,
}

impl SystemView {
    fn up(&self) -> String {
        ENGLISH.span(self.up_ms)
    }
}

/// The form of the sign-in; `wrong` says what was wrong with what was typed.
pub(crate) fn sign_in(next: &str, wrong: Option<&str>) -> Result<String> {
    SignInPage { frame: Frame::outside(), next, wrong }.render()
}

/// What cannot be shown or done.
pub(crate) fn error(frame: Frame, status: u16, title: &str, text: &str) -> Result<String> {
    ErrorPage { frame, status, title, text }.render()
}

/// All sales, the last one made first.
pub(crate) fn sales(frame: Frame, mut sales: Vec<ConsoleSale>) -> Result<String> {
    sales.reverse();
    SalesPage { frame, sales }.render()
}

/// One sale, live.
pub(crate) fn sale(frame: Frame, sale: ConsoleSale) -> Result<String> {
    SalePage { frame, sale }.render()
}

/// The form of a new sale, perhaps like another one.
pub(crate) fn new_sale(frame: Frame, form: SaleForm, like: Option<SaleView>) -> Result<String> {
    NewSalePage { frame, form, like }.render()
}

/// The form to change a sale.
pub(crate) fn edit_sale(frame: Frame, sale: SaleView, form: SaleForm) -> Result<String> {
    EditSalePage { frame, sale, form }.render()
}

/// What a reset would take away, and the field to confirm it; `typed` is what was typed, `wrong` why that is not it.
pub(crate) fn reset(frame: Frame, sale: ConsoleSale, typed: &str, wrong: Option<&str>) -> Result<String> {
    ResetPage { frame, sale, typed, wrong }.render()
}

/// Whether the promises hold for a sale.
pub(crate) fn integrity(
    frame: Frame,
    sale: SaleView,
    verdict: Verdict,
    checked_at_ms: i64,
    took_ms: i64,
) -> Result<String> {
    IntegrityPage { frame, sale, verdict, checked_at_ms, took_ms }.render()
}

/// How the program is.
pub(crate) fn system(frame: Frame, system: SystemView) -> Result<String> {
    SystemPage { frame, system }.render()
}

#[derive(Template)]
#[template(path = "console/sign_in.html", whitespace = "minimize")]
struct SignInPage<'a> {
    frame: Frame,
    next: &'a str,
    wrong: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "console/error.html", whitespace = "minimize")]
struct ErrorPage<'a> {
    frame: Frame,
    status: u16,
    title: &'a str,
    text: &'a str,
}

#[derive(Template)]
#[template(path = "console/sales.html", whitespace = "minimize")]
struct SalesPage {
    frame: Frame,
    sales: Vec<ConsoleSale>,
}

#[derive(Template)]
#[template(path = "console/sale.html", whitespace = "minimize")]
struct SalePage {
    frame: Frame,
    sale: ConsoleSale,
}

#[derive(Template)]
#[template(path = "console/new_sale.html", whitespace = "minimize")]
struct NewSalePage {
    frame: Frame,
    form: SaleForm,
    like: Option<SaleView>,
}

#[derive(Template)]
#[template(path = "console/edit_sale.html", whitespace = "minimize")]
struct EditSalePage {
    frame: Frame,
    sale: SaleView,
    form: SaleForm,
}

#[derive(Template)]
#[template(path = "console/reset.html", whitespace = "minimize")]
struct ResetPage<'a> {
    frame: Frame,
    sale: ConsoleSale,
    typed: &'a str,
    wrong: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "console/integrity.html", whitespace = "minimize")]
struct IntegrityPage {
    frame: Frame,
    sale: SaleView,
    verdict: Verdict,
    checked_at_ms: i64,
    took_ms: i64,
}

impl IntegrityPage {
    fn broken(&self) -> Vec<&Check> {
        self.verdict.checks.iter().filter(|check| !check.holds).collect()
    }

    fn checked_at(&self) -> String {
        moment::exact(self.checked_at_ms)
    }
}

#[derive(Template)]
#[template(path = "console/system.html", whitespace = "minimize")]
struct SystemPage {
    frame: Frame,
    system: SystemView,
}
