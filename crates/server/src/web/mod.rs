//! The storefront: pages that a browser shows without script, and the few files that they need.
//!
//! It knows HTML and nothing of the rest: the HTTP layer hands it plain view models ([`SaleView`], [`Visit`]) and gets a
//! page back.
//!
//! - [`pages`]: a function per page, from view models to HTML.
//! - [`sale_view`]: a sale as a visitor sees it, and the state that is shown for it.
//! - [`words`]: every word that a visitor reads, in each language.
//! - [`moment`]: points and spans of time as text.
//! - [`console`]: the pages for whoever runs the sales.
//! - [`assets`]: style sheets, scripts and icon, compressed and cacheable for ever.

pub(crate) mod assets;
pub(crate) mod console;
pub(crate) mod moment;
pub(crate) mod pages;
mod sale_view;
mod words;

pub(crate) use pages::{Held, Look, Notice, OrderStatus, Place, PurchaseView, Visit};
pub(crate) use sale_view::{Phase, SaleView, State};
pub(crate) use words::{ENGLISH, Words};

/// What every page may load: our own files, and a shop's pictures from anywhere.
///
/// It forbids inline style and script, so templates carry neither `style=` nor `onclick=`.
macro_rules! policy {
    ($rest:literal) => {
        concat!(
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data: https: http:; \
             form-action 'self'; connect-src 'self'; base-uri 'none'; ",
            $rest
        )
    };
}

/// The `Content-Security-Policy` of every page of the site.
pub(crate) const CONTENT_SECURITY_POLICY: &str = policy!("frame-ancestors 'none'");

/// The `Content-Security-Policy` of the page that shows a frame of our own.
pub(crate) const EXAMPLE_POLICY: &str = policy!("frame-src 'self'; frame-ancestors 'none'");

/// The `Content-Security-Policy` of a page that `ancestors` may show in a frame.
pub(crate) fn frame_policy(ancestors: &str) -> String {
    format!("{}{ancestors}", policy!("frame-ancestors "))
}
