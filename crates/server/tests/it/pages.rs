//! What a browser gets: the storefront, its files, the documentation, and what probes and scrapers read.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
};

use serde_json::{Value, json};

use crate::server::{Reply, Server};

const PAST: &str = "2020-01-01T00:00:00.000Z";
const FUTURE: &str = "2099-01-01T00:00:00.000Z";
/// What a browser accepts.
const BROWSER: (&str, &str) = ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
/// What a page that is the same for everybody says to those who keep copies.
const SHELL: &str = "public, max-age=0, s-maxage=2";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// Sends the form of a sale's page, with its fields as a browser encodes them.
fn submit(server: &Server, sale: &str, fields: &str) -> Reply {
    server.request("POST", &format!("/sales/{sale}"), &[BROWSER, FORM], fields.as_bytes())
}

fn create(server: &Server, sale: &str, name: &str, stock: u32) {
    let sale =
        json!({ "saleId": sale, "name": name, "totalStock": stock, "startsAt": PAST, "endsAt": FUTURE });
    assert_eq!(server.admin("POST", "/api/v1/admin/sales", &sale).status, 201);
}

/// The reply is an HTML page of one visitor or one moment, with the headers that all pages have.
fn assert_page(reply: &Reply, status: u16) {
    assert_kept(reply, status, "no-store");
}

/// The reply is an HTML page with the headers that all pages have, and with this word to those who keep copies.
fn assert_kept(reply: &Reply, status: u16, cache: &str) {
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (status, "text/html; charset=utf-8"),
        "{reply:?}"
    );
    let policy = reply.header("content-security-policy");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.split("; ").any(|found| found == part), "{part} is not in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let headers = ["cache-control", "vary", "x-content-type-options", "referrer-policy"];
    let values = [cache, "accept-language, accept-encoding", "nosniff", "no-referrer"];
    assert_eq!(headers.map(|name| reply.header(name)), values);
    assert!(reply.text.starts_with("<!doctype html>") && reply.text.trim_end().ends_with("</html>"));
}

fn assert_contains(reply: &Reply, words: &[&str]) {
    for word in words {
        assert!(reply.text.contains(word), "{word} is not in {}", reply.text);
    }
}

/// What stands between `before` and the next quote, each time.
fn quoted<'a>(html: &'a str, before: &str) -> Vec<&'a str> {
    html.split(before).skip(1).map(|rest| rest.split('"').next().expect("an end")).collect()
}

#[test]
fn the_first_page_lists_the_sales() {
    let server = Server::demo();
    let page = server.request("GET", "/", &[BROWSER], b"");
    assert_kept(&page, 200, SHELL);
    for (sale, name) in [
        ("sale_1", "Limited Edition Product - Flash Sale"),
        ("sale_2", "Upcoming Product - Flash Sale"),
        ("sale_3", "Past Product - Flash Sale"),
    ] {
        assert_contains(&page, &[&format!("<a href=\"/sales/{sale}\">{name}</a>")]);
    }
    assert_eq!(quoted(&page.text, "data-state=\""), ["live", "upcoming", "ended"]);
}

#[test]
fn a_shop_without_sales_says_so() {
    let server = Server::start(&[]);
    let page = server.get("/");
    assert_kept(&page, 200, SHELL);
    assert_contains(&page, &["No sales yet"]);
    assert_eq!(server.get("/api/v1/sales").json(), json!([]));
}

#[test]
fn a_sale_has_a_page_with_a_form() {
    let server = Server::demo();
    let page = server.get("/sales/sale_1");
    assert_kept(&page, 200, SHELL);
    assert_contains(
        &page,
        &[
            "Limited Edition Product - Flash Sale",
            "<form id=\"buy-form\" method=\"post\" action=\"/sales/sale_1\">",
            "name=\"userId\"",
            "<b data-field=\"remaining\">100</b>",
        ],
    );
}

#[test]
fn the_form_buys_and_shows_the_seeds_four_answers() {
    let server = Server::demo();
    create(&server, "one", "One of a kind", 1);

    let reserved = submit(&server, "one", "userId=user123");
    assert_page(&reserved, 200);
    let order = server.get("/api/v1/sale/one/user/user123").json()["orderId"].clone();
    let order = order.as_str().expect("the form has bought");
    assert_contains(&reserved, &["Purchase reserved successfully", order, "data-notice=\"reserved\""]);
    assert_contains(&reserved, &["<b data-field=\"remaining\">0</b>"]);

    let again = submit(&server, "one", "userId=user123");
    assert_page(&again, 200);
    assert_contains(&again, &["You have already purchased from this sale", order]);

    let late = submit(&server, "one", "userId=late");
    assert_page(&late, 200);
    assert_contains(&late, &["Sale is sold out", "data-notice=\"sold-out\""]);

    for closed in ["sale_2", "sale_3"] {
        let inactive = submit(&server, closed, "userId=user123");
        assert_page(&inactive, 400);
        assert_contains(&inactive, &["Sale is not currently active"]);
    }
    // What was bought on the page is what the API sells, and the other way round.
    assert_eq!(server.buy("one", "user123").json()["orderId"], order);
    assert_eq!(server.status("one")["totalSold"], 1);
}

