//! The console over HTTP: who comes in, what a form may do, and what is said of it.

use std::{
    fs,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use rusqlite::Connection;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    board,
    server::{Reply, Server, TOKEN, flashsale},
};

pub(crate) const PAST: &str = "2020-01-01T00:00:00.000Z";
pub(crate) const FUTURE: &str = "2099-01-01T00:00:00.000Z";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// What becomes markup, wherever it is not escaped.
const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;";

/// Somebody who is signed in.
pub(crate) struct Operator<'a> {
    server: &'a Server,
    pub(crate) cookie: String,
    csrf: String,
}

impl<'a> Operator<'a> {
    fn of(server: &'a Server) -> Self {
        Self::with(server, TOKEN)
    }

    pub(crate) fn with(server: &'a Server, token: &str) -> Self {
        let entered = sign_in(server, token, &[]);
        assert_eq!(entered.status, 303, "{entered:?}");
        Self::with_cookie(server, cookie_of(&entered, "flashsale_console").to_owned())
    }

    pub(crate) fn with_cookie(server: &'a Server, cookie: String) -> Self {
        let mut operator = Self { server, cookie, csrf: String::new() };
        let page = operator.get("/console");
        assert_eq!(page.status, 200, "{page:?}");
        operator.csrf = between(&page.text, "name=\"csrf\" value=\"", "\"").to_owned();
        operator
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.server.request("GET", path, &[("cookie", &self.cookie)], b"")
    }

    /// Sends a form as a page of the console does.
    pub(crate) fn post(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let mut all = vec![("csrf", self.csrf.as_str())];
        all.extend(fields);
        self.server.request("POST", path, &[FORM, ("cookie", &self.cookie)], encoded(&all).as_bytes())
    }

    /// Sends a form, and reads the page that its answer leads to.
    pub(crate) fn submit(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        let answer = self.post(path, fields);
        assert_eq!(answer.status, 303, "{answer:?}");
        let cookies = format!("{}; {}", self.cookie, cookie_of(&answer, "flashsale_flash"));
        let page = self.server.request("GET", answer.header("location"), &[("cookie", &cookies)], b"");
        assert_page(&page, 200);
        page
    }

    /// The fields of a form as the page fills them in.
    fn fields(&self, path: &str) -> Vec<(String, String)> {
        let page = self.get(path);
        assert_page(&page, 200);
        let form = page.text.split("<form method=\"post\"").last().expect("a form");
        let mut fields = Vec::new();
        for input in form.split("<input ").skip(1) {
            let tag = input.split('>').next().expect("its end");
            let name = between(tag, "name=\"", "\"").to_owned();
            let value = if tag.contains("value=\"") { between(tag, "value=\"", "\"") } else { "" };
            fields.push((name, read(value)));
        }
        if form.contains("<textarea") {
            let text = between(between(form, "<textarea", "</textarea>"), ">", "\u{0}");
            fields.push(("description".to_owned(), read(text.trim_start_matches('\n'))));
        }
        fields.retain(|(name, _)| name != "csrf");
        fields
    }

    /// Fills in some fields of a form and sends it with the rest as it is.
    fn fill(&self, form: &str, action: &str, changed: &[(&str, &str)]) -> Reply {
        let mut fields = self.fields(form);
        for (name, value) in changed {
            let field = fields.iter_mut().find(|(found, _)| found == name);
            field.unwrap_or_else(|| panic!("there is no field {name}")).1 = (*value).to_owned();
        }
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.post(action, &fields)
    }
}

/// The cookie of somebody who has signed in.
pub(crate) fn session(server: &Server, token: &str) -> String {
    cookie_of(&sign_in(server, token, &[]), "flashsale_console").to_owned()
}

pub(crate) fn sign_in(server: &Server, token: &str, headers: &[(&str, &str)]) -> Reply {
    let mut all = vec![FORM];
    all.extend(headers);
    server.request("POST", "/console/sign-in", &all, encoded(&[("token", token)]).as_bytes())
}

fn encoded(fields: &[(&str, &str)]) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let text = |text: &str| text.bytes().map(byte).collect::<String>();
    let pairs: Vec<_> =
        fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect();
    pairs.join("&")
}

/// Escaped text as a browser reads it.
fn read(escaped: &str) -> String {
    let mut text = escaped.to_owned();
    for letter in "<>\"'&".chars() {
        text = text.replace(&format!("&#{};", u32::from(letter)), &letter.to_string());
    }
    text
}

/// What stands between two texts; to the end, where the second is not there.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before} is not in {text}"));
    rest.split_once(after).map_or(rest, |(found, _)| found)
}

/// `name=value` of a cookie that is set.
fn cookie_of<'a>(reply: &'a Reply, name: &str) -> &'a str {
    let set = set_cookie(reply, name).unwrap_or_else(|| panic!("no cookie {name} in {reply:?}"));
    set.split(';').next().expect("its value")
}

fn set_cookie<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    let all = reply.headers.get_all("set-cookie").into_iter().filter_map(|cookie| cookie.to_str().ok());
    let mut named = all.filter(|cookie| cookie.split('=').next() == Some(name));
    named.next()
}

