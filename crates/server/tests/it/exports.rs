//! Orders and the audit trail as an operator takes them away: whole, in order, and readable by machines.

use std::{collections::BTreeSet, thread};

use serde_json::{Value, json};

use crate::server::{Reply, Server, TOKEN};

const PAST: &str = "2020-01-01T00:00:00.000Z";
const FUTURE: &str = "2099-01-01T00:00:00.000Z";
const EXPORTS: [&str; 2] = ["orders", "audit"];
const ORDER_COLUMNS: [&str; 10] = [
    "orderId",
    "saleId",
    "epoch",
    "unit",
    "userId",
    "status",
    "reservedAt",
    "createdAt",
    "confirmedAt",
    "releasedAt",
];
const AUDIT_COLUMNS: [&str; 6] = ["id", "saleId", "userId", "eventType", "metadata", "createdAt"];

fn export(server: &Server, sale: &str, what: &str, accept: Option<&str>) -> Reply {
    let token = format!("Bearer {TOKEN}");
    let mut headers = vec![("authorization", token.as_str())];
    headers.extend(accept.map(|accept| ("accept", accept)));
    server.request("GET", &format!("/api/v1/admin/sales/{sale}/{what}"), &headers, b"")
}

/// The rows of an export as NDJSON.
fn ndjson(server: &Server, sale: &str, what: &str) -> Vec<Value> {
    let reply = export(server, sale, what, None);
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/x-ndjson"), "{reply:?}");
    assert!(reply.text.is_empty() || reply.text.ends_with('\n'), "every line has an end");
    reply.text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
}

/// The header and the rows of an export as CSV.
fn csv(server: &Server, sale: &str, what: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let reply = export(server, sale, what, Some("text/csv"));
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, "text/csv; charset=utf-8; header=present"),
        "{reply:?}"
    );
    let cells = |record: &csv::StringRecord| record.iter().map(str::to_owned).collect();
    let mut reader = csv::Reader::from_reader(reply.text.as_bytes());
    let header = cells(reader.headers().expect("a header"));
    let rows: Vec<_> = reader.records().map(|record| cells(&record.expect("a row"))).collect();
    // No value has a line of its own, so lines are rows.
    assert_eq!(reply.text.matches("\r\n").count(), rows.len() + 1);
    (header, rows)
}

/// A row of NDJSON as CSV has it.
fn flat(row: &Value, columns: &[&str]) -> Vec<String> {
    let cell = |column: &&str| match &row[column] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    columns.iter().map(cell).collect()
}

/// Waits until every order is confirmed, on the disk too: the export may lag behind the status.
fn settle(server: &Server, sale: &str) {
    server.until("all orders are confirmed", |server| {
        server.status(sale)["reserved"] == 0
            && !export(server, sale, "orders", None).text.contains("\"status\":\"RESERVED\"")
    });
}

fn of_type<'a>(events: &'a [Value], event_type: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["eventType"] == event_type).collect()
}

/// Events as numbers: ids rise, and no place of the sequence is left out or comes again.
fn assert_whole(events: &[Value]) {
    let number = |value: &Value| value.as_u64().expect("a number");
    // The first place is the sale's making, which is no event.
    let mut last = (0, 1);
    for event in events {
        let (id, place) = (number(&event["id"]), number(&event["metadata"]["place"]));
        assert!(id > last.0 && (place == last.1 || place == last.1 + 1), "{event} comes after {last:?}");
        last = (id, place);
    }
}

/// Buys as `users`, on one connection, and returns the orders.
fn buy_all(url: &str, sale: &str, users: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("{url}/api/v1/sale/purchase");
    let buy = |user: String| {
        let body = json!({ "saleId": sale, "userId": user }).to_string();
        let request = agent.post(&url).header("content-type", "application/json");
        let text = request.send(body).expect("a reply").body_mut().read_to_string().expect("text");
        let reply: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(reply["status"], "SUCCESS", "{reply}");
        (user, reply["orderId"].as_str().expect("an order").to_owned())
    };
    users.map(buy).collect()
}

#[test]
fn the_format_is_that_of_accept_and_ndjson_otherwise() {
    let server = Server::demo();
    let (csv, ndjson) = ("text/csv; charset=utf-8; header=present", "application/x-ndjson");
    for what in EXPORTS {
        for (accept, content_type, extension) in [
            (None, ndjson, "ndjson"),
            (Some("*/*"), ndjson, "ndjson"),
            (Some("application/*"), ndjson, "ndjson"),
            (Some("application/x-ndjson"), ndjson, "ndjson"),
            (Some("application/ndjson"), ndjson, "ndjson"),
            (Some("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"), ndjson, "ndjson"),
            (Some("text/csv"), csv, "csv"),
            (Some("text/csv; header=present"), csv, "csv"),
            (Some("Text/CSV"), csv, "csv"),
            (Some("text/html, text/csv;q=0.9"), csv, "csv"),
            (Some("text/*"), csv, "csv"),
            (Some("application/x-ndjson;q=0.5, text/csv;q=0.9"), csv, "csv"),
            (Some("text/csv;q=0, */*;q=0.1"), ndjson, "ndjson"),
        ] {
            let reply = export(&server, "sale_1", what, accept);
            assert_eq!((reply.status, reply.header("content-type")), (200, content_type), "{accept:?}");
            let name = format!("attachment; filename=\"sale_1-{what}.{extension}\"");
            assert_eq!(reply.header("content-disposition"), name, "{accept:?}");
            assert_eq!(reply.header("cache-control"), "no-store");
        }
    }
}

