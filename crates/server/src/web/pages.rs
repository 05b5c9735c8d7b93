//! A function per page: from view models to HTML. askama escapes whatever comes from outside.

use askama::{Result, Template};

use super::assets;
use super::sale_view::{SaleView, State};
use super::words::Words;

/// How pages look and speak, for one visitor.
#[derive(Clone, Copy)]
pub(crate) struct Look<'a> {
    pub(crate) words: &'static Words,
    /// Where the shop's own style sheet is, if it has one.
    pub(crate) theme: Option<&'a str>,
}

/// Where a sale is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// On its own page, at `/sales/{saleId}`.
    Page,
    /// In a frame on somebody else's page, at `/widget/{saleId}`.
    Frame,
}

/// What a visitor of a sale has asked for, and the answer; nothing of it, for one who only looks.
#[derive(Default)]
pub(crate) struct Visit {
    /// What the visitor typed, valid or not; it stays in the field.
    pub(crate) user_id: String,
    /// The answer to an attempt.
    pub(crate) notice: Option<Notice>,
    /// What a lookup found.
    pub(crate) purchase: Option<PurchaseView>,
}

/// The list of all sales, at `/`.
pub(crate) fn index(look: Look, mut sales: Vec<SaleView>, now_ms: i64) -> Result<String> {
    sales.sort_by_cached_key(SaleView::list_order);
    IndexPage { words: look.words, theme: look.theme, sales, now_ms }.render()
}

/// A sale's page; after an attempt also its answer, and after a lookup also what was found.
pub(crate) fn sale(look: Look, sale: SaleView, visit: Visit) -> Result<String> {
    let Visit { user_id, notice, purchase } = visit;
    let here = format!("/sales/{}", sale.sale_id);
    SalePage { words: look.words, theme: look.theme, sale, here, user_id, notice, purchase }.render()
}

/// A sale in a frame on somebody else's page, which may be of `origins`.
pub(crate) fn frame(look: Look, sale: SaleView, visit: Visit, origins: &str) -> Result<String> {
    let Visit { user_id, notice, purchase } = visit;
    let here = format!("/widget/{}", sale.sale_id);
    FramePage { words: look.words, theme: look.theme, sale, here, origins, user_id, notice, purchase }
        .render()
}

/// An example of somebody else's page, with a sale in a frame; `origin` is this shop's.
pub(crate) fn example(sale_id: &str, origin: &str) -> Result<String> {
    ExamplePage { sale_id, origin }.render()
}

/// The sale that stands first in the list.
pub(crate) fn foremost(sales: Vec<SaleView>) -> Option<String> {
    sales.into_iter().min_by_key(SaleView::list_order).map(|sale| sale.sale_id)
}

/// A page for what cannot be shown. `detail` says what it was, in the program's own words.
pub(crate) fn error(look: Look, place: Place, status: u16, detail: &str) -> Result<String> {
    let [title, advice] = look.words.error(status);
    let framed = place == Place::Frame;
    ErrorPage { words: look.words, theme: look.theme, framed, status, title, advice, text: detail }.render()
}

/// The answer to an attempt that the visitor has just made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Notice {
    /// `SUCCESS`.
    Reserved(Held),
    /// `ALREADY_PURCHASED`.
    AlreadyPurchased(Held),
    /// `SOLD_OUT`.
    SoldOut,
    /// The sale is upcoming, paused or has ended.
    NotActive,
    /// The user id breaks a rule; what it "must not" be.
    InvalidUserId(String),
    /// No capacity: nothing was decided.
    Busy { retry_after_s: u64 },
    /// The store cannot record purchases.
    Unavailable,
}

impl Notice {
    /// The answer in a line, for its heading and for the page's title.
    fn title(&self, words: &Words) -> &'static str {
        match self {
            Self::Reserved(_) => words.reserved_title,
            Self::AlreadyPurchased(_) => words.already_title,
            Self::SoldOut => words.sold_out_title,
            Self::NotActive => words.not_active_title,
            Self::InvalidUserId(_) => words.invalid_title,
            Self::Busy { .. } => words.busy_title,
            Self::Unavailable => words.unavailable_title,
        }
    }
}

/// What a lookup of a user's purchase found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum PurchaseView {
    /// The user has a unit.
    Purchased(Held),
    /// The user has none.
    NotPurchased,
}

