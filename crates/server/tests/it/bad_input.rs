//! Input that is wrong, odd, too long, or never ends: a clear 4xx each time, and nothing has changed.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
};

use serde_json::{Value, json};

use crate::server::{Reply, Server, TOKEN};

const PURCHASE: &str = "/api/v1/sale/purchase";
const JSON: (&str, &str) = ("content-type", "application/json");
/// The bound of a body.
const BODY_BYTES: usize = 40 * 1024;

/// A demonstration in which nothing may change.
struct Shop {
    server: Server,
    before: (Value, Vec<String>),
}

impl Shop {
    fn open(arguments: &[&str]) -> Self {
        let server = Server::start(&[&["--demo"], arguments].concat());
        let before = server.state();
        Self { server, before }
    }

    /// The request was refused, and left no trace; with which words.
    fn refused(&self, reply: &Reply, status: u16) -> String {
        assert_eq!(self.server.state(), self.before, "{reply:?}");
        reply.problem(status)
    }

    fn refuses(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        status: u16,
    ) -> String {
        self.refused(&self.server.request(method, path, headers, body), status)
    }

    fn refuses_purchase(&self, body: &[u8]) -> String {
        self.refuses("POST", PURCHASE, &[JSON], body, 400)
    }

    /// The endpoints that take JSON, with a body for each that would do.
    fn json_endpoints() -> [(&'static str, &'static str, Value); 4] {
        let (starts, ends) = ("2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z");
        [
            ("POST", PURCHASE, json!({ "saleId": "sale_1", "userId": "u" })),
            ("POST", "/api/v1/admin/reset", json!({ "saleId": "sale_1" })),
            (
                "POST",
                "/api/v1/admin/sales",
                json!({ "name": "n", "totalStock": 1, "startsAt": starts, "endsAt": ends }),
            ),
            ("PATCH", "/api/v1/admin/sales/sale_1", json!({ "name": "n", "totalStock": 7 })),
        ]
    }
}

/// A header of a request, up to and with its empty line.
fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: flashsale\r\nconnection: close\r\n{more}\r\n")
}

/// Sends these very bytes, and reads until the server closes the connection.
fn exchange(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut stream = server.connect();
    // A server that has heard enough may close before all is sent; what counts is its reply.
    let _ = stream.write_all(bytes);
    read_to_end(stream)
}

fn read_to_end(mut stream: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).expect("the server closes, and its reply is not lost in a reset");
    received
}

/// The one reply that was received.
fn parse(received: &[u8]) -> Reply {
    let text = String::from_utf8(received.to_vec()).expect("a reply of text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(": ").expect("a header");
        (
            http::HeaderName::try_from(name).expect("a name"),
            http::HeaderValue::try_from(value).expect("a value"),
        )
    });
    let reply = Reply {
        status: status.parse().expect("a number"),
        headers: headers.collect(),
        text: body.to_owned(),
    };
    if reply.header("transfer-encoding").is_empty() {
        assert_eq!(reply.header("content-length"), body.len().to_string(), "{reply:?}");
    }
    reply
}

/// The JSON with white space after it, so that it has this length.
fn padded(json: &Value, bytes: usize) -> String {
    let json = json.to_string();
    let space = " ".repeat(bytes - json.len());
    json + space.as_str()
}

/// Every byte percent-encoded, so that no part of a path is what it seems.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn what_is_no_json_object_is_refused_by_every_endpoint() {
    let shop = Shop::open(&[]);
    let token = format!("Bearer {TOKEN}");
    for (method, path, good) in Shop::json_endpoints() {
        let good = good.to_string();
        let bodies = [
            "",
            " \r\n\t ",
            "not json",
            r#"["sale_1","u"]"#,
            "[]",
            "null",
            "true",
            "42",
            r#""sale_1""#,
            "{",
            &good[..good.len() - 1],
            &format!("{good}}}"),
            &format!("{good} x"),
            &format!("{good}{good}"),
            &format!("[{good}]"),
            &format!("\u{feff}{good}"),
            &good.replace('"', "'"),
            &good.replace('}', ",}"),
            &format!("// a comment\n{good}"),
        ];
        for body in bodies {
            let headers = [JSON, ("authorization", token.as_str())];
            let told = shop.refuses(method, path, &headers, body.as_bytes(), 400);
            assert!(told.contains("JSON"), "{path} {body}: {told}");
        }
    }
}

