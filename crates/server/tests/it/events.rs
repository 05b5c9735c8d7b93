//! Those who watch a sale: they see it change, nobody waits for them, and the server can stop.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::server::Server;

const SALES: &str = "/api/v1/admin/sales";
const FUTURE: &str = "2099-01-01T00:00:00.000Z";

/// A stream of events, read line by line.
pub(crate) struct Events(BufReader<TcpStream>);

impl Events {
    pub(crate) fn open(server: &Server, path: &str) -> Self {
        Self::open_with(server, path, &[])
    }

    pub(crate) fn open_with(server: &Server, path: &str, headers: &[(&str, &str)]) -> Self {
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let address = server.url.trim_start_matches("http://");
        let mut line = TcpStream::connect(address).expect("a connection");
        // Nothing here takes so long, unless it never comes.
        line.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        write!(line, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{more}\r\n")
            .expect("sent");
        let mut reader = BufReader::new(line);
        let head: Vec<String> = (&mut reader)
            .lines()
            .map(|line| line.expect("a line"))
            .take_while(|line| !line.is_empty())
            .collect();
        assert!(head[0].contains(" 200 "), "{head:?}");
        let has = |header: &str| head.iter().any(|line| line.eq_ignore_ascii_case(header));
        assert!(has("content-type: text/event-stream") && has("cache-control: no-store"), "{head:?}");
        Self(reader)
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).expect("the next line comes");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event and its data; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<(String, Value)> {
        let mut name = String::new();
        loop {
            let line = self.line()?;
            if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Some((name, serde_json::from_str(data).expect("JSON")));
            }
        }
    }

    /// Reads on to the first state of which that is true.
    fn until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        loop {
            let (name, data) = self.next().unwrap_or_else(|| panic!("the stream ended before {what}"));
            if name == "sale" && is_so(&data) {
                return data;
            }
        }
    }
}

fn of(sale: &str) -> String {
    format!("/api/v1/sale/{sale}/events")
}

fn make(server: &Server, sale: &str, starts_at: &str, ends_at: &str) {
    let new = json!({ "saleId": sale, "name": sale, "totalStock": 2, "startsAt": starts_at, "endsAt": ends_at,
        "description": "Not in events", "imageUrl": "/not-either.png", "price": 5, "currency": "EUR" });
    assert_eq!(server.admin("POST", SALES, &new).status, 201);
}

#[test]
fn a_viewer_sees_the_state_at_once_and_then_each_change() {
    let server = Server::demo();
    make(&server, "shoes", "2020-01-01T00:00:00.000Z", FUTURE);
    let mut events = Events::open(&server, &of("shoes"));
    let mut first = events.next().expect("an event").1;
    let mut status = server.status("shoes");
    for told in [&mut first, &mut status] {
        let told = told.as_object_mut().expect("an object");
        assert!(told.remove("serverTime").is_some());
        told.remove("description");
        told.remove("imageUrl");
    }
    assert_eq!(first, status, "the state is that of the API, without texts that do not change");
    assert_eq!(first["price"], 5.0);

    server.buy("shoes", "ada");
    let sold =
        events.until("ada's order is confirmed", |sale| sale["confirmed"] == 1 && sale["reserved"] == 0);
    assert_eq!((&sold["totalSold"], &sold["remainingStock"]), (&json!(1), &json!(1)));
    server.buy("shoes", "ben");
    events.until("it is sold out", |sale| sale["remainingStock"] == 0);
    server.admin("POST", &format!("{SALES}/shoes/pause"), &Value::Null);
    events.until("it is paused", |sale| sale["paused"] == true && sale["saleActive"] == false);
    server.admin("POST", "/api/v1/admin/reset", &json!({ "saleId": "shoes" }));
    events.until("it is reset", |sale| sale["epoch"] == 2 && sale["remainingStock"] == 2);
    server.admin("DELETE", &format!("{SALES}/shoes"), &Value::Null);
    let gone = std::iter::from_fn(|| events.next()).find(|(name, _)| name == "gone");
    assert!(gone.is_some() && events.next().is_none(), "a deleted sale is gone, and its stream ends");
}

#[test]
fn browsers_are_told_to_come_again_at_different_times() {
    let server = Server::demo();
    let retry = || {
        let mut events = Events::open(&server, &of("sale_1"));
        std::iter::from_fn(|| events.line()).find(|line| line.starts_with("retry: ")).expect("it is told")
    };
    let waits: std::collections::HashSet<String> = (0..20).map(|_| retry()).collect();
    assert!(waits.len() > 10, "{waits:?}");
    for wait in &waits {
        let ms: u32 = wait["retry: ".len()..].parse().expect("a number");
        assert!((1_000..5_000).contains(&ms), "{wait}");
    }
}