/// It is a page of the console, with the headers that all of them have.
fn assert_page(reply: &Reply, status: u16) {
    let content_type = reply.header("content-type");
    assert_eq!((reply.status, content_type), (status, "text/html; charset=utf-8"), "{reply:?}");
    let policy = reply.header("content-security-policy");
    for part in ["default-src 'none'", "script-src 'self'", "form-action 'self'", "frame-ancestors 'none'"] {
        assert!(policy.split("; ").any(|found| found == part), "{part} is not in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(
        (
            reply.header("cache-control"),
            reply.header("x-content-type-options"),
            reply.header("referrer-policy"),
            reply.header("content-encoding"),
        ),
        // A compressed page could be made to give its token away byte by byte.
        ("no-store", "nosniff", "same-origin", "")
    );
    assert!(!reply.text.contains(" style=") && !reply.text.contains(TOKEN), "{}", reply.text);
}

fn assert_says(reply: &Reply, words: &[&str]) {
    for word in words {
        assert!(reply.text.contains(word), "{word} is not in {}", reply.text);
    }
}

pub(crate) fn create(server: &Server, sale: &str, name: &str, stock: u32) {
    let sale =
        json!({ "saleId": sale, "name": name, "totalStock": stock, "startsAt": PAST, "endsAt": FUTURE });
    assert_eq!(server.admin("POST", "/api/v1/admin/sales", &sale).status, 201);
}

/// The routes of the console as `http/console/mod.rs` lists them: path, then methods.
fn routes() -> Vec<(String, Vec<&'static str>)> {
    let source = include_str!("../../src/http/console/mod.rs");
    let route = |line: &str| {
        let (path, handlers) = line.split_once('"').expect("the end of a path");
        let handlers = handlers.lines().next().expect("the handlers on the line of the path");
        let methods = [("get(", "GET"), ("post(", "POST")];
        let methods = methods.into_iter().filter(|(word, _)| handlers.contains(word)).map(|(_, name)| name);
        (path.replace("{sale_id}", "sale_1").replace("{*elsewhere}", "elsewhere"), methods.collect())
    };
    source.split(".route(\"").skip(1).map(route).collect()
}

// ── The door ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn everything_behind_the_door_asks_to_sign_in() {
    let server = Server::demo();
    let before = server.state();
    let routes = routes();
    assert!(routes.len() > 15, "{routes:?}");
    for (path, methods) in routes.iter().filter(|(path, _)| path != "/console/sign-in") {
        for method in methods {
            let asked = server.request(method, path, &[FORM], b"confirm=sale_1&epoch=1&units=5&total=100");
            assert_eq!(asked.status, 303, "{method} {path}: {asked:?}");
            let to = asked.header("location");
            if *method == "GET" && path != "/console" {
                assert_eq!(to, format!("/console/sign-in?next={}", path.replace('/', "%2F")), "{path}");
            } else {
                assert_eq!(to, "/console/sign-in", "{method} {path}");
            }
            assert_eq!(asked.header("cache-control"), "no-store");
            assert_eq!(asked.text, "");
        }
        if methods.contains(&"POST") {
            let foreign = [FORM, ("sec-fetch-site", "cross-site")];
            assert_page(&server.request("POST", path, &foreign, b""), 403);
        }
    }
    assert_eq!(server.state(), before);
}

#[test]
fn the_admin_token_opens_the_door() {
    let server = Server::demo();
    let form = server.get("/console/sign-in");
    assert_page(&form, 200);
    assert_says(&form, &["admin-token", "FLASHSALE_ADMIN_TOKEN", "type=\"password\""]);

    let entered = sign_in(&server, TOKEN, &[]);
    assert_eq!((entered.status, entered.header("location")), (303, "/console"));
    let cookie = set_cookie(&entered, "flashsale_console").expect("a session");
    let (value, flags) = cookie.split_once("; ").expect("flags");
    assert_eq!(flags, "Path=/console; Max-Age=43200; HttpOnly; SameSite=Strict");
    assert!(!value.contains(TOKEN));
    let page = server.request("GET", "/console", &[("cookie", value)], b"");
    assert_page(&page, 200);
    assert_says(&page, &["Limited Edition Product - Flash Sale", "Sign out"]);
    // Who is in is not asked again.
    let again = server.request("GET", "/console/sign-in", &[("cookie", value)], b"");
    assert_eq!((again.status, again.header("location")), (303, "/console"));

    // Behind a proxy that speaks TLS, the browser must not send it in the clear.
    let entered = sign_in(&server, TOKEN, &[("x-forwarded-proto", "https")]);
    let cookie = set_cookie(&entered, "flashsale_console").expect("a session");
    assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
}

#[test]
fn nothing_else_opens_it() {
    let server = Server::demo();
    for wrong in ["", "demo-admin-tokem", "demo-admin-token-and-more"] {
        let refused = sign_in(&server, wrong, &[]);
        assert_page(&refused, 403);
        assert_says(&refused, &["This is not the admin token.", "aria-invalid=\"true\""]);
        assert_eq!(set_cookie(&refused, "flashsale_console"), None);
    }
    let json = [("content-type", "application/json")];
    let body = json!({ "token": TOKEN }).to_string();
    assert_page(&server.request("POST", "/console/sign-in", &json, body.as_bytes()), 415);
    // The token of the API is none here: a browser would not send it by itself, and a cookie it would.
    let bearer = [("authorization", format!("Bearer {TOKEN}"))];
    let headers: Vec<_> = bearer.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(server.request("GET", "/console", &headers, b"").status, 303);
}

#[test]
fn a_sign_in_from_another_site_is_refused() {
    let server = Server::demo();
    for header in [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")] {
        let refused = sign_in(&server, TOKEN, &[header]);
        assert_page(&refused, 403);
        assert_eq!(set_cookie(&refused, "flashsale_console"), None, "{header:?}");
    }
    for header in [("origin", server.url.as_str()), ("sec-fetch-site", "same-origin")] {
        assert_eq!(sign_in(&server, TOKEN, &[header]).status, 303, "{header:?}");
    }
}

#[test]
fn one_is_led_to_where_one_was_going_and_never_to_another_site() {
    let server = Server::demo();
    let asked = server.get("/console/system?before=7");
    let form = server.get(asked.header("location"));
    assert_says(&form, &["name=\"next\" value=\"/console/system?before=7\""]);
    for (next, to) in [
        ("/console/system?before=7", "/console/system?before=7"),
        ("//evil.example/console", "/console"),
        ("https://evil.example/console", "/console"),
        ("/console\r\nx: y", "/console"),
    ] {
        let fields = encoded(&[("token", TOKEN), ("next", next)]);
        let entered = server.request("POST", "/console/sign-in", &[FORM], fields.as_bytes());
        assert_eq!((entered.status, entered.header("location")), (303, to));
        let form = server.get(&format!("/console/sign-in?{}", encoded(&[("next", next)])));
        assert_says(&form, &[&format!("name=\"next\" value=\"{to}\"")]);
    }
}

// ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────────

/// A session's cookie as any replica makes it from the token, apart from the program.
fn sealed(token: &str, ends_s: i64) -> String {
    let mac = |key: &[u8], parts: &[&[u8]]| -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    };
    let mut payload = vec![7; 16];
    payload.extend(ends_s.to_be_bytes());
    let key = mac(token.as_bytes(), &[b"flashsale console session key 1"]);
    let tag = mac(&key, &[b"session\0", &payload]);
    let hex: String = payload.iter().chain(&tag).map(|byte| format!("{byte:02x}")).collect();
    format!("flashsale_console={hex}")
}

fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("in range")
}

#[test]
fn what_is_no_session_is_none() {
    let server = Server::demo();
    let status = |cookie: &str| server.request("GET", "/console", &[("cookie", cookie)], b"").status;
    let good = sealed(TOKEN, now_s() + 600);
    assert_eq!(status(&good), 200);
    assert_eq!(status(&format!("other=1; {good}; flashsale_console=old")), 200);
    for bad in [
        "flashsale_console=",
        "flashsale_console=admin",
        "flashsale_console=%00",
        &format!("{}0", &good[..good.len() - 1]).replace("00", "01"),
        &good.to_uppercase(),
        // Has ended.
        &sealed(TOKEN, now_s() - 1),
        &sealed(TOKEN, i64::MIN),
        // Of another installation.
        &sealed("another-token-altogether", now_s() + 600),
        // Signed, and lengthened afterwards.
        &good.replace(&format!("{:016x}", now_s() + 600), &format!("{:016x}", now_s() + 9_000)),
    ] {
        if *bad != good {
            assert_eq!(status(bad), 303, "{bad}");
        }
    }
}

#[test]
fn every_replica_takes_a_session_and_a_new_token_ends_it() {
    let token = "the-token-of-all-replicas";
    let (one, two) = (Server::start(&["--admin-token", token]), Server::start(&["--admin-token", token]));
    let operator = Operator::with(&one, token);
    let there = Operator { server: &two, cookie: operator.cookie.clone(), csrf: operator.csrf.clone() };
    let made = there.fill(
        "/console/new-sale",
        "/console/sales",
        &[("name", "Made there"), ("saleId", "there"), ("totalStock", "3")],
    );
    assert_eq!((made.status, made.header("location")), (303, "/console/sales/there"));
    // A restart ends nobody's work; a new token ends all sessions.
    let (_, dir) = two.terminate();
    let again = Server::on(dir, &["--admin-token", token]);
    let there =
        |server: &Server| server.request("GET", "/console", &[("cookie", &operator.cookie)], b"").status;
    assert_eq!(there(&again), 200);
    let (_, dir) = again.terminate();
    assert_eq!(there(&Server::on(dir, &["--admin-token", "another-token-from-now-on"])), 303);
}

#[test]
fn a_change_needs_the_token_of_its_own_session() {
    let server = Server::demo();
    let (operator, other) = (Operator::of(&server), Operator::of(&server));
    assert_ne!(operator.csrf, other.csrf);
    let before = server.state();
    let send = |path: &str, headers: &[(&str, &str)], fields: &str| {
        let mut all = vec![FORM, ("cookie", operator.cookie.as_str())];
        all.extend(headers);
        server.request("POST", path, &all, fields.as_bytes())
    };
    let good = format!("csrf={}&confirm=sale_1&epoch=1&units=5&total=100", operator.csrf);
    let posts: Vec<_> = routes().into_iter().filter(|(_, methods)| methods.contains(&"POST")).collect();
    for (path, _) in posts.iter().filter(|(path, _)| path != "/console/sign-in") {
        for fields in [
            "",
            "csrf=&confirm=sale_1&epoch=1",
            &good.replace(&operator.csrf, &other.csrf),
            &good.replace(&operator.csrf, &operator.csrf[2..]),
        ] {
            assert_page(&send(path, &[], fields), 403);
        }
        assert_page(&send(path, &[("x-csrf-token", &other.csrf)], ""), 403);
        for foreign in
            [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "same-site")]
        {
            assert_page(&send(path, &[foreign], &good), 403);
        }
    }
    assert_eq!(server.state(), before);
    // It is the same request otherwise.
    for ours in [("origin", server.url.as_str()), ("sec-fetch-site", "same-origin")] {
        assert_eq!(send("/console/sales/sale_1/pause", &[ours], &good).status, 303);
    }
    assert_eq!(server.status("sale_1")["paused"], true);
    assert_eq!(send("/console/sales/sale_1/resume", &[("x-csrf-token", &operator.csrf)], "").status, 303);
    assert_eq!(server.status("sale_1")["paused"], false);
}

#[test]
fn signing_out_forgets_the_session() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    let left = operator.post("/console/sign-out", &[]);
    assert_eq!((left.status, left.header("location")), (303, "/console/sign-in"));
    let cookie = set_cookie(&left, "flashsale_console").expect("it is taken back");
    assert!(cookie.starts_with("flashsale_console=; Path=/console; Max-Age=0;"), "{cookie}");
}

// ── On record ────────────────────────────────────────────────────────────────────────────────────────────

fn ledger(server: &Server) -> Connection {
    Connection::open(server.data_dir().join("flashsale.db")).expect("the ledger opens")
}