#[test]
fn fields_of_a_wrong_type_are_refused_by_name() {
    let shop = Shop::open(&[]);
    for field in ["saleId", "userId"] {
        for wrong in ["1", "-0.5", "null", "true", "[]", r#"["sale_1"]"#, "{}", r#"{"saleId":"sale_1"}"#] {
            let other = if field == "saleId" { "userId" } else { "saleId" };
            let told =
                shop.refuses_purchase(format!(r#"{{"{other}":"sale_1","{field}":{wrong}}}"#).as_bytes());
            assert!(told.starts_with(&format!("{field}: invalid type")), "{wrong}: {told}");
        }
    }
}

#[test]
fn missing_unknown_and_duplicate_fields_are_refused_by_name() {
    let shop = Shop::open(&[]);
    for (body, word) in [
        (r"{}", "missing field `saleId`"),
        (r#"{"saleId":"sale_1"}"#, "missing field `userId`"),
        (r#"{"userId":"u"}"#, "missing field `saleId`"),
        (r#"{"saleId":"sale_1","userId":"u","quantity":2}"#, "unknown field `quantity`"),
        (r#"{"saleId":"sale_1","userId":"u","":""}"#, "unknown field ``"),
        (r#"{"saleid":"sale_1","userId":"u"}"#, "unknown field `saleid`"),
        (r#"{"sale_id":"sale_1","user_id":"u"}"#, "unknown field `sale_id`"),
        (r#"{"saleId":"sale_1","userId":"u","userId":"v"}"#, "duplicate field `userId`"),
        (r#"{"saleId":"sale_1","userId":"u","user\u0049d":"v"}"#, "duplicate field `userId`"),
        (r#"{"saleId":"sale_3","saleId":"sale_1","userId":"u"}"#, "duplicate field `saleId`"),
    ] {
        let told = shop.refuses_purchase(body.as_bytes());
        assert!(told.contains(word), "{body}: {told}");
    }
}

#[test]
fn the_admin_bodies_are_as_strict() {
    let shop = Shop::open(&[]);
    let token = format!("Bearer {TOKEN}");
    let headers = [JSON, ("authorization", token.as_str())];
    for (method, path, good) in Shop::json_endpoints() {
        for (name, value) in good.as_object().expect("an object") {
            let put = |wrong: &Value| {
                let mut body = good.clone();
                body[name] = wrong.clone();
                body.to_string()
            };
            let twice = format!(r#"{{"{name}":{value},{}"#, &good.to_string()[1..]);
            for body in [put(&json!({})), put(&json!([value])), put(&json!(true)), twice] {
                let told = shop.refuses(method, path, &headers, body.as_bytes(), 400);
                assert!(told.contains(name), "{path} {body}: {told}");
            }
        }
        let unknown = good.to_string().replacen('{', r#"{"colour":"red","#, 1);
        let told = shop.refuses(method, path, &headers, unknown.as_bytes(), 400);
        assert!(told.contains("unknown field `colour`"), "{told}");
    }
}

#[test]
fn a_sale_id_that_is_none_is_refused_everywhere() {
    let shop = Shop::open(&[]);
    let server = &shop.server;
    let longest = "x".repeat(64);
    assert_eq!(shop.refused(&server.buy(&longest, "u"), 404), format!("There is no sale {longest}"));
    for bad in ["x".repeat(65).as_str(), "", " ", "sale 1", "sale/1", "säle", "sale_1\n", "a\0", "{a}", "🛒"]
    {
        assert!(shop.refused(&server.buy(bad, "u"), 400).starts_with("saleId must be"), "{bad:?}");
        let reset = server.admin("POST", "/api/v1/admin/reset", &json!({ "saleId": bad }));
        assert!(shop.refused(&reset, 400).starts_with("saleId must be"), "{bad:?}");
        if bad.is_empty() {
            continue;
        }
        let id = encoded(bad);
        for path in [
            format!("/api/v1/sale/{id}/status"),
            format!("/api/v1/sale/{id}/user/u"),
            format!("/api/v1/sale/{id}/user/u/purchase"),
        ] {
            assert!(shop.refused(&server.get(&path), 400).starts_with("saleId must be"), "{path}");
        }
        let admin = format!("/api/v1/admin/sales/{id}");
        for (method, path, body) in [
            ("GET", admin.clone(), Value::Null),
            ("PATCH", admin.clone(), json!({ "paused": true })),
            ("DELETE", admin.clone(), Value::Null),
            ("POST", format!("{admin}/pause"), Value::Null),
            ("POST", format!("{admin}/resume"), Value::Null),
            ("GET", format!("{admin}/orders"), Value::Null),
            ("GET", format!("{admin}/audit"), Value::Null),
        ] {
            let told = shop.refused(&server.admin(method, &path, &body), 400);
            assert!(told.starts_with("saleId must be"), "{method} {path}: {told}");
        }
    }
}

#[test]
fn a_user_id_that_is_none_is_refused() {
    let shop = Shop::open(&[]);
    let too_long = [&"x".repeat(256), &"é".repeat(128), &format!("{}x", "🛒".repeat(64)), &"x".repeat(9_000)];
    for bad in too_long {
        let told = shop.refused(&shop.server.buy("sale_1", bad), 400);
        assert_eq!(told, "userId must be at most 255 bytes long");
        let looked_up = shop.server.get(&format!("/api/v1/sale/sale_1/user/{}", encoded(bad)));
        assert_eq!(shop.refused(&looked_up, 400), "userId must be at most 255 bytes long");
    }
    assert_eq!(shop.refused(&shop.server.buy("sale_1", ""), 400), "userId must not be empty");
    for control in ['\0', '\n', '\r', '\t', '\u{1b}', '\u{1f}', '\u{7f}', '\u{80}', '\u{85}', '\u{9f}'] {
        for bad in [control.to_string(), format!("user{control}"), format!("{control}user")] {
            let told = shop.refused(&shop.server.buy("sale_1", &bad), 400);
            assert_eq!(told, "userId must not contain control characters", "{bad:?}");
            let looked_up = shop.server.get(&format!("/api/v1/sale/sale_1/user/{}/purchase", encoded(&bad)));
            assert_eq!(shop.refused(&looked_up, 400), told, "{bad:?}");
        }
    }
    // Written out, as no serializer would.
    for raw in ["a\nb", "a\0b", "a\tb"] {
        shop.refuses_purchase(format!(r#"{{"saleId":"sale_1","userId":"{raw}"}}"#).as_bytes());
    }
    shop.refuses_purchase("{\"saleId\":\"sale_1\",\"userId\":\"a\u{7f}b\"}".as_bytes());
}

#[test]
fn text_that_is_no_unicode_is_refused() {
    let shop = Shop::open(&[]);
    for surrogate in
        [r"\ud800", r"\udc00", r"\udfff", r"\ud800\ud800", r"\ud83dx", r"\ud83d\u0041", r"\u12", r"\x41"]
    {
        shop.refuses_purchase(format!(r#"{{"saleId":"sale_1","userId":"{surrogate}"}}"#).as_bytes());
        shop.refuses_purchase(format!(r#"{{"saleId":"{surrogate}","userId":"u"}}"#).as_bytes());
        shop.refuses_purchase(format!(r#"{{"saleId":"sale_1","userId":"u","{surrogate}":1}}"#).as_bytes());
    }
    let invalid: [&[u8]; 6] =
        [b"\xff", b"\xc0\x80", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf0\x28\x8c\x28"];
    for bytes in invalid {
        let user = [&b"{\"saleId\":\"sale_1\",\"userId\":\""[..], bytes, b"\"}"].concat();
        shop.refuses_purchase(&user);
        let name = [&b"{\"saleId\":\"sale_1\",\"userId\":\"u\",\""[..], bytes, b"\":1}"].concat();
        shop.refuses_purchase(&name);
        let escaped: String = bytes.iter().map(|byte| format!("%{byte:02x}")).collect();
        for path in [format!("/api/v1/sale/sale_1/user/{escaped}"), format!("/api/v1/sale/{escaped}/status")]
        {
            shop.refuses("GET", &path, &[], b"", 400);
        }
    }
    // UTF-16 is no JSON on the wire.
    let utf16: Vec<u8> =
        r#"{"saleId":"sale_1","userId":"u"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    shop.refuses_purchase(&utf16);
}

#[test]
fn odd_but_allowed_user_ids_come_back_as_they_went() {
    let server = Server::demo();
    let longest = format!("{}a", "é".repeat(127));
    let users = [
        "🛒",
        "👩\u{200d}👩\u{200d}👧",
        "\u{202e}resu",
        "e\u{301}",
        "é",
        "用户",
        " ",
        " padded ",
        "a\u{200b}b",
        "\u{feff}",
        "\u{2028}",
        "\u{e000}",
        "\u{10ffff}",
        "a/b",
        "a%2Fb",
        "..",
        "?a=b#c&d+e;f",
        "\"'`\\",
        "<b>&amp;",
        "null",
        "NULL); DROP TABLE orders; --",
        "{sale_id}",
        &longest,
    ];
    let mut orders = Vec::new();
    for user in users {
        let bought = server.buy("sale_1", user);
        assert_eq!((bought.status, &bought.json()["status"]), (200, &json!("SUCCESS")), "{user:?}");
        let order = bought.json()["orderId"].clone();
        assert_eq!(server.buy("sale_1", user).json()["orderId"], order, "{user:?}");
        for end in ["", "/purchase"] {
            let path = format!("/api/v1/sale/sale_1/user/{}{end}", encoded(user));
            assert_eq!(server.get(&path).json()["orderId"], order, "{user:?}");
        }
        orders.push((json!(user), order));
    }
    let rows = |name: &str| -> Vec<Value> {
        let export = server.admin("GET", &format!("/api/v1/admin/sales/sale_1/{name}"), &Value::Null);
        export.text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
    };
    let pairs = |rows: Vec<Value>, id: fn(&Value) -> &Value| -> Vec<(Value, Value)> {
        rows.iter().map(|row| (row["userId"].clone(), id(row).clone())).collect()
    };
    assert_eq!(pairs(rows("orders"), |row| &row["orderId"]), orders);
    let mut reserved = rows("audit");
    reserved.retain(|event| event["eventType"] == "RESERVED");
    assert_eq!(pairs(reserved, |event| &event["metadata"]["orderId"]), orders);
}

#[test]
fn escapes_and_white_space_in_json_mean_what_they_mean() {
    let server = Server::demo();
    let body = "\r\n {\t\"user\\u0049d\" : \"\\ud83d\\uded2\" ,\n\"saleId\":\"s\\u0061le\\u005f1\" } \n";
    let bought = server.request("POST", PURCHASE, &[JSON], body.as_bytes());
    assert_eq!(bought.json()["status"], "SUCCESS", "{bought:?}");
    let held = server.get(&format!("/api/v1/sale/sale_1/user/{}", encoded("🛒")));
    assert_eq!(held.json()["orderId"], bought.json()["orderId"]);
}

#[test]
fn an_unknown_sale_is_told() {
    let shop = Shop::open(&[]);
    let server = &shop.server;
    for reply in [
        server.buy("sale_9", "u"),
        server.get("/api/v1/sale/sale_9/status"),
        server.get("/api/v1/sale/sale_9/user/u"),
        server.get("/api/v1/sale/sale_9/user/u/purchase"),
    ] {
        assert_eq!(shop.refused(&reply, 404), "There is no sale sale_9");
    }
}

#[test]
fn an_unknown_path_is_told() {
    let shop = Shop::open(&[]);
    for path in [
        "/nothing",
        "/api",
        "/api/v1",
        "/api/v1/sale",
        "/api/v1/sales/",
        "/api/v1/sale/sale_1",
        "/api/v1/sale/sale_1/status/",
        "/api/v1/sale/sale_1/user/",
        "/API/V1/SALES",
        "//api/v1/sales",
        "/api/v1/./sales",
        "/api/v1/sale/../sales",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2fCargo.toml",
        "/assets/app.css",
        "/assets/%00",
        "/docs/../../etc/passwd",
        "/docs/..%2f..%2fetc%2fpasswd",
        "/docs/%00",
        "/%00",
        "/%ff",
        "/%",
        "/%zz",
        "/api/v1/admin",
        "/api/v1/admin/nothing",
    ] {
        let told = shop.refused(&parse(&exchange(&shop.server, head("GET", path, "").as_bytes())), 404);
        assert!(told.starts_with("There is no"), "{path}: {told}");
    }
}

#[test]
fn odd_escapes_in_a_path_are_no_ids() {
    let shop = Shop::open(&[]);
    for path in [
        "/api/v1/sale//status",
        "/api/v1/sale/%00/status",
        "/api/v1/sale/%ff/status",
        "/api/v1/sale/sale_1%00/status",
        "/api/v1/sale/sale_1%2F/status",
        "/api/v1/sale/sale_1%2Fstatus/status",
        "/api/v1/sale/../status",
        "/api/v1/sale/%2e%2e/status",
        "/api/v1/sale/./status",
        "/api/v1/sale/%/status",
        "/api/v1/sale/sale_1%/status",
        "/api/v1/sale/%zz/status",
        "/api/v1/sale/sale_1/user/%ff",
        "/api/v1/sale/sale_1/user/%00",
        "/api/v1/sale/%ff/user/%ff/purchase",
        "/docs/%ff",
        "/assets/%ff",
    ] {
        shop.refused(&parse(&exchange(&shop.server, head("GET", path, "").as_bytes())), 400);
    }
}

#[test]
fn a_wrong_method_is_told_with_those_that_are_right() {
    let shop = Shop::open(&[]);
    let token = format!("Bearer {TOKEN}");
    for (path, allowed) in [
        ("/", "GET,HEAD"),
        ("/sales/sale_1", "GET,HEAD,POST"),
        ("/health", "GET,HEAD"),
        ("/metrics", "GET,HEAD"),
        ("/api/v1/sales", "GET,HEAD"),
        ("/api/v1/sale/sale_1/status", "GET,HEAD"),
        ("/api/v1/sale/sale_1/user/u/purchase", "GET,HEAD"),
        (PURCHASE, "POST"),
        ("/api/v1/admin/reset", "POST"),
        ("/api/v1/admin/sales", "POST"),
        ("/api/v1/admin/sales/sale_1", "DELETE,GET,HEAD,PATCH"),
        ("/api/v1/admin/sales/sale_1/pause", "POST"),
        ("/api/v1/admin/sales/sale_1/orders", "GET,HEAD"),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if allowed.split(',').any(|allowed| allowed == method) {
                continue;
            }
            let headers = [("authorization", token.as_str())];
            let reply = shop.server.request(method, path, &headers, b"");
            assert_eq!(shop.refused(&reply, 405), format!("{path} does not take {method}"));
            let mut named: Vec<_> = reply.header("allow").split(',').map(str::trim).collect();
            named.sort_unstable();
            assert_eq!(named.join(","), allowed, "{method} {path}");
        }
    }
}

#[test]
fn head_answers_as_get_does_but_without_a_body() {
    let shop = Shop::open(&[]);
    for path in ["/", "/api/v1/sales", "/api/v1/sale/sale_1/status", "/health", "/openapi.json", "/nothing"] {
        let (head, get) = (shop.server.request("HEAD", path, &[], b""), shop.server.get(path));
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
    }
    let wrong = shop.server.request("HEAD", PURCHASE, &[], b"");
    assert_eq!((wrong.status, wrong.header("allow"), wrong.text.as_str()), (405, "POST", ""));
    assert_eq!(shop.server.state(), shop.before);
}

#[test]
fn a_body_of_another_type_is_refused() {
    let shop = Shop::open(&[]);
    let token = format!("Bearer {TOKEN}");
    let types = [
        None,
        Some(""),
        Some("text/plain"),
        Some("text/json"),
        Some("application/jsonp"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=application/json"),
        Some("application/xml, application/json"),
    ];
    for (method, path, good) in Shop::json_endpoints() {
        for content_type in types {
            let mut headers = vec![("authorization", token.as_str())];
            headers.extend(content_type.map(|value| ("content-type", value)));
            let told = shop.refuses(method, path, &headers, good.to_string().as_bytes(), 415);
            assert!(told.contains("Content-Type: application/json"), "{told}");
        }
    }
    for (method, path, good) in Shop::json_endpoints() {
        let headers = [("authorization", token.as_str()), JSON, ("content-encoding", "gzip")];
        let told = shop.refuses(method, path, &headers, good.to_string().as_bytes(), 415);
        assert!(told.contains("Content-Encoding"), "{told}");
    }
    // Parameters and case do not matter.
    let headers = [("content-type", "Application/JSON ; charset=utf-8")];
    let body = json!({ "saleId": "sale_1", "userId": "u" }).to_string();
    assert_eq!(shop.server.request("POST", PURCHASE, &headers, body.as_bytes()).status, 200);
}

#[test]
fn a_body_that_is_too_long_is_refused_by_its_bound() {
    let shop = Shop::open(&[]);
    let good = json!({ "saleId": "sale_1", "userId": "u" });
    for length in [BODY_BYTES + 1, 1 << 20] {
        let told = shop.refuses("POST", PURCHASE, &[JSON], padded(&good, length).as_bytes(), 413);
        assert_eq!(told, "The body is too long; it must be at most 40960 bytes");
    }
    let at_the_bound = padded(&good, BODY_BYTES);
    let bought = shop.server.request("POST", PURCHASE, &[JSON], at_the_bound.as_bytes());
    assert_eq!(bought.json()["status"], "SUCCESS");
}

/// Many clients write everything beyond ASCII as `\uXXXX`, and some write all so.
#[test]
fn a_sale_with_the_longest_texts_is_taken_however_they_are_escaped() {
    let shop = Shop::open(&[]);
    let (faces, letters) = (|count| "\\ud83d\\ude00".repeat(count), "\\u0061".repeat(1_980));
    let (name, description) = (faces(200), faces(2_000));
    let body = format!(
        "{{\"name\":\"{name}\",\"description\":\"{description}\",\"imageUrl\":\"https://cdn.example/{letters}\",\
         \"totalStock\":1,\"startsAt\":\"2026-01-01T00:00:00Z\",\"endsAt\":\"2099-01-01T00:00:00Z\"}}"
    );
    let token = format!("Bearer {TOKEN}");
    let made = shop.server.request(
        "POST",
        "/api/v1/admin/sales",
        &[JSON, ("authorization", &token)],
        body.as_bytes(),
    );
    assert_eq!(made.status, 201, "{:?}", made.json());
    assert_eq!(made.json()["description"].as_str().unwrap().chars().count(), 2_000);
    assert_eq!(made.json()["imageUrl"].as_str().unwrap().len(), 2_000);
}

#[test]
fn whoever_sends_too_much_is_heard_out_and_told() {
    let shop = Shop::open(&[]);
    // A client that sends all before it listens must not be cut off, or it never hears why.
    let sends = |request: &str| {
        let mut stream = shop.server.connect();
        stream.write_all(request.as_bytes()).expect("all is taken");
        shop.refused(&parse(&read_to_end(stream)), 413);
    };
    for bytes in [1 << 20, 7 << 20] {
        let body = padded(&json!({ "saleId": "sale_1", "userId": "u" }), bytes);
        let told = format!("content-type: application/json\r\ncontent-length: {bytes}\r\n");
        sends(&(head("POST", PURCHASE, &told) + body.as_str()));

        let untold = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
        for chunk_bytes in [1_000, 65_536, bytes] {
            let mut request = head("POST", PURCHASE, untold);
            for chunk in body.as_bytes().chunks(chunk_bytes) {
                request += &format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk));
            }
            sends(&(request + "0\r\n\r\n"));
        }
    }
}

#[test]
fn a_body_that_is_told_to_be_huge_is_refused_unread() {
    let shop = Shop::open(&[]);
    for (length, status) in [("8388609", 413), ("999999999999999", 413), ("18446744073709551616", 400)] {
        let told = format!("content-type: application/json\r\ncontent-length: {length}\r\n");
        let reply = parse(&exchange(&shop.server, head("POST", PURCHASE, &told).as_bytes()));
        assert_eq!((reply.status, shop.server.state()), (status, shop.before.clone()), "{length}");
    }
}

#[test]
fn an_endless_body_is_cut_off() {
    let shop = Shop::open(&[]);
    let chunked = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
    let mut stream = shop.server.connect();
    stream.write_all(head("POST", PURCHASE, chunked).as_bytes()).expect("it is sent");
    let chunk = format!("8000\r\n{:32768}\r\n", "");
    let chunks = (0..10_000).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok()).count();
    assert!(chunks < 10_000, "327 MB were taken");
    assert_eq!(shop.server.state(), shop.before);
}

#[test]
fn deep_nesting_is_refused() {
    let shop = Shop::open(&[]);
    for open in ["[", "{\"saleId\":", "{\"x\":["] {
        let deep = open.repeat(100_000);
        shop.refuses("POST", PURCHASE, &[JSON], deep.as_bytes(), 413);
        let fits = open.repeat(BODY_BYTES / open.len());
        shop.refuses_purchase(fits.as_bytes());
        shop.refuses_purchase(format!("{{\"saleId\":{}", &fits[..BODY_BYTES - 20]).as_bytes());
        shop.refuses_purchase(format!("{{\"userId\":\"u\",\"x\":{}", &fits[..BODY_BYTES - 40]).as_bytes());
    }
}

#[test]
fn numbers_of_any_size_are_refused_where_text_must_be() {
    let shop = Shop::open(&[]);
    let endless = "9".repeat(10_000);
    for number in
        ["1e400", "-1e400", "1e-400", "0.1", "-0", "18446744073709551616", "NaN", "Infinity", &endless]
    {
        shop.refuses_purchase(format!(r#"{{"saleId":"sale_1","userId":{number}}}"#).as_bytes());
    }
}

#[test]
fn what_is_no_http_is_told_so_and_closed() {
    let shop = Shop::open(&[]);
    let requests: [&[u8]; 14] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1 x\r\n\r\n",
        b"G\xffT / HTTP/1.1\r\n\r\n",
        b"GET /\x01 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\0b\r\n\r\n",
        b"POST /api/v1/sale/purchase HTTP/1.1\r\ncontent-length: many\r\n\r\n",
        b"POST /api/v1/sale/purchase HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}",
    ];
    for request in requests {
        let reply = parse(&exchange(&shop.server, request));
        assert_eq!((reply.status, reply.text.as_str()), (400, ""), "{}", String::from_utf8_lossy(request));
        assert_eq!(shop.server.state(), shop.before);
    }
}

#[test]
fn a_body_that_is_no_body_is_refused() {
    let shop = Shop::open(&[]);
    let chunked = "content-type: application/json\r\ntransfer-encoding: chunked\r\n";
    for body in ["zz\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "5\r\n{\"sal\n\n\n\n", "1;\n\n\r\n"] {
        let request = head("POST", PURCHASE, chunked) + body;
        let told = shop.refused(&parse(&exchange(&shop.server, request.as_bytes())), 400);
        assert_eq!(told, "The body broke off before its end", "{body:?}");
    }
}

#[test]
fn a_body_that_breaks_off_buys_nothing() {
    let shop = Shop::open(&[]);
    let good = json!({ "saleId": "sale_1", "userId": "u" }).to_string();
    let length = good.len() + 1;
    for framing in [format!("content-length: {length}\r\n"), "transfer-encoding: chunked\r\n".to_owned()] {
        let body =
            if framing.starts_with('t') { format!("{:x}\r\n{good}\r\n", good.len()) } else { good.clone() };
        let request =
            head("POST", PURCHASE, &format!("content-type: application/json\r\n{framing}")) + body.as_str();
        let mut stream = shop.server.connect();
        stream.write_all(request.as_bytes()).expect("it is sent");
        stream.shutdown(Shutdown::Write).expect("it is closed");
        assert_eq!(shop.refused(&parse(&read_to_end(stream)), 400), "The body broke off before its end");
    }
}

/// As `nc -N` does, and whoever has nothing more to ask.
#[test]
fn whoever_closes_his_half_of_the_line_is_answered() {
    let server = Server::demo();
    for number in 0..20 {
        let body = json!({ "saleId": "sale_1", "userId": format!("u{number}") }).to_string();
        let framing = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        let (purchase, page) =
            (head("POST", PURCHASE, &framing) + body.as_str(), head("GET", "/sales/sale_1", ""));
        for (request, word) in [(purchase, "SUCCESS"), (page, "</html>")] {
            let mut stream = server.connect();
            stream.write_all(request.as_bytes()).expect("it is sent");
            stream.shutdown(Shutdown::Write).expect("it is closed");
            let reply = parse(&read_to_end(stream));
            assert!(reply.status == 200 && reply.text.contains(word), "{reply:?}");
        }
    }
}

#[test]
fn a_header_that_is_too_large_is_told_so_and_closed() {
    let shop = Shop::open(&[]);
    let long = "x".repeat(70_000);
    let many: String = (0..200).map(|number| format!("x-{number}: {number}\r\n")).collect();
    for request in [
        head("GET", "/", &format!("x: {long}\r\n")),
        head("GET", "/", &format!("{long}: x\r\n")),
        head("GET", &format!("/{long}"), ""),
        head("GET", "/", &many),
        head("GET", "/", &format!("x: {}\r\n", "x".repeat(4 << 20))),
    ] {
        let reply = parse(&exchange(&shop.server, request.as_bytes()));
        assert_eq!((reply.status, reply.text.as_str()), (431, ""));
        assert_eq!(shop.server.state(), shop.before);
    }
}

#[test]
fn a_long_path_within_the_bound_is_only_unknown() {
    let shop = Shop::open(&[]);
    let long = "x".repeat(30_000);
    for (path, status) in [
        (format!("/{long}"), 404),
        (format!("/api/v1/sale/{long}/status"), 400),
        (format!("/api/v1/sale/sale_1/user/{long}"), 400),
    ] {
        shop.refuses("GET", &path, &[], b"", status);
    }
    assert_eq!(shop.server.get(&format!("/api/v1/sales?{long}")).status, 200);
}

#[test]
fn odd_targets_are_only_unknown() {
    let shop = Shop::open(&[]);
    for line in ["OPTIONS *", "CONNECT example.com:443", "GET http://example.com/nothing"] {
        let (method, target) = line.split_once(' ').expect("two words");
        shop.refused(&parse(&exchange(&shop.server, head(method, target, "").as_bytes())), 404);
    }
}

#[test]
fn half_a_header_is_given_up_after_its_time() {
    let shop = Shop::open(&["--header-timeout", "300ms"]);
    for half in ["G", "GET / HTTP/1.1", "GET / HTTP/1.1\r\nhost: flashsale\r\n", "POST / HTTP/1.1\r\nx: "] {
        let reply = parse(&exchange(&shop.server, half.as_bytes()));
        assert_eq!(shop.refused(&reply, 408), "The request took too long", "{half:?}");
        assert_eq!(reply.header("connection"), "close");
    }
}

#[test]
fn a_connection_that_has_been_served_is_closed_when_it_stays_idle() {
    let server = Server::start(&["--demo", "--header-timeout", "300ms"]);
    let request = "GET /health/live HTTP/1.1\r\nhost: flashsale\r\n\r\n";
    // Its reply, and then not a word: not even the 408 that is for half a request.
    assert_eq!(parse(&exchange(&server, request.as_bytes())).text, r#"{"status":"up"}"#);
}

#[test]
fn requests_sent_at_once_are_answered_in_order() {
    let server = Server::demo();
    let purchase = |body: &str| {
        let length = body.len();
        format!(
            "POST {PURCHASE} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    let good = json!({ "saleId": "sale_1", "userId": "u" }).to_string();
    let requests =
        purchase(&good) + &purchase("[]")[..] + &purchase(&good)[..] + &head("GET", "/health/live", "")[..];
    let replies = String::from_utf8(exchange(&server, requests.as_bytes())).expect("text");
    let parts = ["\"SUCCESS\"", "must be a JSON object", "\"ALREADY_PURCHASED\"", "{\"status\":\"up\"}"];
    let places: Vec<_> = parts.iter().map(|part| replies.find(part).expect("a reply")).collect();
    assert!(places.is_sorted(), "{replies}");
    assert_eq!(replies.matches("HTTP/1.1 ").count(), 4, "{replies}");
}

#[test]
fn a_length_beside_chunks_smuggles_nothing() {
    let shop = Shop::open(&[]);
    let good = json!({ "saleId": "sale_1", "userId": "smuggled" }).to_string();
    let smuggled = head(
        "POST",
        PURCHASE,
        &format!("content-type: application/json\r\ncontent-length: {}\r\n", good.len()),
    );
    let body = format!("0\r\n\r\n{smuggled}{good}");
    for both in [
        format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", body.len()),
        format!("transfer-encoding: chunked\r\ncontent-length: {}\r\n", body.len()),
    ] {
        let request = format!(
            "POST {PURCHASE} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{both}\r\n{body}"
        );
        let reply = exchange(&shop.server, request.as_bytes());
        assert_eq!(parse(&reply).status, 400);
        assert_eq!(shop.server.state(), shop.before);
    }
}

#[test]
fn half_a_body_is_given_up_after_its_time() {
    let shop = Shop::open(&["--body-timeout", "300ms"]);
    let json_of = |framing: &str| format!("content-type: application/json\r\n{framing}\r\n");
    let form = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 9\r\n";
    for (path, headers, half) in [
        (PURCHASE, json_of("content-length: 99"), r#"{"saleId":"sale_1""#),
        (PURCHASE, json_of("content-length: 99"), ""),
        (PURCHASE, json_of("content-length: 999999"), r#"{"saleId":"sale_1""#),
        (PURCHASE, json_of("transfer-encoding: chunked"), "5\r\n{\"sal"),
    ] {
        let request = head("POST", path, &headers) + half;
        let told = shop.refused(&parse(&exchange(&shop.server, request.as_bytes())), 408);
        assert_eq!(told, "The body took too long to arrive");
    }
    let page = parse(&exchange(&shop.server, (head("POST", "/sales/sale_1", form) + "userId").as_bytes()));
    assert_eq!(page.status, 408);
    assert!(page.text.contains("The body took too long to arrive"), "{page:?}");
    assert_eq!(shop.server.state(), shop.before);
}

#[test]
fn a_thousand_idle_connections_hinder_nobody_and_are_closed_in_time() {
    // One for each connection, and some for the test itself.
    rlimit::increase_nofile_limit(4_096).expect("files for a thousand connections");
    let server = Server::start(&["--demo", "--header-timeout", "2s"]);
    let idle: Vec<_> = (0..1_000).map(|_| server.connect()).collect();
    for user in 0..10 {
        assert_eq!(server.buy("sale_1", &format!("user{user}")).json()["status"], "SUCCESS");
    }
    for stream in idle {
        // Nothing was asked, so nothing is said.
        assert_eq!(read_to_end(stream), b"");
    }
    assert_eq!(server.buy("sale_1", "late").json()["status"], "SUCCESS");
}

#[test]
fn connections_over_the_bound_are_told_to_come_again() {
    let server = Server::start(&["--demo", "--max-connections", "50"]);
    let mut held: Vec<_> = (0..50).map(|_| server.connect()).collect();
    let request = head("GET", "/api/v1/sales", "");
    for _ in 0..10 {
        let reply = parse(&exchange(&server, request.as_bytes()));
        assert_eq!((reply.problem(503).as_str(), reply.header("retry-after")), ("Too many connections", "1"));
        assert_eq!(reply.header("connection"), "close");
    }
    // Those within the bound are served,
    let mut first = held.remove(0);
    first.write_all(request.as_bytes()).expect("it is sent");
    assert_eq!(parse(&read_to_end(first)).status, 200);
    // and the place of one that is gone is free again.
    server.until("a place is free", |server| server.get("/health/live").status == 200);
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let server = Server::start(&["--demo", "--max-connections", "1", "--write-timeout", "500ms"]);
    let mut deaf = server.connect();
    // More than all buffers on the way hold.
    let many = head("GET", "/openapi.json", "").repeat(20_000);
    // Once it is cut off, the rest cannot be sent.
    let _ = deaf.write_all(many.as_bytes());
    // Its place is free again, although it is still there.
    server.until("it is cut off", |server| server.get("/health/live").status == 200);
    drop(deaf);
}