/// A unit that the user holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Held {
    pub(crate) order_id: String,
    pub(crate) status: OrderStatus,
}

/// How far a purchase has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OrderStatus {
    /// Decided and recorded; the order follows.
    Reserved,
    /// The order is in the store.
    Confirmed,
}

impl OrderStatus {
    /// Its name in the API, by which the script knows it.
    fn key(self) -> &'static str {
        match self {
            Self::Reserved => "RESERVED",
            Self::Confirmed => "CONFIRMED",
        }
    }
}

#[derive(Template)]
#[template(path = "index.html", whitespace = "minimize")]
struct IndexPage<'a> {
    words: &'static Words,
    theme: Option<&'a str>,
    sales: Vec<SaleView>,
    now_ms: i64,
}

#[derive(Template)]
#[template(path = "sale.html", whitespace = "minimize")]
struct SalePage<'a> {
    words: &'static Words,
    theme: Option<&'a str>,
    sale: SaleView,
    /// Where the form is sent.
    here: String,
    user_id: String,
    notice: Option<Notice>,
    purchase: Option<PurchaseView>,
}

#[derive(Template)]
#[template(path = "frame.html", whitespace = "minimize")]
struct FramePage<'a> {
    words: &'static Words,
    theme: Option<&'a str>,
    sale: SaleView,
    /// Where the form is sent.
    here: String,
    /// Whose pages may hold the frame.
    origins: &'a str,
    user_id: String,
    notice: Option<Notice>,
    purchase: Option<PurchaseView>,
}

#[derive(Template)]
#[template(path = "example.html", whitespace = "minimize")]
struct ExamplePage<'a> {
    sale_id: &'a str,
    origin: &'a str,
}

#[derive(Template)]
#[template(path = "error.html", whitespace = "minimize")]
struct ErrorPage<'a> {
    words: &'static Words,
    theme: Option<&'a str>,
    framed: bool,
    status: u16,
    title: &'a str,
    advice: &'a str,
    text: &'a str,
}

#[cfg(test)]
mod tests {
    use super::super::sale_view::{
        Phase,
        tests::{NOW_MS, live, upcoming},
    };
    use super::super::words::{ENGLISH, GERMAN};
    use super::*;

    const SCRIPT: &str = "<script>alert(1)</script>";

    const LOOK: Look<'_> = Look { words: &ENGLISH, theme: None };

    fn index(sales: Vec<SaleView>) -> String {
        super::index(LOOK, sales, NOW_MS).unwrap()
    }

    fn page(view: SaleView) -> String {
        sale(LOOK, view, Visit::default()).unwrap()
    }

    fn asked(user_id: &str, notice: Option<Notice>, purchase: Option<PurchaseView>) -> Visit {
        Visit { user_id: user_id.to_owned(), notice, purchase }
    }

    fn answer(notice: Notice) -> String {
        sale(LOOK, live(), asked("user123", Some(notice), None)).unwrap()
    }

    fn lookup(purchase: PurchaseView) -> String {
        sale(LOOK, live(), asked("user 1&2", None, Some(purchase))).unwrap()
    }

    fn held(order_id: &str) -> Held {
        Held { order_id: order_id.to_owned(), status: OrderStatus::Reserved }
    }

    /// The words that are shown, of all in the markup of a state's name.
    fn tag(html: &str) -> &str {
        let tag = html.split("<b class=\"tag\">").nth(1).unwrap().split("</b>").next().unwrap();
        let shown = tag.split("</span>").find(|span| span.contains("data-show") && !span.contains(" hidden"));
        shown.unwrap().rsplit_once('>').unwrap().1
    }

    /// The tag of the button, up to its text.
    fn buy_button(html: &str) -> &str {
        let start = html.find("<button class=\"buy\" data-action=\"buy\"").expect("there is a button");
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
        let html = index(sales);
        let place = |id: &str| html.find(&format!("data-sale-id=\"{id}\"")).expect(id);
        let order = ["open", "gone", "next", "later", "ended-last", "ended-first"].map(place);
        assert!(order.is_sorted(), "{order:?}");
    }

    #[test]
    fn an_empty_list_says_how_to_fill_it() {
        let html = index(Vec::new());
        assert!(html.contains("No sales yet") && html.contains("flashsale sales create"));
    }

