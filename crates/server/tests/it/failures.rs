//! What goes wrong in a server's life: rivals, a stop under load, a full disk, a crash.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::server::{Ended, Server, flashsale, run};

/// Nothing here takes longer; what does hangs.
const BOUND: Duration = Duration::from_secs(30);

fn tell_at(data_dir: &Path, arguments: &[&str]) -> Ended {
    let mut command = flashsale();
    command.args(arguments).arg("--data-dir").arg(data_dir);
    run(command)
}

/// Makes a sale that is open now and for long.
fn open_sale(server: &Server, id: &str, stock: u32) {
    let body = json!({
        "saleId": id,
        "name": "A large one",
        "totalStock": stock,
        "startsAt": "2020-01-01T00:00:00Z",
        "endsAt": "2099-01-01T00:00:00Z",
    });
    assert_eq!(server.admin("POST", "/api/v1/admin/sales", &body).status, 201);
}

fn ledger(data_dir: &Path) -> Connection {
    Connection::open(data_dir.join("flashsale.db")).expect("there is a ledger")
}

/// The orders of a sale in the ledger: the id and the status for each user.
fn orders(data_dir: &Path, sale: &str) -> BTreeMap<String, (String, String)> {
    let ledger = ledger(data_dir);
    let mut statement =
        ledger.prepare("SELECT user_id, id, status FROM orders WHERE sale_id = ?1").expect("a statement");
    let rows = statement.query_map([sale], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))));
    rows.expect("it can be read").collect::<rusqlite::Result<_>>().expect("rows")
}

/// What buyers were told: the order of each user who got SUCCESS.
type Acknowledged = BTreeMap<String, String>;

/// Asserts that the ledger holds what was acknowledged, nothing else, and all of it confirmed.
fn assert_recorded(data_dir: &Path, sale: &str, acknowledged: &Acknowledged) {
    let confirmed = |id: &String| (id.clone(), "CONFIRMED".to_owned());
    let expected: BTreeMap<_, _> =
        acknowledged.iter().map(|(user, id)| (user.clone(), confirmed(id))).collect();
    assert_eq!(orders(data_dir, sale), expected);
}

/// Asserts that the ledger's log is copied into its file, so that the file alone is all there is.
fn assert_checkpointed(data_dir: &Path) {
    let log = fs::metadata(data_dir.join("flashsale.db-wal")).map_or(0, |log| log.len());
    assert_eq!(log, 0, "bytes of the log are left");
}

fn assert_promises_hold(data_dir: &Path) {
    let verified = tell_at(data_dir, &["verify"]);
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

/// Asks it to stop; it must, soon and in order.
fn assert_stops(mut server: Server) -> Arc<TempDir> {
    server.signal("TERM");
    let status = server.ended_within(BOUND).unwrap_or_else(|| panic!("it goes on:\n{}", server.log()));
    assert!(status.success(), "{status}:\n{}", server.log());
    server.dir.clone()
}

// ── Rivals ───────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_second_server_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let first = Server::demo();
    for arguments in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"]] {
        let second = tell_at(first.data_dir(), arguments);
        assert_eq!(second.code, Some(1), "{second:#?}");
        let folder = first.data_dir().to_str().expect("a plain path");
        for word in ["in use", folder, &first.url] {
            assert!(second.err.contains(word), "{word} is not in {}", second.err);
        }
    }
    assert_eq!(first.buy("sale_1", "user123").json()["status"], "SUCCESS");
    let dir = assert_stops(first);
    // Once it is gone, and even if it was killed, the folder is free.
    Server::on(Server::on(dir, &["--demo"]).kill(), &["--demo"]);
}

#[test]
fn a_port_in_use_is_told_clearly_and_leaves_the_folder_free() {
    let first = Server::demo();
    let address = first.url.trim_start_matches("http://");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let second = tell_at(dir.path(), &["serve", "--listen", address]);
    assert_eq!(second.code, Some(1), "{second:#?}");
    for word in [address, "in use", "--listen"] {
        assert!(second.err.contains(word), "{word} is not in {}", second.err);
    }
    Server::on(Arc::new(dir), &["--demo"]);
    assert_eq!(first.get("/health").status, 200);
}