fn recorded(server: &Server) -> Vec<String> {
    let ledger = ledger(server);
    let mut rows =
        ledger.prepare("SELECT event, address, at FROM operator_log ORDER BY id").expect("the log");
    let rows = rows.query_map([], |row| {
        let at: String = row.get(2)?;
        assert!(at.len() == PAST.len() && at.ends_with('Z'), "{at}");
        Ok(format!("{} {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    });
    rows.expect("rows").map(|row| row.expect("a row")).collect()
}

#[test]
fn who_came_to_the_door_is_on_record_and_shown() {
    let server = Server::demo();
    sign_in(&server, "wrong", &[]);
    let operator = Operator::of(&server);
    operator.post("/console/sign-out", &[]);
    let events = ["SIGN_IN_REFUSED 127.0.0.1", "SIGNED_IN 127.0.0.1", "SIGNED_OUT 127.0.0.1"];
    assert_eq!(recorded(&server), events);
    let page = operator.get("/console/system");
    let place = |event: &str| page.text.find(&format!("data-event=\"{event}\"")).expect(event);
    assert!(place("SIGNED_OUT") < place("SIGNED_IN") && place("SIGNED_IN") < place("SIGN_IN_REFUSED"));
    let log = server.log();
    for (event, _) in events.map(|event| event.split_once(' ').expect("two words")) {
        assert!(log.contains(&format!("console: {event}")), "{log}");
    }
    assert!(!log.contains("wrong"), "{log}");
    // It outlives a crash.
    let server = Server::on(server.kill(), &["--demo"]);
    assert_eq!(recorded(&server), events);
}

#[test]
fn the_operator_log_comes_in_pages() {
    let server = Server::demo();
    let mut rows = ledger(&server);
    let transaction = rows.transaction().expect("a transaction");
    for row in 0..60 {
        let insert = "INSERT INTO operator_log (at, event, address) VALUES (?1, 'SIGNED_IN', ?2)";
        transaction.execute(insert, (PAST, format!("203.0.113.{row}"))).expect("a row");
    }
    transaction.commit().expect("they are written");
    let operator = Operator::of(&server);
    let mut path = "/console/system".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = operator.get(&path);
        assert_page(&page, 200);
        seen.extend(
            page.text
                .split("203.0.113.")
                .skip(1)
                .map(|rest| rest.split('<').next().expect("an end").parse::<u32>().expect("a number")),
        );
        match page.text.split_once("/console/system?before=") {
            Some((_, rest)) => {
                path = format!("/console/system?before={}", rest.split('#').next().expect("an end"));
            }
            None => break,
        }
    }
    assert_eq!(seen, (0..60).rev().collect::<Vec<_>>());
    assert_page(&operator.get("/console/system?before=soon"), 200);
}

#[test]
fn what_cannot_be_put_on_record_does_not_happen() {
    let server = Server::demo();
    ledger(&server).execute_batch("DROP TABLE operator_log").expect("it is gone");
    for token in [TOKEN, "wrong"] {
        let refused = sign_in(&server, token, &[]);
        assert_page(&refused, 503);
        assert_eq!(set_cookie(&refused, "flashsale_console"), None);
        assert_eq!(refused.header("retry-after"), "5");
        assert_says(&refused, &["operator log"]);
    }
    // Selling is not touched by it.
    assert_eq!(server.buy("sale_1", "u").status, 200);
    // A session from before goes on, and its system page says what is wrong.
    let operator = Operator::with_cookie(&server, sealed(TOKEN, now_s() + 600));
    assert_says(&operator.get("/console/system"), &["the ledger cannot be read"]);
    assert_eq!(operator.post("/console/sign-out", &[]).status, 303);
}

#[test]
fn too_many_tries_are_locked_out_once_on_record() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    let mut tries = 0;
    let locked = loop {
        // Each claims to be somebody else, and is not believed.
        let claimed = format!("203.0.113.{tries}");
        let reply = sign_in(&server, "guess", &[("x-forwarded-for", claimed.as_str())]);
        tries += 1;
        if reply.status == 429 {
            break reply;
        }
        assert_eq!(reply.status, 403);
        assert!(tries < 20, "it is never too often");
    };
    assert_page(&locked, 429);
    let wait: u64 = locked.header("retry-after").parse().expect("seconds");
    assert!((1..=12).contains(&wait), "{wait}");
    for _ in 0..20 {
        // The right token is not looked at, either: it could be the next guess.
        let reply = sign_in(&server, TOKEN, &[]);
        if reply.status == 303 {
            continue; // A slow machine gives the allowance time to come back.
        }
        assert_eq!(reply.status, 429);
    }
    let log = recorded(&server);
    assert_eq!(log.iter().filter(|line| line.starts_with("LOCKED_OUT")).count(), 1, "{log:?}");
    assert!(log.iter().all(|line| line.ends_with(" 127.0.0.1")), "{log:?}");
    assert_page(&operator.get("/console"), 200);
    assert_eq!(server.admin("GET", "/api/v1/admin/sales/sale_1", &Value::Null).status, 200);
}

// ── Sales ────────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_sale_is_made_changed_and_made_again() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    let fields = [
        ("name", "Night Runner & Co"),
        ("saleId", "runner"),
        ("totalStock", "1,000"),
        ("startsAt", "2026-11-27T10:00"),
        ("endsAt", "2026-11-27T11:00:30"),
        ("price", "129"),
        ("currency", "eur"),
        ("imageUrl", "https://cdn.example/a.webp"),
        ("description", "Two lines,\r\nand more."),
    ];
    let made = operator.fill("/console/new-sale", "/console/sales", &fields);
    assert_eq!((made.status, made.header("location")), (303, "/console/sales/runner"));
    let sale = server.status("runner");
    assert_eq!(sale["name"], "Night Runner & Co");
    assert_eq!(sale["totalStock"], 1_000);
    assert_eq!(
        (&sale["startsAt"], &sale["endsAt"]),
        (&json!("2026-11-27T10:00:00.000Z"), &json!("2026-11-27T11:00:30.000Z"))
    );
    assert_eq!((sale["price"].to_string(), &sale["currency"]), ("129.0".to_owned(), &json!("EUR")));
    assert_eq!(sale["imageUrl"], "https://cdn.example/a.webp");
    assert_eq!(sale["description"], "Two lines,\nand more.");

    // A form that is sent back as it is changes nothing.
    let trail = server.state();
    let kept = operator.fill("/console/sales/runner/edit", "/console/sales/runner/edit", &[]);
    assert_eq!(kept.status, 303);
    assert_eq!(server.state(), trail);

    let changed = operator.fill(
        "/console/sales/runner/edit",
        "/console/sales/runner/edit",
        &[("name", "Day Runner"), ("price", ""), ("currency", ""), ("description", "")],
    );
    assert_eq!((changed.status, changed.header("location")), (303, "/console/sales/runner"));
    let sale = server.status("runner");
    assert_eq!((&sale["name"], &sale["totalStock"]), (&json!("Day Runner"), &json!(1_000)));
    assert_eq!((&sale["price"], &sale["description"]), (&Value::Null, &Value::Null));
    assert_eq!(sale["imageUrl"], "https://cdn.example/a.webp");

    let copy = operator.fill("/console/sales/runner/clone", "/console/sales", &[("saleId", "again")]);
    assert_eq!((copy.status, copy.header("location")), (303, "/console/sales/again"));
    let copy = server.status("again");
    for field in ["name", "totalStock", "imageUrl"] {
        assert_eq!(copy[field], sale[field], "{field}");
    }
}

#[test]
fn a_sale_that_has_begun_is_cloned_from_now_on() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    let copy = operator.fill("/console/sales/sale_3/clone", "/console/sales", &[("saleId", "again")]);
    assert_eq!(copy.status, 303);
    let (copy, was) = (server.status("again"), server.status("sale_3"));
    assert_eq!((&copy["status"], &copy["totalStock"]), (&json!("UPCOMING"), &was["totalStock"]));
    let time = |text: &Value| text.as_str().expect("a time").parse::<jiff::Timestamp>().expect("RFC 3339");
    let long = |sale: &Value| time(&sale["endsAt"]).as_second() - time(&sale["startsAt"]).as_second();
    assert_eq!(long(&copy), long(&was));
}

