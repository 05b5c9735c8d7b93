//! The storefront: pages that a browser shows without script, and the few files that they need.
//!
//! It knows HTML and nothing of the rest: the HTTP layer hands it plain view models ([`SaleView`], [`Notice`],
//! [`PurchaseView`]) and gets a page back. Every word that a visitor reads is in `templates/`.
//!
//! - [`pages`]: a function per page, from view models to HTML.
//! - [`sale_view`]: a sale as a visitor sees it, and the state that is shown for it.
//! - [`moment`]: points and spans of time as text.
//! - [`console`]: the pages for whoever runs the sales.
//! - [`assets`]: style sheet, script and icon, embedded, compressed and cacheable for ever.

pub(crate) mod assets;
pub(crate) mod console;
pub(crate) mod moment;
pub(crate) mod pages;
mod sale_view;

pub(crate) use pages::{Notice, OrderStatus, PurchaseView};
pub(crate) use sale_view::{Phase, SaleView, State};

/// The `Content-Security-Policy` of every page: our own files only, and images of a shop by HTTPS.
///
/// It forbids inline style and script, so templates carry neither `style=` nor `onclick=`.
pub(crate) const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
     img-src 'self' data: https:; form-action 'self'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";