#[test]
fn another_format_is_not_to_be_had() {
    let server = Server::demo();
    let before = server.state();
    for what in EXPORTS {
        for accept in [
            "application/json",
            "text/html",
            "image/png, text/plain;q=0.5",
            "csv",
            "text/csvx",
            "text/csv;q=0",
        ] {
            let told = export(&server, "sale_1", what, Some(accept)).problem(406);
            assert!(told.contains("text/csv") && told.contains("application/x-ndjson"), "{told}");
        }
    }
    assert_eq!(server.state(), before);
}

#[test]
fn an_unknown_sale_has_no_export() {
    let server = Server::demo();
    for what in EXPORTS {
        for accept in [None, Some("text/csv")] {
            assert_eq!(export(&server, "unknown", what, accept).problem(404), "There is no sale unknown");
        }
    }
}

#[test]
fn a_sale_without_orders_exports_none() {
    let server = Server::demo();
    assert_eq!(export(&server, "sale_1", "orders", None).text, "");
    let (header, rows) = csv(&server, "sale_1", "orders");
    assert_eq!((header, rows.len()), (ORDER_COLUMNS.map(str::to_owned).to_vec(), 0));
}

#[test]
fn each_order_is_one_row_whatever_its_user_is_called() {
    let server = Server::demo();
    let users =
        ["user123", "a,b;c", "\"quoted\"", "'", "=1+1", "@SUM(A1)", "-2", " padded ", "🛒 é", "\\n", "null"];
    let bought: Vec<_> = users
        .map(|user| {
            (user, server.buy("sale_1", user).json()["orderId"].as_str().expect("an order").to_owned())
        })
        .into();
    settle(&server, "sale_1");

    let rows = ndjson(&server, "sale_1", "orders");
    assert_eq!(rows.len(), users.len());
    for ((row, (user, order)), unit) in rows.iter().zip(&bought).zip(1..) {
        let columns: BTreeSet<_> = row.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(columns, BTreeSet::from(ORDER_COLUMNS));
        assert_eq!(
            (&row["orderId"], &row["userId"], &row["unit"], &row["saleId"], &row["epoch"]),
            (&json!(order), &json!(user), &json!(unit), &json!("sale_1"), &json!(1))
        );
        assert_eq!((&row["status"], &row["releasedAt"]), (&json!("CONFIRMED"), &Value::Null));
        let [reserved, created, confirmed] = ["reservedAt", "createdAt", "confirmedAt"].map(|time| {
            let text = row[time].as_str().expect("a time");
            assert!(text.len() == PAST.len() && text.ends_with('Z'), "{text}");
            text
        });
        assert!(reserved <= created && created <= confirmed, "{row}");
    }
    let (header, cells) = csv(&server, "sale_1", "orders");
    assert_eq!(header, ORDER_COLUMNS);
    assert_eq!(cells, rows.iter().map(|row| flat(row, &ORDER_COLUMNS)).collect::<Vec<_>>());
}

#[test]
fn the_trail_has_two_events_an_attempt_and_one_a_confirmation() {
    let server = Server::demo();
    let one = json!({ "saleId": "one", "name": "One", "totalStock": 1, "startsAt": PAST, "endsAt": FUTURE });
    assert_eq!(server.admin("POST", "/api/v1/admin/sales", &one).status, 201);
    let order = server.buy("one", "a,\"b\"").json()["orderId"].clone();
    settle(&server, "one");
    server.buy("one", "a,\"b\"");
    server.buy("one", "late");
    server.admin("POST", "/api/v1/admin/sales/one/pause", &Value::Null);
    server.buy("one", "later");

    let rows = ndjson(&server, "one", "audit");
    let told = |row: &Value| {
        let text = |field: &str| row[field].as_str().expect("text").to_owned();
        (text("userId"), text("eventType"))
    };
    let expected = [
        ("a,\"b\"", "ATTEMPTED"),
        ("a,\"b\"", "RESERVED"),
        ("a,\"b\"", "CONFIRMED"),
        ("a,\"b\"", "ATTEMPTED"),
        ("a,\"b\"", "REJECTED_DUPLICATE"),
        ("late", "ATTEMPTED"),
        ("late", "REJECTED_SOLD_OUT"),
        ("admin", "ADMIN_CHANGED"),
        ("later", "ATTEMPTED"),
        ("later", "REJECTED_NOT_ACTIVE"),
    ];
    assert_eq!(
        rows.iter().map(told).collect::<Vec<_>>(),
        expected.map(|(u, e)| (u.to_owned(), e.to_owned()))
    );
    assert_whole(&rows);
    for row in &rows {
        let columns: BTreeSet<_> = row.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(columns, BTreeSet::from(AUDIT_COLUMNS));
        assert_eq!((&row["saleId"], &row["metadata"]["epoch"]), (&json!("one"), &json!(1)), "{row}");
    }
    for of_the_order in [&rows[1], &rows[2]] {
        assert_eq!(
            (&of_the_order["metadata"]["orderId"], &of_the_order["metadata"]["unit"]),
            (&order, &json!(1))
        );
    }
    let (header, cells) = csv(&server, "one", "audit");
    assert_eq!(header, AUDIT_COLUMNS);
    assert_eq!(cells, rows.iter().map(|row| flat(row, &AUDIT_COLUMNS)).collect::<Vec<_>>());
}