#[test]
fn a_purchase_is_looked_up_on_the_page() {
    let server = Server::demo();
    let none = server.get("/sales/sale_1?userId=a%26b+c");
    assert_page(&none, 200);
    assert_contains(&none, &["data-purchase=\"not-purchased\""]);
    let order = server.buy("sale_1", "a&b c").json()["orderId"].clone();
    server.until("the order is confirmed", |server| server.status("sale_1")["confirmed"] == 1);
    let held = server.get("/sales/sale_1?userId=a%26b+c");
    assert_page(&held, 200);
    assert_contains(&held, &["data-purchase=\"purchased\"", order.as_str().expect("an order"), "CONFIRMED"]);
}

#[test]
fn an_invalid_user_id_is_told_at_its_field() {
    let server = Server::demo();
    let before = server.state();
    let too_long = format!("userId={}", "x".repeat(256));
    for (fields, told) in [
        ("userId=", "must not be empty"),
        ("", "must not be empty"),
        ("user=user123", "must not be empty"),
        ("userId=a%00b", "must not contain control characters"),
        ("userId=a%0Ab", "must not contain control characters"),
        ("userId=%C2%85", "must not contain control characters"),
        (&too_long, "must be at most 255 bytes long"),
    ] {
        let page = submit(&server, "sale_1", fields);
        assert_page(&page, 400);
        assert_contains(&page, &["id=\"user-id-error\"", told, "aria-invalid=\"true\""]);
        if fields.starts_with("userId=") && fields != "userId=" {
            let looked_up = server.get(&format!("/sales/sale_1?{fields}"));
            assert_page(&looked_up, 400);
            assert_contains(&looked_up, &["id=\"user-id-error\"", told]);
        }
    }
    assert_eq!(server.state(), before);
}

