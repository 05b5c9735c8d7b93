//! What an operator does with sales over HTTP, and that nobody else can.

use serde_json::{Value, json};

use crate::server::{Reply, Server, TOKEN};

const SALES: &str = "/api/v1/admin/sales";
const RESET: &str = "/api/v1/admin/reset";
const PAST: &str = "2020-01-01T00:00:00.000Z";
const FUTURE: &str = "2099-01-01T00:00:00.000Z";

/// Sneakers that sell right now, three of them.
fn sneakers() -> Value {
    json!({ "saleId": "sneakers", "name": "Sneakers", "totalStock": 3, "startsAt": PAST, "endsAt": FUTURE })
}

fn with(mut sale: Value, field: &str, value: &Value) -> Value {
    sale[field] = value.clone();
    sale
}

fn without(mut sale: Value, field: &str) -> Value {
    sale.as_object_mut().expect("an object").remove(field);
    sale
}

/// A demonstration that sells sneakers, too.
fn shop() -> Server {
    let server = Server::demo();
    assert_eq!(server.admin("POST", SALES, &sneakers()).status, 201);
    server
}

fn change(server: &Server, change: &Value) -> Reply {
    server.admin("PATCH", &format!("{SALES}/sneakers"), change)
}

fn act(server: &Server, what: &str) -> Reply {
    server.admin("POST", &format!("{SALES}/sneakers/{what}"), &Value::Null)
}

fn delete(server: &Server, sale: &str) -> Reply {
    server.admin("DELETE", &format!("{SALES}/{sale}"), &Value::Null)
}

fn reset(server: &Server, sale: &str) -> Reply {
    server.admin("POST", RESET, &json!({ "saleId": sale }))
}

/// The order that a purchase of sneakers got.
fn bought(server: &Server, user: &str) -> Value {
    let reply = server.buy("sneakers", user);
    assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("SUCCESS")), "{reply:?}");
    reply.json()["orderId"].clone()
}

/// Waits until no order is on its way, after which the trail stands still.
fn settle(server: &Server) {
    server.until("all orders are confirmed", |server| server.status("sneakers")["reserved"] == 0);
}

/// The trail of a sale, as event types.
fn events(server: &Server, sale: &str) -> Vec<String> {
    let export = server.admin("GET", &format!("{SALES}/{sale}/audit"), &Value::Null);
    let event = |line: &str| serde_json::from_str::<Value>(line).expect("a row")["eventType"].clone();
    export.text.lines().map(|line| event(line).as_str().expect("text").to_owned()).collect()
}

#[test]
fn nobody_gets_in_without_the_token() {
    let server = shop();
    bought(&server, "early");
    settle(&server);
    let before = server.state();
    let sale = format!("{SALES}/sneakers");
    let endpoints = [
        ("POST", RESET.to_owned(), json!({ "saleId": "sneakers" })),
        ("POST", SALES.to_owned(), with(sneakers(), "saleId", &json!("other"))),
        ("GET", sale.clone(), Value::Null),
        ("PATCH", sale.clone(), json!({ "totalStock": 9, "paused": true })),
        ("DELETE", format!("{SALES}/sale_1"), Value::Null),
        ("POST", format!("{sale}/pause"), Value::Null),
        ("POST", format!("{sale}/resume"), Value::Null),
        ("GET", format!("{sale}/orders"), Value::Null),
        ("GET", format!("{sale}/audit"), Value::Null),
        // Not even what exists, or what is wrong with a request, is told.
        ("GET", format!("{SALES}/unknown"), Value::Null),
        ("POST", SALES.to_owned(), json!({ "totalStock": -1 })),
    ];
    let (right, longer, shorter) =
        (format!("Bearer {TOKEN}"), format!("Bearer {TOKEN}x"), format!("Bearer {}", &TOKEN[1..]));
    let (other_scheme, two) = (format!("Token {TOKEN}"), format!("Bearer {TOKEN} {TOKEN}"));
    let wrong = [
        "Bearer wrong",
        "Bearer DEMO-ADMIN-TOKEN",
        &longer,
        &shorter,
        &two,
        "Bearer ",
        "Bearer",
        "",
        TOKEN,
        &other_scheme,
        // admin:demo-admin-token
        "Basic YWRtaW46ZGVtby1hZG1pbi10b2tlbg==",
    ];
    for (method, path, body) in &endpoints {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let ask = |credentials: &[&str]| {
            let mut headers = vec![("content-type", "application/json")];
            headers.extend(credentials.iter().map(|value| ("authorization", *value)));
            let reply = server.request(method, path, &headers, body.as_bytes());
            assert!(reply.problem(401).contains("admin token"), "{method} {path}: {reply:?}");
            assert_eq!(reply.header("www-authenticate"), "Bearer");
            assert_eq!(server.state(), before, "{method} {path}");
        };
        ask(&[]);
        ask(&["Bearer wrong", &right]);
        for credentials in wrong {
            ask(&[credentials]);
        }
    }
}