#[test]
fn what_a_form_got_wrong_is_told_at_its_fields_and_stays() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    let before = server.state();
    let wrong = |fields: &[(&str, &str)], status, field: &str, told: &str| {
        let page = operator.fill("/console/new-sale", "/console/sales", fields);
        assert_page(&page, status);
        assert_says(
            &page,
            &["<title>Error:", &format!("id=\"{field}-error\">{told}"), "data-form=\"wrong\""],
        );
        assert_says(&page, &[&format!("aria-describedby=\"{field}-error {field}-hint\"")]);
        for (name, value) in fields.iter().filter(|(name, value)| *name != "description" && !value.is_empty())
        {
            let kept = format!("name=\"{name}\"");
            let tag = page.text.split("<input ").find(|tag| tag.contains(&kept)).expect(name);
            assert!(tag.contains(&format!("value=\"{value}\"")), "{name} is lost: {tag}");
        }
    };
    let good = [("name", "Good"), ("totalStock", "5")];
    let but = |field: (&'static str, &'static str)| {
        let mut fields: Vec<_> = good.iter().filter(|(name, _)| *name != field.0).copied().collect();
        fields.push(field);
        fields
    };
    wrong(&but(("name", "")), 400, "name", "Must not be empty.");
    wrong(&but(("totalStock", "many")), 400, "totalStock", "Must be a whole number");
    wrong(&but(("totalStock", "0")), 400, "totalStock", "Must be a whole number");
    wrong(&but(("totalStock", "10000001")), 400, "totalStock", "Must be a whole number");
    wrong(&but(("saleId", "a b")), 400, "saleId", "Must be 1 to 64 characters");
    wrong(&but(("saleId", "sale_1")), 409, "saleId", "There is already a sale sale_1.");
    wrong(&but(("startsAt", "soon")), 400, "startsAt", "Must be a date and a time");
    wrong(&but(("endsAt", "2020-01-01T00:00:00")), 400, "endsAt", "Must be later than its start.");
    wrong(&but(("price", "5")), 400, "currency", "Is needed with a price");
    wrong(&but(("currency", "EUR")), 400, "price", "Is needed with a currency");
    wrong(&but(("imageUrl", "javascript:alert(1)")), 400, "imageUrl", "Must begin with https://");
    let all = [("name", "x"), ("totalStock", "-1"), ("startsAt", ""), ("price", "5")];
    let page = operator.fill("/console/new-sale", "/console/sales", &all);
    for field in ["totalStock", "startsAt", "currency"] {
        assert_says(&page, &[&format!("<a href=\"#{field}\">"), &format!("id=\"{field}-error\"")]);
    }
    let text = "é".repeat(2_001);
    let page =
        operator.fill("/console/new-sale", "/console/sales", &[good[0], good[1], ("description", &text)]);
    assert_page(&page, 400);
    assert_says(&page, &["id=\"description-error\">Must be at most 2000 characters long.", &text]);
    assert_eq!(server.state(), before);

    server.buy("sale_1", "first");
    let page =
        operator.fill("/console/sales/sale_1/edit", "/console/sales/sale_1/edit", &[("totalStock", "0")]);
    assert_page(&page, 400);
    assert_eq!(server.status("sale_1")["totalStock"], 100);
}

#[test]
fn an_edit_does_not_take_back_what_another_did_meanwhile() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    let fields = operator.fields("/console/sales/sale_1/edit");
    let restock = json!({ "totalStock": 150 });
    assert_eq!(server.admin("PATCH", "/api/v1/admin/sales/sale_1", &restock).status, 200);
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| (name.as_str(), if name == "name" { "Renamed" } else { value.as_str() }))
        .collect();
    let page = operator.submit("/console/sales/sale_1/edit", &fields);
    assert_says(&page, &["Sale sale_1 is changed.", "data-flash=\"done\""]);
    let sale = server.status("sale_1");
    assert_eq!((&sale["name"], &sale["totalStock"]), (&json!("Renamed"), &json!(150)));
}

#[test]
fn a_sale_is_paused_resumed_restocked_and_ended() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    let at = |what: &str| format!("/console/sales/sale_1/{what}");
    assert_says(&operator.submit(&at("pause"), &[]), &["Sale sale_1 is paused", "data-mark=\"paused\""]);
    assert_eq!(server.buy("sale_1", "u").status, 400);
    let page = operator.submit(&at("resume"), &[("back", "list")]);
    assert_says(&page, &["Sale sale_1 is resumed.", "<h1>Sales</h1>"]);
    assert_eq!(server.buy("sale_1", "u").status, 200);

    let page = operator.submit(&at("restock"), &[("units", "25"), ("total", "100")]);
    assert_says(&page, &["25 units added to sale sale_1: it has 125 in all."]);
    // The same form, sent twice.
    let page = operator.submit(&at("restock"), &[("units", "25"), ("total", "100")]);
    assert_says(&page, &["data-flash=\"failed\"", "Nothing was changed: the stock has become 125 meanwhile"]);
    for (units, said) in [
        ("", "how many"),
        ("0", "how many"),
        ("-5", "how many"),
        ("1,5", "how many"),
        ("9999999", "must be a whole number"),
    ] {
        let page = operator.submit(&at("restock"), &[("units", units), ("total", "125")]);
        assert_says(&page, &["data-flash=\"failed\"", said]);
    }
    assert_eq!(server.status("sale_1")["totalStock"], 125);
    let page = operator.submit(&at("restock"), &[("units", "1"), ("total", "125")]);
    assert_says(&page, &["1 unit added to sale sale_1: it has 126 in all."]);

    assert_says(&operator.submit(&at("end"), &[]), &["Sale sale_1 has ended.", "data-mark=\"ended\""]);
    assert_eq!(server.status("sale_1")["status"], "ENDED");
    assert_eq!(server.status("sale_1")["totalSold"], 1);
    let page = operator.submit("/console/sales/sale_2/end", &[]);
    assert_says(&page, &["data-flash=\"failed\"", "The sale has not begun"]);
    assert_eq!(server.status("sale_2")["status"], "UPCOMING");
}