#[test]
fn every_attempt_that_was_answered_is_in_the_trail() {
    let server = Server::demo();
    // Rejections are answered before their record is on the disk; who asks for the trail must find them.
    for attempt in 0..50 {
        let user = format!("user{attempt}");
        server.buy(["sale_1", "sale_3"][attempt % 2], &user);
        let rows = ndjson(&server, ["sale_1", "sale_3"][attempt % 2], "audit");
        let of_user: Vec<_> = rows.iter().filter(|row| row["userId"] == user).collect();
        assert!(of_user.len() >= 2, "{user} is missing from {} events", rows.len());
    }
}

#[test]
fn more_rows_than_a_page_come_whole_and_once_each() {
    const BUYERS: usize = 8;
    const EACH: usize = 575;
    let server = Server::demo();
    let big =
        json!({ "saleId": "big", "name": "Big", "totalStock": 5_000, "startsAt": PAST, "endsAt": FUTURE });
    assert_eq!(server.admin("POST", "/api/v1/admin/sales", &big).status, 201);
    let url = server.url.as_str();
    let bought: BTreeSet<(String, String)> = thread::scope(|scope| {
        let buyers: Vec<_> = (0..BUYERS)
            .map(|buyer| {
                let users = (0..EACH).map(move |user| format!("user{buyer}-{user}"));
                scope.spawn(move || buy_all(url, "big", users))
            })
            .collect();
        // Meanwhile the trail grows under the reader, who must not notice.
        for sold in [500, 2_000, 3_500] {
            server.until("some are sold", |server| server.status("big")["totalSold"].as_u64() >= Some(sold));
            assert_whole(&ndjson(&server, "big", "audit"));
        }
        buyers.into_iter().flat_map(|buyer| buyer.join().expect("all is bought")).collect()
    });
    settle(&server, "big");
    assert_eq!(bought.len(), BUYERS * EACH);

    let text = |row: &Value, field: &str| row[field].as_str().expect("text").to_owned();
    let orders = ndjson(&server, "big", "orders");
    assert_eq!(orders.len(), BUYERS * EACH);
    let exported: BTreeSet<_> =
        orders.iter().map(|row| (text(row, "userId"), text(row, "orderId"))).collect();
    assert_eq!(exported, bought);
    let units: Vec<_> = orders.iter().map(|row| row["unit"].as_u64().expect("a number")).collect();
    assert_eq!(units, (1..=4_600).collect::<Vec<_>>());

    let trail = ndjson(&server, "big", "audit");
    assert_whole(&trail);
    assert_eq!(trail.len(), 3 * BUYERS * EACH);
    for event_type in ["ATTEMPTED", "RESERVED", "CONFIRMED"] {
        let users: BTreeSet<_> = of_type(&trail, event_type).iter().map(|row| text(row, "userId")).collect();
        assert_eq!(users.len(), BUYERS * EACH, "{event_type}");
    }

    for (what, rows, columns) in
        [("orders", &orders, &ORDER_COLUMNS[..]), ("audit", &trail, &AUDIT_COLUMNS[..])]
    {
        let (header, cells) = csv(&server, "big", what);
        assert_eq!(header, columns);
        assert!(
            cells.iter().eq(rows.iter().map(|row| flat(row, columns)).collect::<Vec<_>>().iter()),
            "{what}"
        );
    }
}

#[test]
fn the_export_of_a_deleted_sale_still_has_its_trail() {
    let server = Server::demo();
    assert_eq!(server.admin("DELETE", "/api/v1/admin/sales/sale_3", &Value::Null).status, 204);
    let rows = ndjson(&server, "sale_3", "audit");
    let types: Vec<_> = rows.iter().map(|row| row["eventType"].as_str().expect("text")).collect();
    assert_eq!(types, ["ADMIN_DELETED"]);
    assert_eq!(export(&server, "sale_3", "orders", None).text, "");
}