#[test]
fn the_scheme_is_the_same_in_any_case() {
    let server = Server::demo();
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let token = format!("{scheme} {TOKEN}");
        let shown = server.request("GET", &format!("{SALES}/sale_1"), &[("authorization", &token)], b"");
        assert_eq!(shown.status, 200);
    }
}

#[test]
fn a_new_sale_is_told_in_full_and_sells_at_once() {
    let server = Server::demo();
    let made = server.admin("POST", SALES, &sneakers());
    assert_eq!(
        (made.status, made.header("content-type"), made.header("location")),
        (201, "application/json", "/api/v1/admin/sales/sneakers")
    );
    let server_time = made.json()["serverTime"].clone();
    assert!(server_time.as_str().is_some_and(|time| time.ends_with('Z')), "{server_time}");
    let full = json!({
        "saleId": "sneakers",
        "name": "Sneakers",
        "remainingStock": 3,
        "totalSold": 0,
        "saleActive": true,
        "startsAt": PAST,
        "endsAt": FUTURE,
        "status": "ACTIVE",
        "totalStock": 3,
        "reserved": 0,
        "confirmed": 0,
        "paused": false,
        "epoch": 1,
        "serverTime": server_time,
    });
    assert_eq!(made.json(), full);
    bought(&server, "first");
    let listed = server.get("/api/v1/sales").json();
    assert_eq!((&listed[3]["saleId"], &listed[3]["totalSold"]), (&json!("sneakers"), &json!(1)));
    assert_eq!(events(&server, "sneakers")[..2], ["ATTEMPTED", "RESERVED"]);
}