#[test]
fn only_a_sale_without_orders_is_deleted() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    server.buy("sale_1", "u");
    let page = operator.submit("/console/sales/sale_1/delete", &[]);
    assert_says(&page, &["data-flash=\"failed\""]);
    assert_eq!(server.status("sale_1")["totalSold"], 1);
    let page = operator.submit("/console/sales/sale_2/delete", &[]);
    assert_says(&page, &["Sale sale_2 is deleted.", "<h1>Sales</h1>"]);
    server.get("/api/v1/sale/sale_2/status").problem(404);
    for what in ["pause", "resume", "end", "delete"] {
        let page = operator.submit(&format!("/console/sales/sale_2/{what}"), &[]);
        assert_says(&page, &["There is no sale sale_2.", "<h1>Sales</h1>"]);
    }
    for page in ["", "/edit", "/clone", "/reset", "/integrity"] {
        assert_page(&operator.get(&format!("/console/sales/sale_2{page}")), 404);
        assert_page(&operator.get(&format!("/console/sales/%3Cb%3E{page}")), 400);
    }
}

#[test]
fn a_reset_names_what_is_lost_and_wants_the_sales_id_typed() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    for user in ["a", "b", "c"] {
        server.buy("sale_1", user);
    }
    server.until("they are confirmed", |server| server.status("sale_1")["confirmed"] == 3);
    let page = operator.get("/console/sales/sale_1/reset");
    assert_page(&page, 200);
    assert_says(
        &page,
        &["(0 reserved, 3 confirmed)", "<b class=\"num\">1</b> becomes <b class=\"num\">2</b>"],
    );
    assert_eq!(between(&page.text, "data-lost=\"purchasers\"><b class=\"num\">", "<"), "3");

    let reset = |confirm: &str, epoch: &str| {
        operator.post("/console/sales/sale_1/reset", &[("confirm", confirm), ("epoch", epoch)])
    };
    for wrong in ["", "sale_2", "SALE_1", "yes", HOSTILE] {
        let page = reset(wrong, "1");
        assert_page(&page, 400);
        assert_says(
            &page,
            &["Nothing was reset. Type sale_1", "id=\"confirm-error\"", "aria-invalid=\"true\""],
        );
        assert!(!page.text.contains("<script>alert"), "{}", page.text);
    }
    // What was shown is not what would be lost any more.
    let page = reset("sale_1", "0");
    assert_page(&page, 400);
    assert_says(&page, &["Nothing was reset: the sale has come to epoch 1"]);
    assert_eq!(server.status("sale_1")["totalSold"], 3);

    let page = operator.submit("/console/sales/sale_1/reset", &[("confirm", " sale_1 "), ("epoch", "1")]);
    assert_says(&page, &["Sale sale_1 is reset: epoch 2 begins with all its units."]);
    let sale = server.status("sale_1");
    assert_eq!((&sale["totalSold"], &sale["epoch"]), (&json!(0), &json!(2)));
    // The button, pressed twice.
    assert_page(&reset("sale_1", "1"), 400);
    assert_eq!(server.status("sale_1")["epoch"], 2);
}

#[test]
fn a_message_is_shown_once_and_only_the_servers_own() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    let answer = operator.post("/console/sales/sale_1/pause", &[]);
    let flash = set_cookie(&answer, "flashsale_flash").expect("a message");
    assert!(flash.ends_with("; Path=/console; Max-Age=60; HttpOnly; SameSite=Strict"), "{flash}");
    let (name, value) = flash.split(';').next().expect("a value").split_once('=').expect("a pair");
    let shown = |value: &str| {
        let cookies = format!("{}; {name}={value}", operator.cookie);
        server.request("GET", "/console/sales/sale_1", &[("cookie", &cookies)], b"")
    };
    let page = shown(value);
    assert_says(&page, &["data-flash=\"done\"", "role=\"status\"", "autofocus"]);
    let taken = set_cookie(&page, "flashsale_flash").expect("it is used up");
    assert!(taken.contains("Max-Age=0"), "{taken}");
    let (tag, words) = value.split_once('.').expect("a signature");
    for forged in
        ["done=You+have+won", &format!("{tag}.done=You+have+won"), &format!("{}.{words}", "0".repeat(64))]
    {
        assert!(!shown(forged).text.contains("data-flash"), "{forged}");
    }
}

#[test]
fn names_are_never_markup() {
    let server = Server::demo();
    create(&server, "hostile", HOSTILE, 10);
    let patch = json!({ "description": HOSTILE });
    assert_eq!(server.admin("PATCH", "/api/v1/admin/sales/hostile", &patch).status, 200);
    let operator = Operator::of(&server);
    for path in [
        "/console",
        "/console/sales/hostile",
        "/console/sales/hostile/edit",
        "/console/sales/hostile/clone",
        "/console/sales/hostile/reset",
        "/console/sales/hostile/integrity",
    ] {
        let page = operator.get(path);
        assert_page(&page, 200);
        assert_says(&page, &["alert(1)"]);
        for markup in ["<script>alert", "<img src=x", "\"'>", "&amp;<"] {
            assert!(!page.text.contains(markup), "{markup} is in {path}");
        }
    }
    let typed = operator.fill(
        "/console/new-sale",
        "/console/sales",
        &[
            ("name", HOSTILE),
            ("saleId", HOSTILE),
            ("totalStock", HOSTILE),
            ("startsAt", HOSTILE),
            ("imageUrl", HOSTILE),
            ("description", &format!("</textarea>{HOSTILE}")),
        ],
    );
    assert_page(&typed, 400);
    for markup in ["<script>alert", "<img src=x", "\"'>"] {
        assert!(!typed.text.contains(markup), "{markup} is in {}", typed.text);
    }
    // And it is the very text nevertheless: a form that is sent back as it is changes nothing.
    let before = server.state();
    let kept = operator.fill("/console/sales/hostile/edit", "/console/sales/hostile/edit", &[]);
    assert_eq!(kept.status, 303);
    assert_eq!(server.state(), before);
}

// ── Orders and audit trail ───────────────────────────────────────────────────────────────────────────────

/// The values of an attribute, in the order of the page.
fn all<'a>(page: &'a Reply, attribute: &str) -> Vec<&'a str> {
    page.text.split(&format!(" {attribute}=\"")).skip(1).map(|rest| between(rest, "", "\"")).collect()
}

