//! P1 to P5, request by request: what a crowd was told, at once and with answers lost on the way, fits into the sequence of
//! a shop that serves one buyer after the other.

use std::{
    io::{Read, Write},
    net::Shutdown,
    thread,
};

use flashsale_loadtest::history::{Figures, History, Losses, Recorder, Records, Told};
use serde_json::{Value, json};

use crate::server::Server;

const CLIENTS: u64 = 8;
/// Requests of each client.
const REQUESTS: u64 = 150;

/// Rolled dice, so that a client does the same in every run.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    move |sides| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % sides
    }
}

/// Buys of the sale at all servers at once, and looks meanwhile; everything is written down.
pub(crate) fn crowd(servers: &[Server], sale: &str, recorder: &Recorder, seed: u64) {
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut dice = dice(seed * CLIENTS + client);
                for _ in 0..REQUESTS {
                    let server = &servers[usize::try_from(dice(servers.len() as u64)).expect("small")];
                    let user = format!("user-{}", dice(CLIENTS * REQUESTS / 2));
                    match dice(12) {
                        0 => figures(server, sale, recorder),
                        1 => look(server, sale, &user, recorder),
                        2 => buy_and_hang_up(server, sale, &user, recorder),
                        _ => buy(server, sale, &user, recorder),
                    }
                }
            });
        }
    });
}

fn buy(server: &Server, sale: &str, user: &str, recorder: &Recorder) {
    let asked = recorder.ask(user);
    let reply = server.buy(sale, user);
    let told =
        Told::by_purchase(reply.status, !reply.header("retry-after").is_empty(), reply.text.as_bytes());
    asked.told(told.clone());
    assert_ne!(told, Told::Nothing, "{reply:?}");
}

/// The answer is lost: it may have bought, now or in a while. The server has noticed when this returns.
fn buy_and_hang_up(server: &Server, sale: &str, user: &str, recorder: &Recorder) {
    let _asked = recorder.ask(user);
    let body = json!({ "saleId": sale, "userId": user }).to_string();
    let head = "POST /api/v1/sale/purchase HTTP/1.1\r\nhost: shop\r\ncontent-type: application/json";
    let mut stream = server.connect();
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("half of it closes");
    // Whether there is an answer or not: nobody looks at it.
    let _ = stream.read_to_end(&mut Vec::new());
}

fn look(server: &Server, sale: &str, user: &str, recorder: &Recorder) {
    let asked = recorder.look(user);
    let reply = server.get(&format!("/api/v1/sale/{sale}/user/{user}/purchase")).json();
    asked.told(match reply["orderId"].as_str() {
        Some(order) => Told::Holds { order: order.to_owned() },
        None => Told::HoldsNothing,
    });
}

fn figures(server: &Server, sale: &str, recorder: &Recorder) {
    let asked = recorder.look("");
    let status = server.get(&format!("/api/v1/sale/{sale}/status"));
    asked.told(Told::Figures(Figures::read(status.text.as_bytes()).expect("a status")));
}

/// What the server has on record, when nothing is under way any more.
pub(crate) fn records(server: &Server, sale: &str) -> Records {
    server.until("every reservation is confirmed", |server| server.status(sale)["reserved"] == 0);
    let export =
        |what: &str| server.admin("GET", &format!("/api/v1/admin/sales/{sale}/{what}"), &Value::Null).text;
    let status = server.get(&format!("/api/v1/sale/{sale}/status"));
    let mut records =
        Records { figures: Some(Figures::read(status.text.as_bytes()).expect("a status")), orders: None };
    records.read_orders(&export("orders")).expect("orders");
    records.read_places(&export("audit")).expect("a trail");
    records
}

/// Sells sales of several sizes to a crowd: some sell out in the middle, one never.
pub(crate) fn sell_and_judge(servers: &[Server]) {
    for (seed, stock) in [1, 40, 250, 10_000].into_iter().enumerate() {
        let sale = format!("history-{stock}");
        let new = json!({
            "saleId": sale, "name": "History", "totalStock": stock,
            "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2099-01-01T00:00:00Z",
        });
        assert_eq!(servers[0].admin("POST", "/api/v1/admin/sales", &new).status, 201);
        let recorder = Recorder::default();
        crowd(servers, &sale, &recorder, seed as u64);
        // Behind whatever those who hung up have left under way.
        servers.iter().for_each(|server| buy(server, &sale, "the-last-one", &recorder));
        let records = records(&servers[0], &sale);
        let sold_out = records.orders.as_ref().map_or(0, Vec::len) as u64 == stock;
        assert_eq!(sold_out, stock < 10_000, "the crowd is of another size than it should be");
        let history = History { stock, calls: recorder.calls(), records, losses: Losses::None };
        let verdict = history.judge();
        assert!(verdict.passed, "seed {seed}, stock {stock}: {verdict:#?}");
    }
}

#[test]
fn what_a_crowd_was_told_fits_into_one_sequence() {
    sell_and_judge(&[Server::demo()]);
}