// ── Stopping ─────────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn purchases_under_way_when_it_is_asked_to_stop_are_answered_and_confirmed() {
    let server = Server::demo();
    // While somebody else writes to the file the ledger cannot commit, so nobody is answered yet.
    let rival = ledger(server.data_dir());
    rival.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let acknowledged: Acknowledged = thread::scope(|scope| {
        let buyers: Vec<_> = (0..20)
            .map(|buyer| {
                let server = &server;
                scope.spawn(move || {
                    let user = format!("user{buyer}");
                    let reply = server.buy("sale_1", &user);
                    assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("SUCCESS")));
                    (user, reply.json()["orderId"].as_str().expect("an id").to_owned())
                })
            })
            .collect();
        server.until("all are decided", |server| server.status("sale_1")["remainingStock"] == 80);
        server.signal("TERM");
        server.until("it is told to stop", |server| server.log().contains("shutting down"));
        assert!(buyers.iter().all(|buyer| !buyer.is_finished()), "none can have been answered");
        rival.execute_batch("ROLLBACK").expect("the lock is given back");
        buyers.into_iter().map(|buyer| buyer.join().expect("an answer")).collect()
    });
    drop(rival);
    let dir = assert_stops(server);
    assert_recorded(dir.path(), "sale_1", &acknowledged);
    assert_checkpointed(dir.path());
}

/// Buys one unit after the other on one connection, until the server is gone.
fn buy_until_the_end(url: &str, buyer: usize, sold: &AtomicUsize) -> Acknowledged {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(BOUND)).build().into();
    let mut acknowledged = Acknowledged::new();
    for attempt in 0.. {
        let user = format!("user{buyer}-{attempt}");
        let body = json!({ "saleId": "large", "userId": user }).to_string();
        let request = http::Request::post(format!("{url}/api/v1/sale/purchase"))
            .header("content-type", "application/json")
            .body(body)
            .expect("a request");
        // Whether a request that meets a closed connection was taken, the ledger will show: it must not be.
        let Ok(mut reply) = agent.run(request) else { break };
        let text = reply.body_mut().read_to_string().expect("a reply that begins is whole");
        if reply.status() == 503 {
            break;
        }
        let body: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(body["status"], "SUCCESS", "{text}");
        acknowledged.insert(user, body["orderId"].as_str().expect("an id").to_owned());
        sold.fetch_add(1, Ordering::Relaxed);
    }
    acknowledged
}

#[test]
fn a_stop_under_load_loses_nothing_and_sells_nothing_unheard() {
    let server = Server::demo();
    open_sale(&server, "large", 1_000_000);
    let (url, sold) = (server.url.clone(), AtomicUsize::new(0));
    let (dir, acknowledged) = thread::scope(|scope| {
        let (url, sold) = (&url, &sold);
        let buyers: Vec<_> =
            (0..8).map(|buyer| scope.spawn(move || buy_until_the_end(url, buyer, sold))).collect();
        server.until("a lot is sold", |_| sold.load(Ordering::Relaxed) >= 500);
        let dir = assert_stops(server);
        let all = buyers.into_iter().flat_map(|buyer| buyer.join().expect("no panic"));
        (dir, all.collect::<Acknowledged>())
    });
    assert!(acknowledged.len() >= 500);
    assert_recorded(dir.path(), "large", &acknowledged);
    assert_checkpointed(dir.path());
    assert_promises_hold(dir.path());
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.url.trim_start_matches("http://")).expect("it listens");
    stream.set_read_timeout(Some(BOUND)).expect("a bound");
    stream
}

/// Reads the head of a reply and its body, which is all that there is without another request.
fn read_reply(stream: &mut TcpStream) -> String {
    let mut reply = Vec::new();
    while !String::from_utf8_lossy(&reply).contains("{\"status\":\"up\"}") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).expect("a reply");
        assert!(count > 0, "it was closed");
        reply.extend_from_slice(&bytes[..count]);
    }
    String::from_utf8(reply).expect("text")
}