/// All rows of a list, page by page to its end.
fn walk(operator: &Operator<'_>, path: &str, attribute: &str) -> (Vec<String>, usize) {
    let (mut at, mut rows, mut pages) = (path.to_owned(), Vec::new(), 0);
    loop {
        let page = operator.get(&at);
        assert_page(&page, 200);
        rows.extend(all(&page, attribute).into_iter().map(str::to_owned));
        pages += 1;
        assert!(pages < 100, "it never ends");
        if page.text.contains("data-search=\"end\"") {
            return (rows, pages);
        }
        let (base, _) = path.split_once('?').unwrap_or((path, ""));
        let links = page.text.split("href=\"").skip(1).map(|rest| between(rest, "", "\""));
        let on = links.filter(|link| link.starts_with(&format!("{base}?")) && link.contains("before="));
        at = on.last().map(read).expect("a way on");
    }
}

/// Units of the busy shop, all of them sold.
const SOLD: u32 = 120;

fn busy_shop() -> Server {
    let server = Server::demo();
    create(&server, "busy", "Busy", SOLD);
    for user in 0..SOLD {
        server.buy("busy", &format!("user {user}"));
    }
    server.buy("busy", "user 7");
    server.buy("busy", "late");
    server.until("all is confirmed", |server| server.status("busy")["confirmed"] == SOLD);
    server
}

#[test]
fn orders_are_listed_newest_first_and_found() {
    let server = busy_shop();
    let operator = Operator::of(&server);
    let (orders, pages) = walk(&operator, "/console/sales/busy/orders", "data-order");
    assert_eq!(orders.len(), 120);
    assert!(pages > 1);
    let order_of = |user: &str| -> String {
        let held = server.get(&format!("/api/v1/sale/busy/user/{}", user.replace(' ', "%20"))).json();
        held["orderId"].as_str().expect("an order").to_owned()
    };
    assert_eq!((&orders[0], &orders[119]), (&order_of("user 119"), &order_of("user 0")));
    for (query, found) in [
        ("?user=user+7", vec![order_of("user 7")]),
        (&format!("?order={}", order_of("user 8")), vec![order_of("user 8")]),
        (&format!("?user=user+7&order={}", order_of("user 8")), vec![]),
        ("?user=nobody", vec![]),
        ("?kind=RESERVED", vec![]),
        ("?user=user+9&kind=CONFIRMED", vec![order_of("user 9")]),
    ] {
        let found: Vec<String> = found;
        assert_eq!(
            walk(&operator, &format!("/console/sales/busy/orders{query}"), "data-order").0,
            found,
            "{query}"
        );
    }
    assert_eq!(walk(&operator, "/console/sales/busy/orders?kind=CONFIRMED", "data-order").0, orders);
    let page = operator.get("/console/sales/busy/orders?user=user+7&kind=CONFIRMED");
    assert_says(
        &page,
        &["value=\"user 7\"", "<option value=\"CONFIRMED\" selected>", "that is where it ends"],
    );
    for (query, field, told) in [
        ("?order=7", "order", "Must be a UUID."),
        ("?user=a%00b", "user", "Must not contain control characters."),
        (&format!("?user={}", "x".repeat(256)), "user", "Must be at most 255 bytes long."),
    ] {
        let page = operator.get(&format!("/console/sales/busy/orders{query}"));
        assert_page(&page, 400);
        assert_says(&page, &["<title>Error:", &format!("id=\"{field}-error\">{told}")]);
    }
    assert_page(&operator.get("/console/sales/nothing/orders"), 404);
    assert_page(&operator.get("/console/sales/busy/orders?user=a&user=b"), 400);
}

#[test]
fn the_audit_trail_is_listed_newest_first_and_found() {
    let server = busy_shop();
    let operator = Operator::of(&server);
    let events = |query: &str| walk(&operator, &format!("/console/sales/busy/audit{query}"), "data-event").0;
    let whole = events("");
    assert_eq!(whole.iter().filter(|event| *event == "ATTEMPTED").count(), 122);
    assert_eq!(whole.iter().filter(|event| *event == "CONFIRMED").count(), 120);
    let exported = server.admin("GET", "/api/v1/admin/sales/busy/audit", &Value::Null).text;
    assert_eq!(whole.len(), exported.lines().count());
    assert_eq!(events("?kind=REJECTED_SOLD_OUT"), ["REJECTED_SOLD_OUT"]);
    let of_seven = events("?user=user+7");
    for event in ["ATTEMPTED", "RESERVED", "CONFIRMED", "REJECTED_DUPLICATE"] {
        assert!(of_seven.iter().any(|found| found == event), "{event} is not in {of_seven:?}");
    }
    assert_eq!(of_seven.len(), 5);
    assert_eq!(events("?user=user+7&kind=REJECTED_DUPLICATE"), ["REJECTED_DUPLICATE"]);
    assert_eq!(events("?user=nobody"), [""; 0]);
    let page = operator.get("/console/sales/busy/audit?user=a%00b");
    assert_page(&page, 400);
    assert_says(&page, &["id=\"user-error\">Must not contain control characters."]);

    // The trail of a sale that is gone can still be read.
    operator.submit("/console/sales/sale_2/pause", &[]);
    operator.submit("/console/sales/sale_2/delete", &[]);
    let page = operator.get("/console/sales/sale_2/audit");
    assert_page(&page, 200);
    assert_says(&page, &["data-event=\"ADMIN_DELETED\""]);
    assert_page(&operator.get("/console/sales/nothing/audit"), 404);
}

#[test]
fn the_session_exports_what_the_token_exports() {
    let server = busy_shop();
    let operator = Operator::of(&server);
    for what in ["orders", "audit"] {
        for (extension, accept) in [("csv", "text/csv"), ("ndjson", "application/x-ndjson")] {
            let token = format!("Bearer {TOKEN}");
            let headers = [("authorization", token.as_str()), ("accept", accept)];
            let api = server.request("GET", &format!("/api/v1/admin/sales/busy/{what}"), &headers, b"");
            let console = operator.get(&format!("/console/sales/busy/{what}.{extension}"));
            assert_eq!((console.status, &console.text), (200, &api.text));
            for header in ["content-type", "content-disposition", "cache-control"] {
                assert_eq!(console.header(header), api.header(header));
            }
            assert_page(&operator.get(&format!("/console/sales/nothing/{what}.{extension}")), 404);
        }
    }
}