#[test]
fn a_form_that_is_none_gets_a_page_that_says_so() {
    let server = Server::demo();
    let before = server.state();
    let json = ("content-type", "application/json");
    let long = format!("userId={}", "x".repeat(1 << 20));
    for (headers, body, status) in [
        (&[BROWSER, json][..], r#"{"userId":"u"}"#, 415),
        (&[BROWSER], "userId=u", 415),
        (&[BROWSER, FORM], "userId=u&userId=v", 422),
        (&[BROWSER, FORM], &long, 413),
    ] {
        let reply = server.request("POST", "/sales/sale_1", headers, body.as_bytes());
        assert_page(&reply, status);
    }
    assert_page(&server.get("/sales/sale_1?userId=u&userId=v"), 400);
    assert_eq!(server.state(), before);
}

#[test]
fn an_unknown_sale_is_a_page_of_its_own() {
    let server = Server::demo();
    for reply in [server.get("/sales/unknown"), submit(&server, "unknown", "userId=u")] {
        assert_page(&reply, 404);
        assert_contains(&reply, &["There is no sale unknown", "<a href=\"/\">All sales</a>"]);
    }
    for wrong in ["%3Cscript%3E", "%00", "%ff", &"x".repeat(65)] {
        assert_page(&server.get(&format!("/sales/{wrong}")), 400);
        assert_page(&submit(&server, wrong, "userId=u"), 400);
    }
}

#[test]
fn an_unknown_path_is_a_page_for_browsers_and_a_problem_for_programs() {
    let server = Server::demo();
    for path in ["/nothing", "/api/v1/nothing", "/sales", "/%3Cscript%3E"] {
        let page = server.request("GET", path, &[BROWSER], b"");
        assert_page(&page, 404);
        assert_contains(&page, &["Not found", path]);
        for accept in [&[][..], &[("accept", "*/*")], &[("accept", "application/json")]] {
            let told = server.request("GET", path, accept, b"").problem(404);
            assert_eq!(told, format!("There is nothing at {path}"));
        }
    }
}

#[test]
fn what_people_type_is_never_markup() {
    let server = Server::demo();
    let hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;";
    create(&server, "hostile", hostile, 10);
    let encoded: String = hostile.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let pages = [
        server.get("/"),
        server.get("/sales/hostile"),
        server.get(&format!("/sales/hostile?userId={encoded}")),
        submit(&server, "hostile", &format!("userId={encoded}")),
        submit(&server, "hostile", &format!("userId={encoded}")),
        submit(&server, "hostile", &format!("userId={encoded}%00")),
        server.get(&format!("/sales/hostile?userId={encoded}")),
        server.get(&format!("/sales/{encoded}")),
        server.request("GET", &format!("/{encoded}"), &[BROWSER], b""),
    ];
    for (place, page) in pages.iter().enumerate() {
        assert_kept(page, page.status, if place < 2 { SHELL } else { "no-store" });
        for markup in ["<script>", "<img src=x", "\"'>", "&amp;<"] {
            assert!(!page.text.contains(markup), "{markup} is in {}", page.text);
        }
    }
    assert_eq!(pages.map(|page| page.status), [200, 200, 200, 200, 200, 400, 200, 400, 404]);
    // It is the very name nevertheless.
    assert_eq!(server.status("hostile")["name"], hostile);
    assert_eq!(server.get(&format!("/api/v1/sale/hostile/user/{encoded}")).json()["purchased"], true);
}

/// A reply with its body as bytes, which for a compressed one are no text.
fn compressed(server: &Server, path: &str) -> (String, Vec<u8>) {
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\nconnection: close\r\n\r\n");
    let (mut stream, mut received) = (server.connect(), Vec::new());
    stream.write_all(request.as_bytes()).expect("it is sent");
    stream.read_to_end(&mut received).expect("a reply");
    let end = received.windows(4).position(|four| four == b"\r\n\r\n").expect("a header");
    let body = received.split_off(end + 4);
    (String::from_utf8(received).expect("text").to_ascii_lowercase(), body)
}

#[test]
fn the_files_of_a_page_are_kept_for_ever_and_compressed() {
    let server = Server::demo();
    let page = server.get("/sales/sale_1").text;
    let files: BTreeSet<_> =
        ["href=\"/assets/", "src=\"/assets/"].iter().flat_map(|at| quoted(&page, at)).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for name in files {
        let path = format!("/assets/{name}");
        let plain = server.get(&path);
        assert_eq!((plain.status, plain.header("content-encoding")), (200, ""));
        let content_type = match name.rsplit('.').next() {
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!(plain.header("content-type"), content_type);
        assert_eq!(plain.header("cache-control"), "public, max-age=31536000, immutable");
        assert_eq!(
            (plain.header("vary"), plain.header("x-content-type-options")),
            ("accept-encoding", "nosniff")
        );
        let known = [("if-none-match", plain.header("etag"))];
        let unchanged = server.request("GET", &path, &known, b"");
        assert_eq!((unchanged.status, unchanged.text.as_str()), (304, ""));

        let (head, body) = compressed(&server, &path);
        assert!(head.contains("content-encoding: gzip") && head.contains("immutable"), "{head}");
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_string(&mut unpacked).expect("gzip");
        assert_eq!(unpacked, plain.text);
    }
    for unknown in ["app.css", "app-0000000000000000.css"] {
        server.get(&format!("/assets/{unknown}")).problem(404);
    }
}

/// The bytes of a first view, as they go over the line: headers and bodies of the page and of all that it needs.
#[test]
fn a_first_view_is_14_kb_with_everything() {
    let server = Server::demo();
    let product = json!({
        "description": "Hand-sewn, and light as air. ".repeat(5),
        "imageUrl": "https://shop.example/shoe.jpg",
        "price": "129.00",
        "currency": "EUR",
    });
    for sale in ["sale_1", "sale_2"] {
        let changed = server.admin("PATCH", &format!("/api/v1/admin/sales/{sale}"), &product);
        assert_eq!(changed.status, 200, "{changed:?}");
    }
    for path in ["/", "/sales/sale_1", "/sales/sale_2"] {
        let page = server.get(path).text;
        let files = ["href=\"/assets/", "src=\"/assets/"].iter().flat_map(|at| quoted(&page, at));
        let files: BTreeSet<_> = files.map(|name| format!("/assets/{name}")).collect();
        let parts = files.into_iter().chain([path.to_owned()]).map(|path| {
            let (head, body) = compressed(&server, &path);
            assert!(head.contains("content-encoding: gzip"), "{head}");
            (head.len() + 4 + body.len(), path)
        });
        let parts: Vec<_> = parts.collect();
        let bytes: usize = parts.iter().map(|(bytes, _)| bytes).sum();
        assert!(bytes <= 14 * 1024, "{path} takes {bytes} bytes: {parts:?}");
    }
}

#[test]
fn pages_are_compressed_for_those_who_take_it() {
    let server = Server::demo();
    let plain = server.get("/sales/sale_3").text;
    let (head, body) = compressed(&server, "/sales/sale_3");
    assert!(
        head.contains("content-encoding: gzip") && head.contains("vary: accept-language, accept-encoding")
    );
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(body.as_slice()).read_to_string(&mut unpacked).expect("gzip");
    // But for the clock it is the same page.
    let clock = |html: &str| quoted(html, "data-server-now=\"")[0].to_owned();
    assert_eq!(unpacked.replace(&clock(&unpacked), ""), plain.replace(&clock(&plain), ""));
    assert!(body.len() < plain.len() / 2);
}

#[test]
fn a_visitor_is_spoken_to_in_german_who_asks_for_it() {
    let server = Server::demo();
    let german = ("accept-language", "de-AT,de;q=0.9,en;q=0.5");
    let page = server.request("GET", "/sales/sale_1", &[BROWSER, german], b"");
    assert_kept(&page, 200, SHELL);
    assert_eq!(page.header("content-language"), "de");
    assert_contains(&page, &["<html lang=\"de\">", "Jetzt kaufen", "von 100 übrig"]);
    let answer = server.request("POST", "/sales/sale_1", &[BROWSER, FORM, german], b"userId=ada");
    assert_contains(&answer, &["Kauf erfolgreich reserviert"]);
    let unknown = server.request("GET", "/sales/none", &[BROWSER, german], b"");
    assert_page(&unknown, 404);
    assert_contains(
        &unknown,
        &["Nicht gefunden", "<p class=\"lead detail\" lang=\"en\">There is no sale none</p>"],
    );
    let french = ("accept-language", "fr");
    assert_contains(&server.request("GET", "/", &[BROWSER, french], b""), &["<html lang=\"en\">"]);
}

#[test]
fn a_shop_has_its_own_theme_on_every_page() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("shop.css");
    std::fs::write(&file, ":root { --accent: #b3002d; --on-accent: #fff }").expect("it is written");
    let server = Server::start(&["--demo", "--theme", file.to_str().expect("a plain path")]);
    for path in ["/", "/sales/sale_1", "/sales/none", "/widget/sale_1"] {
        let page = server.get(path).text;
        let sheets = quoted(&page, "<link rel=\"stylesheet\" href=\"");
        assert!(sheets.len() == 2 && sheets[1].starts_with("/assets/theme-"), "{path}: {sheets:?}");
        let theme = server.get(sheets[1]);
        assert_eq!((theme.status, theme.header("content-type")), (200, "text/css; charset=utf-8"));
        assert_eq!(theme.header("cache-control"), "public, max-age=31536000, immutable");
        assert!(theme.text.contains("#b3002d"));
    }
}

/// The part of a policy that says who may frame a page.
fn ancestors(reply: &Reply) -> &str {
    let policy = reply.header("content-security-policy");
    policy.split("; ").find_map(|part| part.strip_prefix("frame-ancestors ")).expect("a word on frames")
}

#[test]
fn a_sale_can_be_framed_by_whom_the_shop_allows() {
    let server = Server::demo();
    let frame = server.get("/widget/sale_1");
    assert_eq!((frame.status, frame.header("cache-control")), (200, SHELL));
    assert_eq!(ancestors(&frame), "*");
    assert_contains(&frame, &["action=\"/widget/sale_1\"", "data-embed=\"*\""]);
    let bought = server.request("POST", "/widget/sale_1", &[BROWSER, FORM], b"userId=ada");
    assert_eq!((bought.status, bought.header("cache-control"), ancestors(&bought)), (200, "no-store", "*"));
    assert_contains(&bought, &["data-notice=\"reserved\"", "href=\"/widget/sale_1?userId=ada\""]);
    assert_eq!(server.get("/api/v1/sale/sale_1/user/ada").json()["purchased"], true);
    let unknown = server.get("/widget/none");
    assert_eq!((unknown.status, ancestors(&unknown), unknown.text.contains("href=\"/\"")), (404, "*", false));
    // Everything else may be framed by nobody.
    assert_eq!(ancestors(&server.get("/sales/sale_1")), "'none'");

    let named = Server::start(&["--demo", "--embed-origins", "https://a.example,https://b.example"]);
    let frame = named.get("/widget/sale_1");
    assert_eq!(ancestors(&frame), "'self' https://a.example https://b.example");
    assert_contains(&frame, &["data-embed=\"https://a.example https://b.example\""]);
    let none = Server::start(&["--demo", "--embed-origins", "none"]);
    assert_eq!(ancestors(&none.get("/widget/sale_1")), "'none'");
    none.get("/widget").problem(404);
}

#[test]
fn the_widgets_script_stays_where_it_is() {
    let server = Server::demo();
    let script = server.get("/widget.js");
    assert_eq!((script.status, script.header("content-type")), (200, "text/javascript; charset=utf-8"));
    assert!(script.header("cache-control").starts_with("public, max-age=300"), "{script:?}");
    let known = [("if-none-match", script.header("etag"))];
    assert_eq!(server.request("GET", "/widget.js", &known, b"").status, 304);
    let example = server.request("GET", "/widget", &[BROWSER, ("host", "shop.example")], b"");
    assert_eq!((example.status, example.header("cache-control")), (200, "no-store"));
    assert_contains(&example, &["src=\"/widget.js\" data-sale=\"sale_1\"", "/widget/sale_1"]);
    let named = server.get("/widget?sale=sale_2%22%3E%3Cb%3E").text;
    assert!(!named.contains("<b>") && named.contains("sale_2"));
}

#[test]
fn a_product_is_shown_with_its_sale() {
    let server = Server::demo();
    let product = json!({
        "description": "Light as air.\nMade to last.",
        "imageUrl": "/pictures/shoe.jpg",
        "price": "1299.00",
        "currency": "EUR",
    });
    assert_eq!(server.admin("PATCH", "/api/v1/admin/sales/sale_1", &product).status, 200);
    let page = server.get("/sales/sale_1");
    assert_contains(&page, &["Light as air.\nMade to last.", "src=\"/pictures/shoe.jpg\"", "€1,299.00"]);
    assert_contains(&server.get("/"), &["€1,299.00"]);
    let german = ("accept-language", "de");
    assert_contains(&server.request("GET", "/sales/sale_1", &[german], b""), &["1.299,00\u{a0}€"]);
}

#[test]
fn the_documentation_is_served_whole_and_without_the_internet() {
    let server = Server::demo();
    let moved = server.get("/docs");
    assert_eq!((moved.status, moved.header("location")), (308, "/docs/index.html"));
    let index = server.get("/docs/index.html");
    assert_eq!(index.status, 200);
    assert!(index.header("content-type").starts_with("text/html"), "{index:?}");
    assert_contains(&index, &["<title>Flashsale API</title>", "name=\"viewport\""]);
    let files: BTreeSet<_> = ["href=\"", "src=\""].iter().flat_map(|at| quoted(&index.text, at)).collect();
    assert!(files.len() >= 5, "{files:?}");
    let mut texts = vec![index.text.clone()];
    for file in files {
        let path = format!("/docs/{}", file.trim_start_matches("./"));
        let (head, body) = compressed(&server, &path);
        assert!(head.starts_with("http/1.1 200") && !body.is_empty(), "{path}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
        for (extension, content_type) in
            [("css", "text/css"), ("js", "text/javascript"), ("png", "image/png")]
        {
            if file.ends_with(&format!(".{extension}")) {
                assert!(head.contains(&format!("content-type: {content_type}")), "{path}: {head}");
            }
        }
        // The bundle names addresses in its words; what is loaded is up to these.
        if file.ends_with("index.css") || file.ends_with("initializer.js") {
            texts.push(String::from_utf8(body).expect("text"));
        }
    }
    for text in &texts {
        assert!(!text.contains("//cdn") && !text.contains("http://") && !text.contains("https://"), "{text}");
    }
    assert!(texts.iter().any(|text| text.contains("\"url\": \"/openapi.json\"")));
    assert!(texts.iter().any(|text| text.contains("\"validatorUrl\": \"none\"")), "{texts:?}");
    let policy = index.header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "img-src 'self' data:"] {
        assert!(policy.split("; ").any(|found| found == part), "{part} is not in {policy}");
    }
    server.get("/docs/nothing.html").problem(404);
}

/// The routes as `http/mod.rs` lists them: path, then methods.
fn routes() -> BTreeMap<String, BTreeSet<&'static str>> {
    let source = include_str!("../../src/http/mod.rs");
    let (admin, rest) = source.split_once("let router = Router::new()").expect("the list");
    let listed = |text: &str, prefix: &str| -> Vec<(String, BTreeSet<&'static str>)> {
        let route = |line: &str| {
            let (path, handlers) = line.split_once('"').expect("the end of a path");
            let handlers = handlers.lines().next().expect("the handlers on the line of the path");
            let methods = ["get", "post", "patch", "delete"];
            let methods = methods.into_iter().filter(|method| handlers.contains(&format!("{method}(")));
            let path = path.replace("sale_id", "saleId").replace("user_id", "userId");
            (format!("{prefix}{path}"), methods.collect())
        };
        text.split(".route(\"").skip(1).map(route).collect()
    };
    listed(admin, "/api/v1/admin").into_iter().chain(listed(rest, "")).collect()
}