#[test]
fn a_sale_without_an_id_gets_one_of_its_own() {
    let server = Server::demo();
    let mut ids = Vec::new();
    for nameless in [without(sneakers(), "saleId"), with(sneakers(), "saleId", &Value::Null)] {
        let made = server.admin("POST", SALES, &nameless);
        assert_eq!(made.status, 201);
        let id = made.json()["saleId"].as_str().expect("an id").to_owned();
        assert_eq!(made.header("location"), format!("{SALES}/{id}"));
        assert_eq!(server.admin("GET", made.header("location"), &Value::Null).json()["saleId"], id);
        assert_eq!(server.buy(&id, "first").json()["status"], "SUCCESS");
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn an_id_is_given_once() {
    let server = shop();
    bought(&server, "first");
    settle(&server);
    let before = server.state();
    let again = server.admin("POST", SALES, &with(sneakers(), "totalStock", &json!(50)));
    assert_eq!(again.problem(409), "There is already a sale sneakers");
    assert_eq!(server.state(), before);
}

/// Values that no sale has, by their field.
fn invalid_values() -> Vec<(&'static str, Value)> {
    let text = |text: &str| json!(text);
    let mut values: Vec<(&str, Value)> = Vec::new();
    values
        .extend(["", " \u{a0}\u{3000}", "a\nb", "a\0b", "\u{7f}", "\u{9f}"].map(|name| ("name", text(name))));
    values.extend([text(&"x".repeat(201)), text(&"é".repeat(201)), json!(7)].map(|name| ("name", name)));
    let stocks = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(10_000_001),
        json!(4_294_967_297_u64),
        json!("3"),
        json!(1e20),
    ];
    values.extend(stocks.map(|stock| ("totalStock", stock)));
    let times = [
        "",
        "now",
        "tomorrow",
        "2026-02-23",
        "2026-02-23T03:00:00",
        "2026-02-23T25:00:00Z",
        "2026-02-30T03:00:00Z",
        "23 Feb 2026 03:00 UTC",
        "1771815600",
        "99999-01-01T00:00:00Z",
        "-000001-01-01T00:00:00Z",
    ];
    for field in ["startsAt", "endsAt"] {
        values.extend(times.map(|time| (field, text(time))));
        values.push((field, json!(1_771_815_600)));
        values.push((field, json!({ "time": PAST })));
    }
    values
}

#[test]
fn a_sale_with_an_invalid_value_is_not_made_and_the_field_is_named() {
    let server = Server::demo();
    let before = server.state();
    let refused = |body: &Value, field: &str| {
        let told = server.admin("POST", SALES, body).problem(400);
        assert!(told.contains(field), "{body}: {told}");
        assert_eq!(server.state(), before, "{body}");
    };
    for (field, value) in invalid_values() {
        refused(&with(sneakers(), field, &value), field);
    }
    for field in ["name", "totalStock", "startsAt", "endsAt"] {
        refused(&without(sneakers(), field), field);
        refused(&with(sneakers(), field, &Value::Null), field);
    }
    for id in [json!(""), json!("a b"), json!("x".repeat(65)), json!("säle"), json!(7)] {
        refused(&with(sneakers(), "saleId", &id), "saleId");
    }
    for end in [PAST, "2019-12-31T23:59:59.999Z", "2020-01-01T00:00:00+01:00"] {
        refused(&with(sneakers(), "endsAt", &json!(end)), "endsAt must be later than startsAt");
    }
    refused(&with(sneakers(), "price", &json!(1)), "price");
    refused(&with(sneakers(), "paused", &json!(true)), "paused");
}

#[test]
fn values_at_the_bounds_are_taken() {
    let server = Server::demo();
    let name = "é".repeat(200);
    for (index, (field, value, shown)) in [
        ("name", json!(name), json!(name)),
        ("name", json!("x"), json!("x")),
        ("totalStock", json!(1), json!(1)),
        ("totalStock", json!(10_000_000), json!(10_000_000)),
        ("startsAt", json!("2020-01-01T01:00:00.0009+01:00"), json!(PAST)),
        ("startsAt", json!("0000-01-01T00:00:00Z"), json!("0000-01-01T00:00:00.000Z")),
        ("startsAt", json!("2098-12-31T23:59:59.999Z"), json!("2098-12-31T23:59:59.999Z")),
        ("endsAt", json!("9999-12-30T22:00:00Z"), json!("9999-12-30T22:00:00.000Z")),
    ]
    .into_iter()
    .enumerate()
    {
        let sale = with(sneakers(), "saleId", &json!(format!("sale-{index}")));
        let made = server.admin("POST", SALES, &with(sale, field, &value));
        assert_eq!((made.status, &made.json()[field]), (201, &shown), "{made:?}");
    }
    let widest = with(
        with(sneakers(), "saleId", &json!("x".repeat(64))),
        "endsAt",
        &json!("2020-01-01T00:00:00.001Z"),
    );
    assert_eq!(server.admin("POST", SALES, &widest).json()["status"], "ENDED");
}

#[test]
fn a_sale_is_shown_as_everybody_sees_it() {
    let server = shop();
    bought(&server, "first");
    settle(&server);
    let shown = server.admin("GET", &format!("{SALES}/sneakers"), &Value::Null);
    assert_eq!(shown.status, 200);
    let plain = |sale: Value| without(sale, "serverTime");
    assert_eq!(plain(shown.json()), plain(server.status("sneakers")));
    assert_eq!((&shown.json()["totalSold"], &shown.json()["confirmed"]), (&json!(1), &json!(1)));
    let unknown = server.admin("GET", &format!("{SALES}/unknown"), &Value::Null);
    assert_eq!(unknown.problem(404), "There is no sale unknown");
}

#[test]
fn each_change_is_seen_by_the_very_next_request() {
    let server = shop();
    for (field, value, shown) in [
        ("name", json!("Running shoes 👟"), json!("Running shoes 👟")),
        ("totalStock", json!(5), json!(5)),
        ("startsAt", json!("2021-06-01T12:00:00+02:00"), json!("2021-06-01T10:00:00.000Z")),
        ("endsAt", json!("2098-01-01T00:00:00Z"), json!("2098-01-01T00:00:00.000Z")),
        ("paused", json!(true), json!(true)),
        ("paused", json!(false), json!(false)),
    ] {
        let before = server.status("sneakers");
        let changed = change(&server, &json!({ field: value }));
        assert_eq!((changed.status, &changed.json()[field]), (200, &shown));
        let after = server.status("sneakers");
        assert_eq!(after[field], shown);
        // And nothing else has changed, but for what follows from it.
        for other in ["name", "totalStock", "startsAt", "endsAt", "paused", "epoch", "totalSold"] {
            assert!(other == field || after[other] == before[other], "{field} changed {other}");
        }
    }
    let several = json!({ "name": "Boots", "totalStock": 7, "paused": true });
    let changed = change(&server, &several).json();
    assert_eq!(
        (&changed["name"], &changed["remainingStock"], &changed["saleActive"]),
        (&json!("Boots"), &json!(7), &json!(false))
    );
}

#[test]
fn an_invalid_change_changes_nothing_and_names_the_field() {
    let server = shop();
    let before = server.state();
    let mut changes = invalid_values();
    changes.extend([
        ("paused", json!("yes")),
        ("paused", json!(1)),
        ("saleId", json!("other")),
        ("epoch", json!(9)),
        ("endsAt", json!(PAST)),
    ]);
    for (field, value) in changes {
        // What would be right is not done by halves.
        let told = change(&server, &with(json!({ "name": "Boots" }), field, &value)).problem(400);
        assert!(told.contains(field), "{field} {value}: {told}");
        assert_eq!(server.state(), before, "{field} {value}");
    }
    let backwards = change(&server, &json!({ "startsAt": FUTURE }));
    assert_eq!(backwards.problem(400), "endsAt must be later than startsAt");
    let unknown = server.admin("PATCH", &format!("{SALES}/unknown"), &json!({ "name": "Boots" }));
    assert_eq!(unknown.problem(404), "There is no sale unknown");
    assert_eq!(server.state(), before);
}

#[test]
fn the_stock_cannot_go_below_a_unit_that_is_held() {
    let server = shop();
    for user in ["first", "second"] {
        bought(&server, user);
    }
    settle(&server);
    let before = server.state();
    let told = change(&server, &json!({ "totalStock": 1 })).problem(409);
    assert!(told.contains("Unit 2 is held"), "{told}");
    assert_eq!(server.state(), before);

    assert_eq!(change(&server, &json!({ "totalStock": 2 })).json()["remainingStock"], 0);
    assert_eq!(server.buy("sneakers", "third").json()["status"], "SOLD_OUT");
    assert_eq!(change(&server, &json!({ "totalStock": 3 })).json()["remainingStock"], 1);
    bought(&server, "third");
    assert_eq!(server.buy("sneakers", "fourth").json()["status"], "SOLD_OUT");
}

#[test]
fn a_moved_window_opens_and_closes_the_sale_at_once() {
    let server = shop();
    for (window, status) in [
        (json!({ "startsAt": "2098-01-01T00:00:00Z" }), "UPCOMING"),
        (json!({ "startsAt": PAST }), "ACTIVE"),
        (json!({ "endsAt": "2020-01-02T00:00:00Z" }), "ENDED"),
        (json!({ "endsAt": FUTURE }), "ACTIVE"),
    ] {
        assert_eq!(change(&server, &window).json()["status"], status);
        let seen = server.status("sneakers");
        assert_eq!((&seen["status"], &seen["saleActive"]), (&json!(status), &json!(status == "ACTIVE")));
        let reply = server.buy("sneakers", status);
        if status == "ACTIVE" {
            assert_eq!(reply.status, 200);
        } else {
            assert_eq!(reply.problem(400), "Sale is not currently active");
        }
    }
    assert_eq!(server.status("sneakers")["totalSold"], 1);
}

#[test]
fn a_paused_sale_sells_nothing_until_it_goes_on() {
    let server = shop();
    for _ in 0..2 {
        let paused = act(&server, "pause");
        assert_eq!((paused.status, &paused.json()["paused"]), (200, &json!(true)));
        let seen = server.status("sneakers");
        assert_eq!((&seen["saleActive"], &seen["status"]), (&json!(false), &json!("ACTIVE")));
        assert_eq!(server.buy("sneakers", "early").problem(400), "Sale is not currently active");
    }
    for _ in 0..2 {
        let resumed = act(&server, "resume");
        assert_eq!((resumed.status, &resumed.json()["paused"]), (200, &json!(false)));
        assert_eq!(server.status("sneakers")["saleActive"], true);
    }
    bought(&server, "early");
    for what in ["pause", "resume"] {
        let unknown = server.admin("POST", &format!("{SALES}/unknown/{what}"), &Value::Null);
        assert_eq!(unknown.problem(404), "There is no sale unknown");
    }
}

#[test]
fn whoever_holds_a_unit_hears_of_the_order_when_the_sale_is_closed() {
    let server = shop();
    let order = bought(&server, "holder");
    let asks = |when: &str| {
        let holder = server.buy("sneakers", "holder");
        assert_eq!(holder.problem(400), "Sale is not currently active", "{when}");
        assert_eq!(holder.json()["orderId"], order, "{when}");
        let stranger = server.buy("sneakers", "stranger");
        stranger.problem(400);
        assert_eq!(stranger.json().get("orderId"), None, "{when}");
    };
    act(&server, "pause");
    asks("paused");
    act(&server, "resume");
    assert_eq!(server.buy("sneakers", "holder").json()["orderId"], order);
    change(&server, &json!({ "endsAt": "2020-01-02T00:00:00Z" }));
    asks("ended");
}

#[test]
fn a_sale_with_orders_is_not_deleted() {
    let server = shop();
    bought(&server, "first");
    settle(&server);
    let before = server.state();
    delete(&server, "sneakers").problem(409);
    assert_eq!(server.state(), before);
    assert_eq!(server.buy("sneakers", "second").json()["status"], "SUCCESS");
}

#[test]
fn a_deleted_sale_is_gone_and_its_trail_stays() {
    let server = shop();
    let deleted = delete(&server, "sneakers");
    assert_eq!((deleted.status, deleted.text.as_str()), (204, ""));
    for reply in [
        server.get("/api/v1/sale/sneakers/status"),
        server.get("/api/v1/sale/sneakers/user/first"),
        server.buy("sneakers", "first"),
        server.admin("GET", &format!("{SALES}/sneakers"), &Value::Null),
        change(&server, &json!({ "paused": true })),
        act(&server, "pause"),
        reset(&server, "sneakers"),
        delete(&server, "sneakers"),
    ] {
        assert_eq!(reply.problem(404), "There is no sale sneakers");
    }
    assert_eq!(server.get("/api/v1/sales").json().as_array().map(Vec::len), Some(3));
    assert_eq!(events(&server, "sneakers"), ["ADMIN_DELETED"]);
    delete(&server, "unknown").problem(404);
}

#[test]
fn an_id_that_comes_again_lives_in_a_later_epoch() {
    let server = shop();
    let old = bought(&server, "first");
    assert_eq!(reset(&server, "sneakers").status, 200);
    let before = server.status("sneakers")["epoch"].as_u64().expect("a number");
    assert_eq!(delete(&server, "sneakers").status, 204);
    let again = server.admin("POST", SALES, &sneakers());
    assert_eq!(again.status, 201);
    assert!(again.json()["epoch"].as_u64().expect("a number") > before, "{again:?}");
    assert_eq!(again.json()["remainingStock"], 3);
    assert_eq!(server.get("/api/v1/sale/sneakers/user/first").json()["purchased"], false);
    assert_ne!(bought(&server, "first"), old);
}

#[test]
fn a_reset_begins_a_new_epoch_with_all_units_back() {
    let server = shop();
    let old: Vec<_> = ["first", "second", "third"].iter().map(|user| bought(&server, user)).collect();
    assert_eq!(server.buy("sneakers", "late").json()["status"], "SOLD_OUT");
    assert_eq!(reset(&server, "sneakers").status, 200);

    let status = server.status("sneakers");
    assert_eq!(
        (&status["epoch"], &status["remainingStock"], &status["totalSold"], &status["reserved"]),
        (&json!(2), &json!(3), &json!(0), &json!(0))
    );
    let orders = server.admin("GET", &format!("{SALES}/sneakers/orders"), &Value::Null);
    assert_eq!((orders.status, orders.text.as_str()), (200, ""));
    for user in ["first", "second", "third"] {
        let held = server.get(&format!("/api/v1/sale/sneakers/user/{user}")).json();
        assert_eq!((&held["purchased"], &held["orderId"]), (&json!(false), &Value::Null));
    }
    for user in ["late", "first", "second"] {
        assert!(!old.contains(&bought(&server, user)));
    }
    settle(&server);
    let trail = events(&server, "sneakers");
    assert!(trail.contains(&"ADMIN_RESET".to_owned()), "{trail:?}");
    assert_eq!(trail.iter().filter(|event| *event == "RESERVED").count(), 6);
    assert_eq!(server.status("sneakers")["epoch"], 2);
}

#[test]
fn a_reset_that_makes_no_sense_resets_nothing() {
    let server = shop();
    bought(&server, "first");
    settle(&server);
    let before = server.state();
    assert_eq!(reset(&server, "unknown").problem(404), "There is no sale unknown");
    for (body, word) in [
        (json!({}), "saleId"),
        (json!({ "saleId": "" }), "saleId"),
        (json!({ "saleId": null }), "saleId"),
        (json!({ "saleId": 7 }), "saleId"),
        (json!({ "saleId": ["sneakers"] }), "saleId"),
        (json!({ "saleId": "sneakers", "all": true }), "all"),
        (json!(["sneakers"]), "JSON object"),
    ] {
        let told = server.admin("POST", RESET, &body).problem(400);
        assert!(told.contains(word), "{body}: {told}");
    }
    assert_eq!(server.state(), before);
}

// ── What pages show of a sale ────────────────────────────────────────────────────────────────────────────

fn shown(sale: &Value) -> Value {
    json!([sale["description"], sale["imageUrl"], sale["price"], sale["currency"]])
}

#[test]
fn a_sale_shows_text_picture_and_price() {
    let server = Server::demo();
    let product = json!({ "description": "Two\nlines", "imageUrl": "https://cdn.example/a.webp", "price": 129.9, "currency": "EUR" });
    let mut sale = sneakers();
    sale.as_object_mut().expect("an object").extend(product.as_object().expect("an object").clone());
    let made = server.admin("POST", SALES, &sale);
    assert_eq!(made.status, 201, "{made:?}");
    // A number that keeps the decimals of its currency.
    assert!(made.text.contains("\"price\":129.90,"), "{}", made.text);
    assert_eq!(shown(&made.json()), shown(&product));
    assert_eq!(shown(&server.status("sneakers")), shown(&product));
    // What is not named stays; null takes away; a decimal in text is as good as a number.
    let after = change(&server, &json!({ "imageUrl": null, "price": "1500", "currency": "JPY" })).json();
    assert_eq!(shown(&after), json!(["Two\nlines", null, 1500, "JPY"]));
    let after = change(&server, &json!({ "price": null, "description": "One" })).json();
    assert_eq!(shown(&after), json!(["One", null, null, null]));
    assert!(after.get("price").is_none() && after.get("imageUrl").is_none(), "{after}");
}

#[test]
fn what_cannot_be_shown_is_refused_and_nothing_is_changed() {
    let server = shop();
    let before = server.state();
    for (wrong, says) in [
        (json!({ "price": 5 }), "currency"),
        (json!({ "currency": "EUR" }), "price"),
        (json!({ "price": null, "currency": "EUR" }), "price"),
        (json!({ "price": 5, "currency": "euro" }), "currency"),
        (json!({ "price": 5.005, "currency": "EUR" }), "price"),
        (json!({ "price": -5, "currency": "EUR" }), "price"),
        (json!({ "price": [5], "currency": "EUR" }), "price"),
        (json!({ "price": "free", "currency": "EUR" }), "price"),
        (json!({ "imageUrl": "javascript:alert(1)" }), "imageUrl"),
        (json!({ "imageUrl": 5 }), "imageUrl"),
        (json!({ "description": "" }), "description"),
        (json!({ "description": "x".repeat(2_001) }), "description"),
    ] {
        let told = change(&server, &wrong).problem(400);
        assert!(told.contains(says), "{wrong}: {told}");
        let mut sale = with(sneakers(), "saleId", &json!("other"));
        sale.as_object_mut().expect("an object").extend(wrong.as_object().expect("an object").clone());
        let told = server.admin("POST", SALES, &sale).problem(400);
        assert!(told.contains(says), "{wrong}: {told}");
    }
    assert_eq!(server.state(), before);
}

#[test]
fn null_takes_away_only_what_a_sale_can_be_without() {
    let server = shop();
    let before = server.status("sneakers");
    for field in ["name", "totalStock", "startsAt", "endsAt", "paused"] {
        let refused = server.admin("PATCH", &format!("{SALES}/sneakers"), &json!({ (field): null }));
        assert!(refused.problem(400).contains(field), "{refused:?}");
    }
    for stock in [json!(-1), json!(1.5), json!("5"), json!(1e30)] {
        let refused = server.admin("PATCH", &format!("{SALES}/sneakers"), &json!({ "totalStock": stock }));
        assert!(refused.problem(400).contains("must be a whole number from 1 to 10000000"), "{refused:?}");
    }
    assert_eq!(server.status("sneakers")["totalStock"], before["totalStock"]);
}