#[test]
fn what_users_are_called_is_never_markup() {
    let server = Server::demo();
    create(&server, "hostile", HOSTILE, 10);
    server.buy("hostile", HOSTILE);
    let operator = Operator::of(&server);
    for what in ["orders", "audit"] {
        let search = format!("/console/sales/hostile/{what}?{}", encoded(&[("user", HOSTILE)]));
        for path in [format!("/console/sales/hostile/{what}"), search] {
            let page = operator.get(&path);
            assert_page(&page, 200);
            assert!(read(&page.text).matches(HOSTILE).count() >= 2, "{}", page.text);
            for markup in ["<script>alert", "<img src=x", "\"'>", "&amp;<"] {
                assert!(!page.text.contains(markup), "{markup} is in {path}");
            }
        }
    }
}

// ── Integrity and system ─────────────────────────────────────────────────────────────────────────────────

#[test]
fn the_integrity_of_a_sale_is_checked_and_said_plainly() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    for user in ["a", "b", "a"] {
        server.buy("sale_1", user);
    }
    server.until("they are confirmed", |server| server.status("sale_1")["confirmed"] == 2);
    let page = operator.get("/console/sales/sale_1/integrity");
    assert_page(&page, 200);
    assert_says(&page, &["All promises hold", "data-holds=\"true\"", "2 ≤ 100"]);
    let check = || {
        let headers = [("cookie", operator.cookie.as_str()), ("x-csrf-token", operator.csrf.as_str())];
        server.request("POST", "/console/sales/sale_1/integrity", &headers, b"")
    };
    let checked = check();
    assert_eq!((checked.status, checked.header("cache-control")), (200, "no-store"));
    let checked = checked.json();
    assert_eq!(checked["holds"], true);
    assert!(checked["checkedAt"].as_i64().is_some_and(|at| at / 1_000 >= now_s() - 60));
    assert!(checked["tookMs"].is_u64());
    let promises: Vec<_> =
        checked["checks"].as_array().expect("checks").iter().map(|one| &one["promise"]).collect();
    for promise in ["P1", "P2", "P4", "P5", "P6", "P7"] {
        assert!(promises.contains(&&json!(promise)), "{promises:?}");
    }

    let drop = "DELETE FROM trail WHERE key = (SELECT max(key) FROM trail WHERE kind = 3)";
    assert_eq!(ledger(&server).execute(drop, []).expect("a record is lost"), 1);
    let page = operator.get("/console/sales/sale_1/integrity");
    assert_says(
        &page,
        &[
            "A promise is broken",
            "data-holds=\"false\"",
            "<li>P6: every place of the sequence is on record",
            "1 missing",
        ],
    );
    assert_eq!(check().json()["holds"], false);
}

#[test]
fn while_nothing_can_be_sold_every_page_says_so() {
    let server = Server::demo();
    let operator = Operator::of(&server);
    let pages = ["/console", "/console/sales/sale_1", "/console/sales/sale_1/orders", "/console/new-sale"];
    for path in pages {
        assert_says(&operator.get(path), &["data-live=\"trouble\" hidden"]);
    }
    let mut events = board::watch(&server, "sale_1");
    board::until(&mut events, "trouble", "that all is well", Value::is_null);

    let broken =
        "CREATE TRIGGER broken BEFORE INSERT ON live_orders BEGIN SELECT RAISE(ABORT, 'broken'); END";
    ledger(&server).execute_batch(broken).expect("a trigger");
    assert_eq!(server.buy("sale_1", "user").status, 503);
    let why = "selling has stopped, because the ledger cannot record it: broken";
    for path in pages {
        let page = operator.get(path);
        assert_says(&page, &["Purchases cannot be made:", why]);
        assert!(!page.text.contains("data-live=\"trouble\" hidden"), "{path}");
    }
    board::until(&mut events, "trouble", "what is wrong", |trouble| trouble == why);
}

#[test]
fn what_is_not_in_the_console_is_said_within_it() {
    let server = Server::demo();
    let page = Operator::of(&server).get("/console/elsewhere");
    assert_page(&page, 404);
    assert_says(&page, &["There is nothing at /console/elsewhere", "href=\"/console/new-sale\""]);
}

#[test]
fn the_system_page_says_what_runs_and_no_secret() {
    let secret = "a-secret-that-nobody-may-read";
    let dir = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let config = dir.path().join("flashsale.toml");
    let url = "postgres://shop:hush-hush@db.example/flashsale?sslpassword=unheard";
    fs::write(&config, format!("drain-timeout = \"7s\"\ndatabase-url = \"{url}\"\n")).expect("it is written");
    let mut command = flashsale();
    command.args(["serve", "--listen", "127.0.0.1:0", "--max-connections", "77", "--config"]).arg(&config);
    command
        .arg("--data-dir")
        .arg(dir.path())
        .env("FLASHSALE_ADMIN_TOKEN", secret)
        .env("FLASHSALE_LOG", "debug");
    let server = Server::spawn(command, dir);
    let operator = Operator::with(&server, secret);
    let page = operator.get("/console/system");
    assert_page(&page, 200);
    assert_says(
        &page,
        &[
            "data-system=\"profile\">embedded",
            "a purchase is on the disk before it is acknowledged",
            env!("CARGO_PKG_VERSION"),
            "data-part=\"database\"",
            "Purchases can be made",
        ],
    );
    let setting = |name: &str| {
        let row = between(&page.text, &format!("data-setting=\"{name}\""), "</tr>");
        let cells: Vec<_> = row.split("<td>").skip(1).map(|cell| between(cell, "", "</td>")).collect();
        (cells[0].to_owned(), cells[1].to_owned())
    };
    let is = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(setting("max-connections"), is("77", "command line"));
    assert_eq!(setting("log"), is("debug", "environment"));
    assert_eq!(setting("drain-timeout"), is("7s", "config file"));
    assert_eq!(setting("body-timeout"), is("10s", "default"));
    assert_eq!(setting("admin-token"), is("given, not shown", "environment"));
    // What the other profile would go by is not in force.
    assert!(!page.text.contains("data-setting=\"database-url\""));
    for hidden in [secret, "hush-hush", "unheard"] {
        assert!(!page.text.contains(hidden) && !server.log().contains(hidden), "{hidden}");
    }
}