/// All values of `$ref` below.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_openapi_document_lists_every_route() {
    let server = Server::demo();
    let reply = server.get("/openapi.json");
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    let document = reply.json();
    let paths = document["paths"].as_object().expect("paths");
    let listed: BTreeMap<_, BTreeSet<_>> = paths
        .iter()
        .map(|(path, item)| {
            (path.as_str(), item.as_object().expect("an item").keys().map(String::as_str).collect())
        })
        .collect();
    // Pages and files are for people.
    let for_people = [
        "/",
        "/sales/{saleId}",
        "/widget",
        "/widget.js",
        "/widget/{saleId}",
        "/assets/{name}",
        "/docs",
        "/docs/{*file}",
        "/openapi.json",
    ];
    let mut routes = routes();
    for path in for_people {
        assert!(routes.remove(path).is_some(), "{path} is no route any more");
    }
    let routes: BTreeMap<_, _> =
        routes.iter().map(|(path, methods)| (path.as_str(), methods.clone())).collect();
    assert_eq!(listed, routes);
}

#[test]
fn the_openapi_document_is_sound() {
    let server = Server::demo();
    let document = server.get("/openapi.json").json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")));
    for field in ["title", "version"] {
        assert!(document["info"][field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
    }
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 5, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let tags: BTreeSet<_> = document["tags"]
        .as_array()
        .expect("tags")
        .iter()
        .map(|tag| &tag["name"])
        .map(Value::to_string)
        .collect();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let what = format!("{method} {path}: {operation}");
            assert!(ids.insert(operation["operationId"].as_str().expect("an id")), "{what}");
            assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{what}");
            assert!(
                operation["tags"].as_array().expect("tags").iter().all(|tag| tags.contains(&tag.to_string())),
                "{what}"
            );
            assert!(
                operation["responses"].as_object().is_some_and(|responses| !responses.is_empty()),
                "{what}"
            );
            let declared: Vec<_> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path" && parameter["required"] == true)
                .map(|parameter| parameter["name"].as_str().expect("a name"))
                .collect();
            let named: Vec<_> =
                path.split('{').skip(1).map(|rest| rest.split('}').next().expect("an end")).collect();
            assert_eq!(declared, named, "{what}");
            let guarded = operation["security"] == json!([{ "adminToken": [] }]);
            assert_eq!(guarded, path.starts_with("/api/v1/admin/"), "{what}");
        }
    }
    assert_eq!(document["components"]["securitySchemes"]["adminToken"]["scheme"], "bearer");
}