#[test]
fn a_sale_opens_and_closes_before_the_viewers_eyes() {
    let server = Server::demo();
    let now = jiff::Timestamp::now();
    let at = |ms: i64| format!("{:.3}", now + jiff::SignedDuration::from_millis(ms));
    make(&server, "soon", &at(1_500), &at(3_000));
    let mut events = Events::open(&server, &of("soon"));
    assert_eq!(events.next().expect("an event").1["status"], "UPCOMING");
    let open = events.until("it is open", |sale| sale["status"] == "ACTIVE");
    assert!(open["serverTime"].as_str() >= open["startsAt"].as_str(), "{open}");
    let over = events.until("it is over", |sale| sale["status"] == "ENDED");
    assert!(over["serverTime"].as_str() >= over["endsAt"].as_str(), "{over}");
}

#[test]
fn all_sales_are_watched_in_one_stream() {
    let server = Server::demo();
    let mut events = Events::open(&server, "/api/v1/events");
    let mut ids: Vec<Value> = (0..3).map(|_| events.next().expect("an event").1["saleId"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    assert_eq!(ids, ["sale_1", "sale_2", "sale_3"]);
    server.buy("sale_1", "ada");
    events.until("ada has bought", |sale| sale["saleId"] == "sale_1" && sale["totalSold"] == 1);
    make(&server, "late", "2020-01-01T00:00:00.000Z", FUTURE);
    events.until("a new sale appears", |sale| sale["saleId"] == "late");
    server.admin("DELETE", &format!("{SALES}/late"), &Value::Null);
    let gone = std::iter::from_fn(|| events.next()).find(|(name, _)| name == "gone");
    assert_eq!(gone.expect("it is gone").1, json!({ "saleId": "late" }));
}

#[test]
fn who_asks_for_what_is_not_there_or_too_much_is_told_so() {
    let server = Server::start(&["--demo", "--max-viewers", "2"]);
    assert!(server.get(&of("unknown")).problem(404).contains("unknown"));
    assert!(server.get(&of("a%20b")).problem(400).contains("saleId"));
    let first = Events::open(&server, &of("sale_1"));
    let _second = Events::open(&server, "/api/v1/events");
    for path in [of("sale_1"), "/api/v1/events".to_owned()] {
        let full = server.get(&path);
        assert!(full.problem(503).contains("as many watch already as may (2)"));
        assert_eq!(full.header("retry-after"), "5");
    }
    // Whoever leaves makes room.
    drop(first);
    server.until("there is room again", |server| {
        let address = server.url.trim_start_matches("http://");
        let mut line = TcpStream::connect(address).expect("a connection");
        write!(line, "GET {} HTTP/1.1\r\nhost: {address}\r\n\r\n", of("sale_1")).expect("sent");
        let mut status = String::new();
        BufReader::new(line).read_line(&mut status).expect("a reply");
        status.contains(" 200 ")
    });
}

/// Of a stream on which nothing is ever sent again.
#[test]
fn whoever_leaves_a_stream_without_news_makes_room() {
    let server = Server::start(&["--max-viewers", "1"]);
    for _ in 0..3 {
        let mut line = server.connect();
        write!(line, "GET /api/v1/events HTTP/1.1\r\nhost: flashsale\r\n\r\n").expect("sent");
        let mut status = String::new();
        BufReader::new(&line).read_line(&mut status).expect("a reply");
        assert!(status.contains(" 200 "), "{status}");
        drop(line);
        server
            .until("there is room", |server| server.get("/metrics").text.contains("\nflashsale_viewers 0\n"));
    }
}

#[test]
fn a_stop_ends_all_streams_and_waits_for_none() {
    let server = Server::start(&["--demo", "--drain-timeout", "1h"]);
    let mut watching: Vec<Events> = (0..20).map(|_| Events::open(&server, &of("sale_1"))).collect();
    watching.push(Events::open(&server, "/api/v1/events"));
    for events in &mut watching {
        events.next().expect("an event");
    }
    let (ended, _) = server.terminate();
    assert!(ended.success(), "{ended:?}");
    for mut events in watching {
        while events.next().is_some() {}
    }
}