/// Whether the other side has closed, with a word or without, but not in a reset of what it owes.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn idle_connections_do_not_hold_up_a_stop() {
    // None of these times may be what ends it.
    let server =
        Server::start(&["--demo", "--header-timeout", "1h", "--body-timeout", "1h", "--drain-timeout", "1h"]);
    let mut used: Vec<_> = (0..3).map(|_| connect(&server)).collect();
    for stream in &mut used {
        stream.write_all(b"GET /health/live HTTP/1.1\r\nhost: shop\r\n\r\n").expect("sent");
        assert!(read_reply(stream).starts_with("HTTP/1.1 200"));
    }
    let mut fresh: Vec<_> = (0..3).map(|_| connect(&server)).collect();
    // The server has taken all of them once it has taken one that came later.
    assert_eq!(server.get("/health/live").status, 200);
    let begun = Instant::now();
    assert_stops(server);
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    for stream in used.iter_mut().chain(&mut fresh) {
        assert!(is_closed(stream));
    }
}

#[test]
fn half_sent_requests_hold_up_a_stop_for_the_drain_timeout_at_most() {
    for half in [
        &b"GET /health/live HTTP/1.1\r\nhost: sh"[..],
        b"POST /api/v1/sale/purchase HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json\r\n\
          content-length: 40\r\n\r\n{\"saleId\":\"sale_1\",",
    ] {
        let server = Server::start(&[
            "--demo",
            "--header-timeout",
            "1h",
            "--body-timeout",
            "1h",
            "--drain-timeout",
            "300ms",
        ]);
        let mut stream = connect(&server);
        stream.write_all(half).expect("sent");
        assert_eq!(server.get("/health/live").status, 200);
        let begun = Instant::now();
        let dir = assert_stops(server);
        assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
        assert!(is_closed(&mut stream));
        assert_recorded(dir.path(), "sale_1", &Acknowledged::new());
    }
}

#[test]
fn an_interrupt_from_the_keyboard_stops_it_as_well() {
    let mut server = Server::demo();
    let order = server.buy("sale_1", "user123").json()["orderId"].as_str().expect("an id").to_owned();
    server.signal("INT");
    assert!(server.ended_within(BOUND).expect("it ends").success());
    assert_recorded(server.data_dir(), "sale_1", &Acknowledged::from([("user123".to_owned(), order)]));
    assert_checkpointed(server.data_dir());
}

// ── A full disk ──────────────────────────────────────────────────────────────────────────────────────────

/// The demonstration, with files that cannot grow beyond so much: to the ledger, a disk that fills up.
fn on_a_small_disk(kibibytes: u32) -> Server {
    let dir = Arc::new(tempfile::tempdir().expect("a temporary folder"));
    let mut command = Command::new("bash");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("FLASHSALE_")) {
        command.env_remove(name);
    }
    // The signal is ignored, so that a write fails as on a full disk instead of ending the process.
    let script = format!("trap '' XFSZ; ulimit -f {kibibytes}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_flashsale"), "serve", "--demo"]);
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
    Server::spawn(command, dir)
}

/// Buys until the disk is full; what was sold until then.
fn buy_until_the_disk_is_full(server: &Server) -> Acknowledged {
    let mut acknowledged = Acknowledged::new();
    loop {
        let user = format!("user{}", acknowledged.len());
        let reply = server.buy("large", &user);
        if reply.status != 200 {
            return acknowledged;
        }
        assert_eq!(reply.json()["status"], "SUCCESS");
        acknowledged.insert(user, reply.json()["orderId"].as_str().expect("an id").to_owned());
        assert!(acknowledged.len() < 10_000, "the disk never fills up");
    }
}

