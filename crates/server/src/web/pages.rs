//! A function per page: from view models to HTML. askama escapes whatever comes from outside.

use askama::{Result, Template};

use super::assets;
use super::sale_view::{Phase, SaleView, State};

/// The list of all sales, at `/`.
pub(crate) fn index(mut sales: Vec<SaleView>, now_ms: i64) -> Result<String> {
    sales.sort_by_cached_key(SaleView::list_order);
    IndexPage { sales, now_ms }.render()
}

/// A sale's page; after an attempt also its answer, and after a lookup also what was found.
///
/// `user_id` is what the visitor typed, valid or not; it stays in the field.
pub(crate) fn sale(
    sale: SaleView,
    now_ms: i64,
    user_id: Option<&str>,
    notice: Option<Notice>,
    purchase: Option<PurchaseView>,
) -> Result<String> {
    SalePage { sale, now_ms, user_id: user_id.unwrap_or_default(), notice, purchase }.render()
}

/// A page for what cannot be shown: `title` says what happened, `text` what can be done.
pub(crate) fn error(status: u16, title: &str, text: &str) -> Result<String> {
    ErrorPage { status, title, text }.render()
}

/// The answer to an attempt that the visitor has just made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Notice {
    /// `SUCCESS`.
    Reserved { order_id: String },
    /// `ALREADY_PURCHASED`.
    AlreadyPurchased { order_id: String },
    /// `SOLD_OUT`.
    SoldOut,
    /// The sale is upcoming, paused or has ended.
    NotActive,
    /// The user id breaks a rule; the text says which, for the visitor.
    InvalidUserId(String),
    /// No capacity: nothing was decided.
    Busy { retry_after_s: u64 },
    /// The store cannot record purchases.
    Unavailable,
}

impl Notice {
    /// What is wrong with the user id, if that is the notice.
    fn user_id_error(&self) -> Option<&str> {
        match self {
            Self::InvalidUserId(text) => Some(text),
            _ => None,
        }
    }
}

/// What a lookup of a user's purchase found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum PurchaseView {
    /// The user has a unit.
    Purchased { order_id: String, status: OrderStatus },
    /// The user has none.
    NotPurchased,
}

/// How far a purchase has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OrderStatus {
    /// Decided and recorded; the order follows.
    Reserved,
    /// The order is in the store.
    Confirmed,
}

#[derive(Template)]
#[template(path = "index.html", whitespace = "minimize")]
struct IndexPage {
    sales: Vec<SaleView>,
    now_ms: i64,
}

#[derive(Template)]
#[template(path = "sale.html", whitespace = "minimize")]
struct SalePage<'a> {
    sale: SaleView,
    now_ms: i64,
    user_id: &'a str,
    notice: Option<Notice>,
    purchase: Option<PurchaseView>,
}

impl SalePage<'_> {
    fn user_id_error(&self) -> Option<&str> {
        self.notice.as_ref().and_then(Notice::user_id_error)
    }
}

#[derive(Template)]
#[template(path = "error.html", whitespace = "minimize")]
struct ErrorPage<'a> {
    status: u16,
    title: &'a str,
    text: &'a str,
}

#[cfg(test)]
mod tests {
    use super::super::sale_view::tests::{NOW_MS, live, upcoming};
    use super::*;

    const SCRIPT: &str = "<script>alert(1)</script>";

    fn page(view: SaleView) -> String {
        sale(view, NOW_MS, None, None, None).unwrap()
    }

    fn answer(notice: Notice) -> String {
        sale(live(), NOW_MS, Some("user123"), Some(notice), None).unwrap()
    }

    fn lookup(purchase: PurchaseView) -> String {
        sale(live(), NOW_MS, Some("user 1&2"), None, Some(purchase)).unwrap()
    }

    /// The tag of the button, up to its text.
    fn buy_button(html: &str) -> &str {
        let start = html.find("<button class=\"buy\"").expect("there is a button");
        html[start..].split_once('>').unwrap().0
    }