#[test]
fn replies_have_the_fields_that_the_document_says() {
    let server = Server::demo();
    let document = server.get("/openapi.json").json();
    let check = |schema: &str, reply: &Value| {
        let schema = &document["components"]["schemas"][schema];
        let given: BTreeSet<_> = reply.as_object().expect("an object").keys().map(String::as_str).collect();
        let known =
            schema["properties"].as_object().expect("properties").keys().map(String::as_str).collect();
        let required = schema["required"].as_array().expect("a list");
        let required = required.iter().map(|name| name.as_str().expect("a name")).collect();
        assert!(given.is_subset(&known), "{given:?} of {known:?}");
        assert!(given.is_superset(&required), "{given:?} of {required:?}");
    };
    check("PurchaseReply", &server.buy("sale_1", "u").json());
    check("PurchaseReply", &server.buy("sale_1", "u").json());
    check("UserPurchase", &server.get("/api/v1/sale/sale_1/user/u").json());
    check("UserPurchase", &server.get("/api/v1/sale/sale_1/user/v").json());
    check("SaleStatus", &server.status("sale_1"));
    check("Problem", &server.status("unknown"));
    check("Health", &server.get("/health").json());
    check("Probe", &server.get("/health/live").json());
    check("ResetReply", &server.admin("POST", "/api/v1/admin/reset", &json!({ "saleId": "sale_1" })).json());
}