    #[test]
    fn a_card_has_state_stock_countdown_and_link() {
        let html = index(vec![live()]);
        assert!(html.contains("href=\"/sales/sale_1\">Night Runner</a>"));
        assert_eq!(tag(&html), "Live");
        assert!(html.contains("<b data-field=\"remaining\">95</b> <span>of 100 left</span>"));
        assert!(html.contains("min=\"0\" max=\"100\" value=\"95\""));
        assert!(html.contains("data-until=\"ends\">50\u{a0}min<"));
        assert!(html.contains(&format!("data-ends=\"{}\"", live().ends_at_ms)));
    }

    #[test]
    fn each_state_is_named() {
        let states = [
            ("Live", live()),
            ("Few left", SaleView { remaining: 10, ..live() }),
            ("Upcoming", upcoming()),
            ("About to start", SaleView { starts_at_ms: NOW_MS + 9_000, ..upcoming() }),
            ("All taken right now", SaleView { remaining: 0, reserved: 1, ..live() }),
            ("Sold out", SaleView { remaining: 0, ..live() }),
            ("Paused", SaleView { paused: true, ..live() }),
            ("Ended", SaleView { phase: Phase::Ended, ..live() }),
        ];
        for (name, view) in states {
            assert_eq!(tag(&page(view)), name);
        }
    }

    #[test]
    fn only_what_is_buyable_has_a_button_that_works() {
        let is_disabled = |view| buy_button(&page(view)).contains(" disabled");
        assert!(!is_disabled(live()) && !is_disabled(SaleView { remaining: 1, ..live() }));
        for view in [
            upcoming(),
            SaleView { remaining: 0, reserved: 1, ..live() },
            SaleView { remaining: 0, ..live() },
            SaleView { paused: true, ..live() },
            SaleView { paused: true, ..upcoming() },
        ] {
            assert!(is_disabled(view));
        }
        assert!(buy_button(&page(SaleView { phase: Phase::Ended, ..live() })).contains(" hidden"));
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
        let answers = [
            (Notice::Reserved(held("order-7")), "Purchase reserved successfully"),
            (Notice::AlreadyPurchased(held("order-7")), "You have already purchased from this sale"),
            (Notice::SoldOut, "Sale is sold out"),
            (Notice::NotActive, "Sale is not currently active"),
            (Notice::Busy { retry_after_s: 2 }, "We are at capacity right now, your attempt was not counted"),
            (Notice::Unavailable, "Sales are paused because the store cannot record them right now"),
        ];
        for (notice, words) in answers {
            let with_order = matches!(notice, Notice::Reserved(_) | Notice::AlreadyPurchased(_));
            let html = answer(notice);
            assert!(html.contains(&format!("<h2 id=\"answer-title\">{words}</h2>")), "{words}");
            assert!(html.contains(&format!("<title>{words}: Night Runner")), "{words}");
            assert!(html.contains("value=\"user123\""), "{words}");
            assert_eq!(html.contains(">order-7</code>"), with_order, "{words}");
        }
        assert!(answer(Notice::Busy { retry_after_s: 2 }).contains("Try again in 2 s."));
    }

    #[test]
    fn a_wrong_user_id_is_told_at_its_field() {
        let html = answer(Notice::InvalidUserId("must not be empty".to_owned()));
        assert!(html.contains("id=\"user-id-error\">A user ID must not be empty.</p>"));
        assert!(
            html.contains("aria-invalid=\"true\" autofocus aria-describedby=\"user-id-error user-id-hint\"")
        );
        assert!(!answer(Notice::SoldOut).contains("aria-invalid"));
    }

    #[test]
    fn a_lookup_tells_what_it_found() {
        let reserved = held("order-7");
        let confirmed = Held { status: OrderStatus::Confirmed, ..reserved.clone() };
        for (held, shown, other) in
            [(reserved, "RESERVED", "CONFIRMED"), (confirmed, "CONFIRMED", "RESERVED")]
        {
            let html = lookup(PurchaseView::Purchased(held));
            assert!(html.contains(">order-7</code>") && html.contains(&format!("data-status=\"{shown}\"")));
            assert!(html.contains(&format!("data-order-show=\"{shown}\"><b>{shown}</b>")));
            assert!(html.contains(&format!("data-order-show=\"{other}\" hidden")));
        }
        assert!(lookup(PurchaseView::NotPurchased).contains("Not purchased by user 1"));
    }