    #[test]
    fn the_list_is_live_then_upcoming_then_ended() {
        let named = |id: &str, view: SaleView| SaleView { sale_id: id.to_owned(), ..view };
        let ended = |id, ends_at_ms| named(id, SaleView { phase: Phase::Ended, ends_at_ms, ..live() });
        let sales = vec![
            ended("ended-first", NOW_MS - 9),
            ended("ended-last", NOW_MS - 1),
            named("later", SaleView { starts_at_ms: NOW_MS + 600_000, ..upcoming() }),
            named("next", upcoming()),
            named("gone", SaleView { remaining: 0, ..live() }),
            named("open", live()),
        ];
        let html = index(sales, NOW_MS).unwrap();
        let place = |id: &str| html.find(&format!("data-sale-id=\"{id}\"")).expect(id);
        let order = ["open", "gone", "next", "later", "ended-last", "ended-first"].map(place);
        assert!(order.is_sorted(), "{order:?}");
    }

    #[test]
    fn an_empty_list_says_how_to_fill_it() {
        let html = index(Vec::new(), NOW_MS).unwrap();
        assert!(html.contains("No sales yet") && html.contains("flashsale sales create"));
    }

    #[test]
    fn a_card_has_state_stock_countdown_and_link() {
        let html = index(vec![live()], NOW_MS).unwrap();
        assert!(html.contains("href=\"/sales/sale_1\">Night Runner</a>"));
        assert!(html.contains("<b class=\"tag\">Live</b>"));
        assert!(html.contains("<b data-field=\"remaining\">95</b> <span>of 100 left</span>"));
        assert!(html.contains("min=\"0\" max=\"100\" value=\"95\""));
        let timer = format!("data-countdown-to=\"{}\">50\u{a0}min<", live().ends_at_ms);
        assert!(html.contains(&timer));
    }

    #[test]
    fn each_state_is_named() {
        let states = [
            ("Live", live()),
            ("Few left", SaleView { remaining: 10, ..live() }),
            ("Sold out", SaleView { remaining: 0, ..live() }),
            ("Paused", SaleView { paused: true, ..live() }),
            ("Ended", SaleView { phase: Phase::Ended, ..live() }),
        ];
        for (name, view) in states {
            assert!(page(view).contains(&format!("<b class=\"tag\">{name}</b>")), "{name}");
        }
        assert!(page(upcoming()).contains("<span data-show=\"upcoming\">Upcoming</span>"));
    }

    #[test]
    fn only_what_is_buyable_has_a_button_that_works() {
        assert!(!buy_button(&page(live())).contains("disabled"));
        for view in [
            upcoming(),
            SaleView { remaining: 0, ..live() },
            SaleView { paused: true, ..live() },
            SaleView { paused: true, ..upcoming() },
        ] {
            let html = page(view);
            assert!(buy_button(&html).contains("disabled aria-describedby=\"buy-note\""));
            assert!(html.contains("id=\"buy-note\""));
        }
        assert!(!page(SaleView { phase: Phase::Ended, ..live() }).contains("class=\"buy\""));
    }

    #[test]
    fn an_upcoming_sale_says_when_it_starts() {
        let html = page(upcoming());
        assert!(
            html.contains("<time datetime=\"2026-11-23T10:09:12.000Z\">23 Nov 2026, 10:09:12 UTC</time>")
        );
        assert!(html.contains(">9\u{a0}min 12\u{a0}s<"));
        assert!(html.contains(&format!("data-server-now=\"{NOW_MS}\"")));
    }