#[test]
fn health_has_the_seeds_shape() {
    let server = Server::demo();
    let reply = server.get("/health");
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    let health = reply.json();
    assert_eq!((&health["status"], &health["profile"]), (&json!("up"), &json!("embedded")));
    assert!(health["timestamp"].as_str().is_some_and(|time| time.len() == PAST.len() && time.ends_with('Z')));
    assert!(health["responseTime"].as_f64().is_some_and(|ms| ms >= 0.0));
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(health["services"]["database"]["status"], "up");
    for probe in ["live", "ready"] {
        let reply = server.get(&format!("/health/{probe}"));
        assert_eq!((reply.status, reply.json()), (200, json!({ "status": "up" })));
    }
}

/// The value of a line of the metrics.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

#[test]
fn metrics_count_what_was_answered_by_api_and_pages() {
    let server = Server::demo();
    create(&server, "two", "Two", 2);
    for user in ["first", "first", "second", "late", "late"] {
        server.buy("two", user);
    }
    for user in ["first", "late"] {
        submit(&server, "two", &format!("userId={user}"));
    }
    server.buy("sale_3", "late");
    server.buy("unknown", "late");
    server.until("all orders are confirmed", |server| server.status("two")["reserved"] == 0);

    let reply = server.get("/metrics");
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    let text = &reply.text;
    for (outcome, count) in
        [("SUCCESS", 2.0), ("ALREADY_PURCHASED", 2.0), ("SOLD_OUT", 3.0), ("NOT_ACTIVE", 1.0)]
    {
        let name = format!("flashsale_attempts_total{{outcome=\"{outcome}\"}}");
        assert!((metric(text, &name) - count).abs() < f64::EPSILON, "{outcome} in {text}");
    }
    for (name, count) in [
        ("flashsale_purchase_problems_total{status=\"400\"}", 1.0),
        ("flashsale_purchase_problems_total{status=\"404\"}", 1.0),
        ("flashsale_purchase_seconds_count", 7.0),
        ("flashsale_purchase_seconds_bucket{le=\"+Inf\"}", 7.0),
        ("flashsale_sale_stock_units{sale=\"two\"}", 2.0),
        ("flashsale_sale_available_units{sale=\"two\"}", 0.0),
        ("flashsale_sale_reserved_units{sale=\"two\"}", 0.0),
        ("flashsale_sale_confirmed_units{sale=\"two\"}", 2.0),
        ("flashsale_sale_available_units{sale=\"sale_1\"}", 100.0),
    ] {
        assert!((metric(text, name) - count).abs() < f64::EPSILON, "{name} in {text}");
    }
    // Four sales were made, two units reserved, six attempts rejected; confirmations may be one entry or two.
    server.until("all is on record", |server| {
        let text = server.get("/metrics").text;
        metric(&text, "flashsale_ledger_waiting").abs() < f64::EPSILON
            && metric(&text, "flashsale_ledger_entries_total") >= 13.0
    });
}

