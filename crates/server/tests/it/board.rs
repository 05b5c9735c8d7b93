//! What an operator's live page is told: figures of all replicas, the last decisions, and whether the promises hold.

use serde_json::{Value, json};

use crate::{
    console::session,
    events::Events,
    server::{Server, TOKEN},
};

const SALES: &str = "/api/v1/admin/sales";

/// The live stream of a sale, as the console's page opens it.
pub(crate) fn watch(server: &Server, sale: &str) -> Events {
    Events::open_with(
        server,
        &format!("/console/sales/{sale}/events"),
        &[("cookie", &session(server, TOKEN))],
    )
}

/// Reads on to the first event of that name of which that is true.
pub(crate) fn until(events: &mut Events, name: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    // The stream goes on whatever happens, so what never comes is given up.
    for _ in 0..60 {
        let (found, data) = events.next().unwrap_or_else(|| panic!("the stream ended before {what}"));
        if found == name {
            if is_so(&data) {
                return data;
            }
            last = data;
        }
    }
    panic!("it never came: {what}; the last {name} was {last}")
}

fn sell_three(server: &Server) {
    let new = json!({ "saleId": "shoes", "name": "Shoes", "totalStock": 3,
        "startsAt": "2020-01-01T00:00:00.000Z", "endsAt": "2099-01-01T00:00:00.000Z" });
    assert_eq!(server.admin("POST", SALES, &new).status, 201);
}

#[test]
fn the_live_page_hears_of_figures_decisions_and_promises() {
    let server = Server::demo();
    sell_three(&server);
    let mut events = watch(&server, "shoes");
    let (name, first) = events.next().expect("an event");
    assert_eq!(
        (name.as_str(), &first["sale"]["remainingStock"], &first["replicas"]),
        ("live", &json!(3), &json!(1))
    );
    for user in ["ada", "ada", "ben", "cem", "dora"] {
        server.buy("shoes", user);
    }
    let busy = until(&mut events, "live", "attempts are counted", |live| {
        live["samples"].as_array().expect("samples").iter().any(|sample| sample[1].as_u64() > Some(0))
    });
    let samples = busy["samples"].as_array().expect("samples");
    let sample = samples.iter().find(|sample| sample[1].as_u64() > Some(0)).expect("one of them");
    assert_eq!(sample.as_array().map(Vec::len), Some(11), "{sample}");
    let at = |index: usize| sample[index].as_u64().expect("a number");
    assert_eq!(at(1), at(2) + at(3), "attempts are those accepted and rejected: {sample}");
    assert!(at(7) > 0 && at(7) <= at(8) && at(8) <= at(9), "latencies rise: {sample}");
    let done = until(&mut events, "live", "all are confirmed", |live| live["sale"]["confirmed"] == 3);
    assert_eq!(done["sale"]["remainingStock"], 0);
    // Whoever comes later has the history, and the decisions so far, without the attempts that they answer.
    let mut late = watch(&server, "shoes");
    let decisions = until(&mut late, "decisions", "the decisions", |_| true);
    let told: Vec<_> = decisions
        .as_array()
        .expect("decisions")
        .iter()
        .map(|one| (one["userId"].as_str().expect("text"), one["eventType"].as_str().expect("text")))
        .collect();
    assert_eq!(
        told,
        [
            ("dora", "REJECTED_SOLD_OUT"),
            ("cem", "RESERVED"),
            ("ben", "RESERVED"),
            ("ada", "REJECTED_DUPLICATE"),
            ("ada", "RESERVED")
        ]
    );
    assert_eq!((&decisions[1]["unit"], &decisions[0]["unit"]), (&json!(3), &Value::Null));
    let verdict = until(&mut late, "integrity", "the verdict", |_| true);
    assert_eq!(verdict["holds"], true, "{verdict}");
    let promises: Vec<_> =
        verdict["checks"].as_array().expect("checks").iter().map(|one| &one["promise"]).collect();
    for promise in ["P1", "P2", "P4", "P6"] {
        assert!(promises.contains(&&json!(promise)), "{promises:?}");
    }
    server.admin("POST", "/api/v1/admin/reset", &json!({ "saleId": "shoes" }));
    server.admin("DELETE", &format!("{SALES}/shoes"), &Value::Null);
    until(&mut late, "gone", "the sale is gone", |_| true);
    assert!(late.next().is_none(), "then the stream ends");
}

#[test]
fn viewers_are_counted() {
    let server = Server::demo();
    let _viewers: Vec<_> = (0..3).map(|_| Events::open(&server, "/api/v1/sale/sale_1/events")).collect();
    let mut events = watch(&server, "sale_1");
    until(&mut events, "live", "three watch", |live| live["viewers"] == 3);
    let metrics = server.get("/metrics").text;
    assert!(metrics.contains("flashsale_sale_viewers{sale=\"sale_1\"} 3"), "{metrics}");
}

#[test]
fn nobody_watches_without_a_session_and_a_stop_waits_for_no_watcher() {
    let server = Server::start(&["--demo", "--admin-token", TOKEN, "--drain-timeout", "1h"]);
    assert_eq!(server.get("/console/sales/sale_1/events").status, 303);
    let cookie = session(&server, TOKEN);
    let unknown = server.request("GET", "/console/sales/unknown/events", &[("cookie", &cookie)], b"");
    assert_eq!(unknown.status, 404);
    let mut events = watch(&server, "sale_1");
    events.next().expect("an event");
    let (ended, _) = server.terminate();
    assert!(ended.success(), "{ended:?}");
    while events.next().is_some() {}
}