    #[test]
    fn every_answer_is_told_in_its_words_and_in_the_title() {
        let order_id = || "order-7".to_owned();
        let answers = [
            (Notice::Reserved { order_id: order_id() }, "Purchase reserved successfully"),
            (Notice::AlreadyPurchased { order_id: order_id() }, "You have already purchased from this sale"),
            (Notice::SoldOut, "Sale is sold out"),
            (Notice::NotActive, "Sale is not currently active"),
            (Notice::Busy { retry_after_s: 2 }, "We are at capacity right now, your attempt was not counted"),
            (Notice::Unavailable, "Sales are paused because the store cannot record them right now"),
        ];
        for (notice, words) in answers {
            let with_order = matches!(notice, Notice::Reserved { .. } | Notice::AlreadyPurchased { .. });
            let html = answer(notice);
            assert!(html.contains(&format!("<h2>{words}</h2>")), "{words}");
            assert!(html.contains(&format!("<title>{words}: Night Runner")), "{words}");
            assert!(html.contains("value=\"user123\""), "{words}");
            assert_eq!(html.contains(">order-7</code>"), with_order, "{words}");
        }
        assert!(answer(Notice::Busy { retry_after_s: 2 }).contains("Try again in 2 s."));
    }

    #[test]
    fn a_wrong_user_id_is_told_at_its_field() {
        let html = answer(Notice::InvalidUserId("It is too long.".to_owned()));
        assert!(html.contains("id=\"user-id-error\">It is too long.</p>"));
        assert!(
            html.contains("aria-invalid=\"true\" autofocus aria-describedby=\"user-id-error user-id-hint\"")
        );
        assert!(!answer(Notice::SoldOut).contains("aria-invalid"));
    }

    #[test]
    fn a_lookup_tells_what_it_found() {
        let order_id = "order-7".to_owned();
        let html =
            lookup(PurchaseView::Purchased { order_id: order_id.clone(), status: OrderStatus::Reserved });
        assert!(html.contains(">RESERVED</b>") && html.contains(">order-7</code>"));
        let html = lookup(PurchaseView::Purchased { order_id, status: OrderStatus::Confirmed });
        assert!(html.contains(">CONFIRMED</b>"));
        assert!(lookup(PurchaseView::NotPurchased).contains("Not purchased by user 1"));
    }

    #[test]
    fn the_link_to_a_lookup_carries_the_user_id_encoded() {
        let notice = Some(Notice::Reserved { order_id: "order-7".to_owned() });
        let html = sale(live(), NOW_MS, Some("a b&c=/\"é"), notice, None).unwrap();
        assert!(html.contains("href=\"/sales/sale_1?userId=a%20b%26c%3D%2F%22%C3%A9\""));
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let view = || SaleView { name: SCRIPT.to_owned(), ..live() };
        let order_id = || SCRIPT.to_owned();
        let user_id = Some("\" autofocus onfocus=alert(1) x=\"<script>");
        let purchase = PurchaseView::Purchased { order_id: order_id(), status: OrderStatus::Reserved };
        let pages = [
            index(vec![view()], NOW_MS),
            sale(view(), NOW_MS, user_id, Some(Notice::Reserved { order_id: order_id() }), Some(purchase)),
            sale(view(), NOW_MS, user_id, Some(Notice::InvalidUserId(SCRIPT.to_owned())), None),
            sale(view(), NOW_MS, user_id, None, Some(PurchaseView::NotPurchased)),
            error(404, SCRIPT, SCRIPT),
        ];
        for html in pages.map(Result::unwrap) {
            assert!(!html.contains("<script>"), "{html}");
            assert!(!html.contains("\" autofocus onfocus"), "{html}");
        }
    }

    #[test]
    fn the_policy_forbids_inline_style_and_script_and_no_page_has_them() {
        let pages =
            [index(vec![live(), upcoming()], NOW_MS), Ok(page(upcoming())), error(503, "Away", "Wait.")];
        for html in pages.map(Result::unwrap) {
            assert!(!html.contains(" style=") && !html.contains("<style"));
            assert_eq!(html.matches("<script").count(), html.matches("<script type=\"module\" src=").count());
            assert!(!html.contains("http://") && !html.contains("https://"));
        }
    }

    #[test]
    fn an_error_page_has_status_title_and_way_out() {
        let html = error(404, "No such sale", "It may have been removed.").unwrap();
        assert!(html.contains("404") && html.contains("<h1 class=\"title\">No such sale</h1>"));
        assert!(html.contains("It may have been removed.") && html.contains("<a href=\"/\">"));
    }
}