fn assert_sells_nothing(server: &Server, user: &str) {
    let refused = server.buy("large", user);
    assert_eq!((refused.status, refused.header("content-type")), (503, "application/problem+json"));
    assert!(refused.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{refused:?}");
    let problem = refused.json();
    assert_eq!((&problem["statusCode"], &problem["error"]), (&json!(503), &json!("Service Unavailable")));
    let message = problem["message"].as_str().expect("a message");
    assert!(message.contains("selling has stopped"), "{message}");
}

#[test]
fn a_full_disk_stops_selling_loses_nothing_and_the_next_start_sells_on() {
    let server = on_a_small_disk(8 * 1024);
    open_sale(&server, "large", 100_000);
    let acknowledged = buy_until_the_disk_is_full(&server);
    assert!(acknowledged.len() > 50, "only {}", acknowledged.len());

    assert_sells_nothing(&server, "somebody else");
    // Nor does it tell anybody "already purchased" or "sold out" now, or change a sale.
    assert_sells_nothing(&server, "user0");
    let change = server.admin("PATCH", "/api/v1/admin/sales/large", &json!({ "name": "Renamed" }));
    assert_eq!(change.status, 503);
    let health = server.get("/health");
    assert_eq!((health.status, &health.json()["status"]), (503, &json!("down")));
    assert_eq!(health.json()["services"]["database"]["status"], "down");
    let ready = server.get("/health/ready");
    assert_eq!((ready.status, ready.header("content-type")), (503, "application/problem+json"));
    for path in [
        "/health/live",
        "/api/v1/sales",
        "/api/v1/sale/large/status",
        "/api/v1/sale/large/user/user0",
        "/metrics",
        "/",
        "/sales/large",
        "/openapi.json",
    ] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let of_user = server.get("/api/v1/sale/large/user/user0").json();
    assert_eq!(of_user["orderId"].as_str(), acknowledged.get("user0").map(String::as_str));
    assert!(server.log().contains("the ledger cannot be written"), "{}", server.log());

    let server = Server::on(server.kill(), &["--demo"]);
    assert_eq!(server.get("/health/ready").status, 200);
    for (user, order) in &acknowledged {
        let held = server.get(&format!("/api/v1/sale/large/user/{user}")).json();
        assert_eq!(
            (&held["purchased"], held["orderId"].as_str()),
            (&json!(true), Some(order.as_str())),
            "{user}"
        );
    }
    assert_eq!(server.status("large")["totalSold"], acknowledged.len());
    assert_promises_hold(server.data_dir());
    let sold = server.buy("large", "somebody else").json();
    assert_eq!(sold["status"], "SUCCESS");
    let mut acknowledged = acknowledged;
    acknowledged.insert("somebody else".to_owned(), sold["orderId"].as_str().expect("an id").to_owned());
    let dir = assert_stops(server);
    assert_recorded(dir.path(), "large", &acknowledged);
    assert_promises_hold(dir.path());
}

/// Connections that seemed idle were closed, with the request of a purchase unread in them.
#[test]
fn what_was_sent_before_a_stop_is_answered() {
    let server = Server::demo();
    let mut lines: Vec<_> = (0..30).map(|_| server.connect()).collect();
    let mut buffer = [0; 4_096];
    for line in &mut lines {
        line.write_all(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n").expect("it is sent");
        assert!(line.read(&mut buffer).expect("an answer") > 0);
    }
    for (number, line) in lines.iter_mut().enumerate() {
        let body = format!("{{\"saleId\":\"sale_1\",\"userId\":\"user{number:02}\"}}");
        let head = "POST /api/v1/sale/purchase HTTP/1.1\r\nhost: x\r\ncontent-type: application/json";
        let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        line.write_all(request.as_bytes()).expect("it is sent");
    }
    server.signal("TERM");
    for mut line in lines {
        let mut answer = String::new();
        line.read_to_string(&mut answer).expect("an answer, and the end");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"SUCCESS\""), "{answer:?}");
    }
    assert_promises_hold(assert_stops(server).path());
}

#[test]
fn a_server_whose_ledger_has_failed_still_stops_when_asked() {
    // It waited for its order worker, and that one, for ever, for the ledger.
    let server = Server::demo();
    let rival = ledger(server.data_dir());
    let broken = "CREATE TRIGGER broken BEFORE UPDATE OF confirmed ON live_orders BEGIN SELECT RAISE(ABORT, 'broken'); END";
    rival.execute_batch(broken).expect("a trigger");
    let order = server.buy("sale_1", "user123").json()["orderId"].as_str().expect("an id").to_owned();
    server.until("the ledger has failed", |server| server.get("/health").status == 503);
    let reserved = BTreeMap::from([("user123".to_owned(), (order.clone(), "RESERVED".to_owned()))]);
    assert_eq!(orders(server.data_dir(), "sale_1"), reserved);
    let dir = assert_stops(server);

    rival.execute_batch("DROP TRIGGER broken").expect("it can go");
    drop(rival);
    let server = Server::on(dir, &["--demo"]);
    server.until("the order is confirmed", |server| server.status("sale_1")["confirmed"] == 1);
    let dir = assert_stops(server);
    assert_recorded(dir.path(), "sale_1", &Acknowledged::from([("user123".to_owned(), order)]));
    assert_promises_hold(dir.path());
}