    #[test]
    fn the_link_to_a_lookup_carries_the_user_id_encoded() {
        let notice = Some(Notice::Reserved(held("order-7")));
        let html = sale(LOOK, live(), asked("a b&c=/\"é", notice, None)).unwrap();
        assert!(html.contains("href=\"/sales/sale_1?userId=a%20b%26c%3D%2F%22%C3%A9\""));
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let hostile = || Some(SCRIPT.to_owned());
        let price = Some((SCRIPT.to_owned(), SCRIPT.to_owned()));
        let view = || SaleView {
            name: SCRIPT.to_owned(),
            description: hostile(),
            image_url: hostile(),
            price: price.clone(),
            ..live()
        };
        let user_id = "\" autofocus onfocus=alert(1) x=\"<script>";
        let shown = |notice, purchase| sale(LOOK, view(), asked(user_id, notice, purchase));
        let pages = [
            Ok(index(vec![view()])),
            shown(Some(Notice::Reserved(held(SCRIPT))), Some(PurchaseView::Purchased(held(SCRIPT)))),
            shown(Some(Notice::InvalidUserId(SCRIPT.to_owned())), None),
            shown(None, Some(PurchaseView::NotPurchased)),
            error(LOOK, Place::Page, 404, SCRIPT),
        ];
        for html in pages.map(Result::unwrap) {
            assert!(!html.contains("<script>"), "{html}");
            assert!(!html.contains("\" autofocus onfocus"), "{html}");
        }
    }

    #[test]
    fn the_policy_forbids_inline_style_and_script_and_no_page_has_them() {
        let pages = [
            Ok(index(vec![live(), upcoming()])),
            Ok(page(upcoming())),
            error(LOOK, Place::Page, 503, "Away"),
        ];
        for html in pages.map(Result::unwrap) {
            assert!(!html.contains(" style=") && !html.contains("<style"));
            assert_eq!(html.matches("<script").count(), html.matches("<script type=\"module\" src=").count());
            assert!(!html.contains("http://") && !html.contains("https://"));
        }
    }

    #[test]
    fn an_error_page_has_status_title_and_way_out() {
        let html = error(LOOK, Place::Page, 404, "There is no sale sale_9").unwrap();
        assert!(html.contains("404") && html.contains("<h1 class=\"title\">Not found</h1>"));
        assert!(html.contains("There is no sale sale_9") && html.contains("<a href=\"/\">"));
    }

    #[test]
    fn a_german_page_is_german_throughout() {
        let look = Look { words: &GERMAN, ..LOOK };
        let view = SaleView { total: 10_000, remaining: 9_500, ..live() };
        let html = sale(look, view, asked("u", Some(Notice::SoldOut), None)).unwrap();
        assert!(html.contains("<html lang=\"de\">") && html.contains("data-units=\"Tg. Std. Min. Sek.\""));
        assert!(html.contains("von 10.000 übrig") && html.contains("Der Verkauf ist ausverkauft"));
        for english in ["Buy", "Sold", "Ends", "units", "Live", "purchase<"] {
            assert!(!html.contains(&format!(">{english}")), "{english}");
        }
    }

    #[test]
    fn a_theme_comes_after_the_style_sheet() {
        let look = Look { theme: Some("/assets/theme-1.css"), ..LOOK };
        let html = super::index(look, Vec::new(), NOW_MS).unwrap();
        let place = |file: &str| html.find(file).expect(file);
        assert!(place("/assets/app-") < place("href=\"/assets/theme-1.css\""));
    }

    #[test]
    fn a_product_has_picture_text_and_price() {
        let view = SaleView {
            description: Some("Light as air.\nMade to last.".to_owned()),
            image_url: Some("https://shop.example/shoe.jpg".to_owned()),
            price: Some(("129.00".to_owned(), "EUR".to_owned())),
            ..live()
        };
        let html = page(view);
        assert!(html.contains("class=\"sale pictured\""));
        assert!(html.contains("<img src=\"https://shop.example/shoe.jpg\" alt=\"Night Runner\" width="));
        assert!(html.contains("Light as air.\nMade to last.") && html.contains(">€129.00</p>"));
        let plain = page(live());
        assert!(!plain.contains("pictured") && !plain.contains("class=\"price\""));
    }
}