#[test]
fn metrics_are_open_metrics() {
    let server = Server::demo();
    server.buy("sale_1", "u");
    server.buy("unknown", "u");
    let text = server.get("/metrics").text;
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    let mut families: BTreeMap<&str, &str> = BTreeMap::new();
    let mut samples = BTreeSet::new();
    for line in text.lines().take_while(|line| *line != "# EOF") {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(families.insert(name, kind).is_none(), "{name} comes twice");
        } else if !line.starts_with('#') {
            let (sample, value) = line.rsplit_once(' ').expect("a name and a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(sample), "{sample} comes twice");
            let name = sample.split('{').next().expect("a name");
            let of_family = |suffix: &str| name.strip_suffix(suffix).and_then(|name| families.get(name));
            let fits = match families.get(name) {
                Some(kind) => *kind == "gauge",
                None => {
                    of_family("_total") == Some(&"counter")
                        || ["_sum", "_count", "_bucket"]
                            .iter()
                            .any(|end| of_family(end) == Some(&"histogram"))
                }
            };
            assert!(fits, "{line} fits no type of {families:?}");
        }
    }
    assert!(families.len() >= 10, "{families:?}");
}

fn cors_headers(reply: &Reply) -> Vec<&str> {
    reply
        .headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| name.starts_with("access-control-"))
        .collect()
}

#[test]
fn no_other_origin_may_use_the_api_by_default() {
    let server = Server::demo();
    let origin = ("origin", "https://shop.example");
    assert_eq!(cors_headers(&server.request("GET", "/api/v1/sales", &[origin], b"")), [""; 0]);
    let preflight = [origin, ("access-control-request-method", "POST")];
    let refused = server.request("OPTIONS", "/api/v1/sale/purchase", &preflight, b"");
    refused.problem(405);
    assert_eq!(cors_headers(&refused), [""; 0]);
}