// ── Another start ────────────────────────────────────────────────────────────────────────────────────────

#[test]
fn a_restart_keeps_sales_orders_epochs_and_the_token() {
    let server = Server::start(&[]);
    for arguments in [
        &["seed"][..],
        &["reset", "--sale", "sale_1"],
        &["sales", "change", "sale_1", "--name", "Changed", "--stock", "12"],
        &["sales", "pause", "sale_2"],
        &["sales", "delete", "sale_3"],
    ] {
        let done = tell_at(server.data_dir(), arguments);
        assert_eq!(done.code, Some(0), "{done:#?}");
    }
    let order = server.buy("sale_1", "user123").json()["orderId"].clone();
    server.until("it is confirmed", |server| server.status("sale_1")["confirmed"] == 1);
    let token = fs::read_to_string(server.data_dir().join("admin-token")).expect("a token");
    let sales = |server: &Server| {
        let mut sales = server.get("/api/v1/sales").json();
        for sale in sales.as_array_mut().expect("an array") {
            sale.as_object_mut().expect("an object").remove("serverTime");
        }
        sales
    };
    let before = sales(&server);
    assert_eq!((&before[0]["epoch"], &before[0]["totalStock"]), (&json!(2), &json!(12)));
    assert_eq!((&before[1]["paused"], &before[2]), (&json!(true), &Value::Null));

    let ways: [fn(Server) -> Arc<TempDir>; 2] = [assert_stops, Server::kill];
    let mut server = server;
    for end in ways {
        server = Server::on(end(server), &[]);
        assert_eq!(sales(&server), before);
        let again = server.buy("sale_1", "user123").json();
        assert_eq!((&again["status"], &again["orderId"]), (&json!("ALREADY_PURCHASED"), &order));
        let bearer = format!("Bearer {}", token.trim());
        let shown = server.request("GET", "/api/v1/admin/sales/sale_1", &[("authorization", &bearer)], b"");
        assert_eq!(shown.status, 200);
    }
}

#[test]
fn a_crash_right_after_a_success_keeps_it() {
    let mut dir = Server::demo().terminate().1;
    let mut acknowledged = Acknowledged::new();
    for round in 0..5 {
        let server = Server::on(dir, &["--demo"]);
        let user = format!("user{round}");
        let bought = server.buy("sale_1", &user).json();
        dir = server.kill();
        assert_eq!(bought["status"], "SUCCESS");
        acknowledged.insert(user, bought["orderId"].as_str().expect("an id").to_owned());
    }
    let server = Server::on(dir, &["--demo"]);
    server.until("all are confirmed", |server| server.status("sale_1")["confirmed"] == 5);
    let dir = assert_stops(server);
    assert_recorded(dir.path(), "sale_1", &acknowledged);
    assert_promises_hold(dir.path());
}

// ── The log ──────────────────────────────────────────────────────────────────────────────────────────────

fn assert_json_lines(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| {
            let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            for field in ["timestamp", "level", "fields"] {
                assert!(!entry[field].is_null(), "{line}");
            }
            entry
        })
        .collect()
}

#[test]
fn a_log_in_json_can_be_read_line_by_line_to_the_last() {
    let mut server = Server::start(&["--demo", "--log-format", "json", "--log", "debug"]);
    server.buy("sale_1", "a \"quoted\" user \\ 😀");
    server.request("POST", "/api/v1/sale/purchase", &[], b"no JSON");
    server.signal("TERM");
    assert!(server.ended_within(BOUND).expect("it ends").success());
    server.until("its last word is read", |server| server.log().contains("goodbye"));
    let entries = assert_json_lines(&server.log());
    let says = |word: &str| entries.iter().any(|entry| entry["fields"]["message"].to_string().contains(word));
    assert!(says("listening on") && says("shutting down") && says("goodbye"), "{}", server.log());

    // The error that ends it was the one line that no program could read.
    let occupied = Server::demo();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--log-format", "json"];
    let refused = tell_at(occupied.data_dir(), &arguments);
    assert_eq!(refused.code, Some(1));
    let entries = assert_json_lines(&refused.err);
    let last = entries.last().expect("a line");
    assert_eq!(last["level"], "ERROR");
    assert!(last["fields"]["message"].to_string().contains(&occupied.url), "{last}");
}