#[test]
fn named_origins_may_use_the_api() {
    let origins = "https://shop.example,https://tickets.example";
    let server = Server::start(&["--demo", "--cors-origins", origins]);
    for origin in ["https://shop.example", "https://tickets.example"] {
        let preflight = server.request(
            "OPTIONS",
            "/api/v1/sale/purchase",
            &[
                ("origin", origin),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "content-type"),
            ],
            b"",
        );
        assert_eq!((preflight.status, preflight.text.as_str()), (200, ""));
        assert_eq!(preflight.header("access-control-allow-origin"), origin);
        for (header, needed) in
            [("access-control-allow-methods", "POST"), ("access-control-allow-headers", "content-type")]
        {
            let allowed = preflight.header(header);
            assert!(allowed.split(',').any(|allowed| allowed.trim() == needed), "{header}: {allowed}");
        }
        let body = json!({ "saleId": "sale_1", "userId": origin }).to_string();
        let headers = [("origin", origin), ("content-type", "application/json")];
        let bought = server.request("POST", "/api/v1/sale/purchase", &headers, body.as_bytes());
        assert_eq!((bought.status, bought.header("access-control-allow-origin")), (200, origin));
        assert!(bought.header("access-control-expose-headers").contains("server-timing"));
        assert!(bought.header("vary").contains("origin"), "{bought:?}");
        // A page must be able to read what is wrong, too.
        for (path, status) in [("/nothing", 404), ("/api/v1/sale/sale%20/status", 400)] {
            let wrong = server.request("GET", path, &[("origin", origin)], b"");
            assert_eq!((wrong.status, wrong.header("access-control-allow-origin")), (status, origin));
        }
    }
    for stranger in ["https://shop.example.evil", "http://shop.example", "https://SHOP.example", "null"] {
        let reply = server.request("GET", "/api/v1/sales", &[("origin", stranger)], b"");
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, ""), "{stranger}");
    }
}

#[test]
fn every_origin_may_use_the_api_if_so_set() {
    let server = Server::start(&["--demo", "--cors-origins", "*"]);
    let reply = server.request("GET", "/api/v1/sales", &[("origin", "https://any.example")], b"");
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert_eq!(reply.header("access-control-allow-credentials"), "");
}

#[test]
fn the_status_of_what_is_no_sale_id_is_refused() {
    let server = Server::demo();
    for wrong in
        ["sale%201", "sale%2F1", "s%C3%A4le", "sale.1", "%F0%9F%9B%92", "%00", "%ff", &"x".repeat(65)]
    {
        server.get(&format!("/api/v1/sale/{wrong}/status")).problem(400);
    }
}

/// Read as most do, both were the same name, and the second user was told of the first one's order.
#[test]
fn a_form_that_is_no_text_in_utf_8_is_refused_and_buys_nothing() {
    let server = Server::demo();
    for user in ["caf%e8x", "caf%e9x"] {
        let refused = submit(&server, "sale_1", &format!("userId={user}"));
        assert_page(&refused, 400);
        assert_contains(&refused, &["The user ID must be text in UTF-8"]);
        assert_page(&server.request("GET", &format!("/sales/sale_1?userId={user}"), &[BROWSER], b""), 400);
    }
    assert_eq!(server.status("sale_1")["totalSold"], 0);
    assert_page(&submit(&server, "sale_1", "userId=caf%C3%A9x"), 200);
}

#[test]
fn what_is_of_one_visitor_or_of_the_moment_is_nobodys_to_keep() {
    let server = Server::demo();
    server.buy("sale_1", "user123");
    for path in [
        "/api/v1/sales",
        "/api/v1/sale/sale_1/status",
        "/api/v1/sale/sale_1/user/user123/purchase",
        "/api/v1/sale/unknown/status",
        "/health",
        "/health/ready",
        "/metrics",
    ] {
        assert_eq!(server.get(path).header("cache-control"), "no-store", "{path}");
    }
    let shown = server.admin("GET", "/api/v1/admin/sales/sale_1", &Value::Null);
    assert_eq!((shown.status, shown.header("cache-control")), (200, "no-store"));
}

/// A browser's Enter presses the first button that submits, and none at all where that one is disabled.
#[test]
fn enter_looks_up_where_nothing_can_be_bought() {
    let server = Server::demo();
    let buy = |sale: &str| {
        let page = server.request("GET", &format!("/sales/{sale}"), &[BROWSER], b"").text;
        let button = page.split("data-action=\"buy\"").nth(1).expect("the button");
        button.split('>').next().expect("its attributes").to_owned()
    };
    let open = buy("sale_1");
    assert!(open.contains("type=\"submit\"") && !open.contains("disabled"), "{open}");
    let upcoming = buy("sale_2");
    assert!(upcoming.contains("type=\"button\"") && upcoming.contains("disabled"), "{upcoming}");
}
