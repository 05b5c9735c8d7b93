//! How many instructions the hot paths take. `scripts/bench-instructions` runs it and compares with `instructions.txt`.
//!
//! A name ends in how often the thing is done in one count. What is counted is what one thread does: that of the bench.
//! Everything before and after (files, sales, purchasers, the client of the HTTP benches) is made by others or outside.
#![expect(missing_docs, reason = "the harness makes public items of the benches")]
#![expect(clippy::disallowed_methods, reason = "the harness ends the process by itself")]

use std::{
    hint::black_box,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use flashsale_core::{
    clock::Timestamp,
    ids::{Epoch, OrderId, Place, SaleId, UserId},
    inventory::{Decision, Inventory},
    order::Reservation,
    product::Product,
    sale::{NewSale, Window},
    service::{SaleRequest, SaleService},
};
use flashsale_server::{
    bench::{self, ByHand, Folder, Order, Shop, SoldOut},
    http::listener::{self, Limits},
};
use gungraun::prelude::*;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: i64 = 1_771_815_600_000;

fn sale() -> SaleId {
    "sale_1".parse().expect("a sale's id")
}

fn users(prefix: &str, count: usize) -> Vec<UserId> {
    (0..count).map(|number| format!("{prefix}-{number:09}").parse().expect("a user's id")).collect()
}

// The rules.

fn inventory(stock: u32, purchasers: usize) -> (Inventory, Vec<UserId>) {
    let at = |seconds: i64| Timestamp::from_millis(NOW + 1_000 * seconds);
    let window = Window::new(at(-60), at(86_400)).expect("it ends later than it starts");
    let new = NewSale::new(sale(), "Sale".to_owned(), stock, window).expect("a sale");
    let mut inventory = Inventory::new(new.open(Epoch(1)), Place(0));
    let held = users("held", purchasers);
    attempt(&mut inventory, &held);
    (inventory, held)
}

fn attempt(inventory: &mut Inventory, users: &[UserId]) {
    for (user, number) in users.iter().zip(1_u128..) {
        let decided =
            inventory.attempt(user, Timestamp::from_millis(NOW), || OrderId(Uuid::from_u128(number)));
        black_box(&decided);
    }
}

fn to_reserve() -> (Inventory, Vec<UserId>) {
    (inventory(10_000, 0).0, users("user", 1_024))
}

fn to_find_sold_out() -> (Inventory, Vec<UserId>) {
    (inventory(1_024, 1_024).0, users("user", 1_024))
}

#[library_benchmark]
#[bench::reserved_x1024(to_reserve())]
#[bench::duplicate_x1024(inventory(10_000, 1_024))]
#[bench::sold_out_x1024(to_find_sold_out())]
fn core_attempt((mut inventory, users): (Inventory, Vec<UserId>)) -> (Inventory, Vec<UserId>) {
    attempt(&mut inventory, &users);
    (inventory, users)
}

// The embedded engine, with its writer.

/// Makes the sale in a new folder.
fn folder(stock: u32) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let shop = Shop::open(folder.path()).expect("a ledger");
        open_sale(shop.sales(), stock).await;
        shop.close().await;
    });
    folder
}

async fn open_sale(sales: &SaleService, stock: u32) {
    let now = sales.now();
    let request = SaleRequest {
        sale_id: Some("sale_1".to_owned()),
        name: "Sale".to_owned(),
        total_stock: stock,
        starts_at: Timestamp::from_millis(now.as_millis() - 60_000),
        ends_at: Timestamp::from_millis(now.as_millis() + 86_400_000),
        product: Product::default(),
    };
    sales.create(request).await.expect("a new sale");
}

struct Engine {
    by_hand: ByHand,
    reserved: Vec<Reservation>,
    users: Vec<UserId>,
    sale: SaleId,
    _folder: TempDir,
}

/// An engine that has sold and recorded some units before, so that nothing happens for the first time.
fn engine(stock: u32, sold: usize, users_next: usize) -> Engine {
    let folder = folder(stock);
    let opened = Folder::open(folder.path()).expect("the folder is free");
    let mut by_hand = ByHand::open(&opened, bench::clock(), bench::ids()).expect("a ledger");
    let mut reserved = by_hand.buy(&sale(), &users("first", sold / 2));
    by_hand.confirm(&reserved);
    reserved = by_hand.buy(&sale(), &users("held", sold - sold / 2));
    Engine { by_hand, reserved, users: users("user", users_next), sale: sale(), _folder: folder }
}

fn engine_with_rejections() -> Engine {
    let engine = engine(64, 64, 1_024);
    engine.by_hand.reject(&engine.sale, &engine.users);
    engine
}

#[library_benchmark]
#[bench::x64(engine(10_000, 512, 64))]
fn embedded_purchase(mut engine: Engine) -> Engine {
    black_box(engine.by_hand.buy(&engine.sale, &engine.users));
    engine
}

#[library_benchmark]
#[bench::x1024(engine(64, 64, 1_024))]
fn embedded_reject(engine: Engine) -> Engine {
    engine.by_hand.reject(&engine.sale, &engine.users);
    engine
}

#[library_benchmark]
#[bench::x1024(engine_with_rejections())]
fn embedded_record_rejections(mut engine: Engine) -> Engine {
    engine.by_hand.record();
    engine
}

#[library_benchmark]
#[bench::x256(engine(10_000, 512, 0))]
fn embedded_confirm(mut engine: Engine) -> Engine {
    engine.by_hand.confirm(&engine.reserved);
    engine
}

// The cluster: what needs no service.

fn order() -> Order {
    Order::new(&sale(), Timestamp::from_millis(NOW), 64)
}

fn message() -> Vec<u8> {
    order().written()
}

#[library_benchmark]
#[bench::x64(order())]
fn cluster_write_message(order: Order) -> (Order, Vec<u8>) {
    let written = black_box(order.written());
    (order, written)
}

#[library_benchmark]
#[bench::x64(message())]
fn cluster_read_message(message: Vec<u8>) -> (usize, Vec<u8>) {
    (black_box(Order::read(&message)), message)
}

struct Latched {
    sold_out: SoldOut,
    users: Vec<UserId>,
    _runtime: Runtime,
    _folder: TempDir,
}

fn latched() -> Latched {
    let (folder, runtime) = (TempDir::new().expect("a folder"), Runtime::new().expect("a runtime"));
    let entered = runtime.enter();
    let sold_out = SoldOut::new(sale(), Timestamp::from_millis(NOW), folder.path(), 1_000);
    drop(entered);
    Latched { sold_out, users: users("user", 1_024), _runtime: runtime, _folder: folder }
}

#[library_benchmark]
#[bench::x1024(latched())]
fn cluster_reject_from_memory(latched: Latched) -> Latched {
    latched.sold_out.reject(&latched.users);
    latched
}

// The server: requests in, replies out, through the real listener and router.

fn bodies() -> Vec<Vec<u8>> {
    let body = |number| format!(r#"{{"saleId":"sale_1","userId":"user-{number:09}"}}"#).into_bytes();
    (0..256).map(body).collect()
}

#[library_benchmark]
#[bench::x256(bodies())]
fn http_parse_body(bodies: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    assert!(bodies.iter().all(|body| bench::parses(black_box(body))), "all are purchases");
    bodies
}

struct Served {
    here: Runtime,
    // Runs what the counted thread does not: the order worker.
    beside: Runtime,
    shop: Option<Shop>,
    counter: Option<Counter>,
    _folder: TempDir,
}

/// Where the client is served.
struct Counter {
    listener: tokio::net::TcpListener,
    go: mpsc::SyncSender<()>,
    done: oneshot::Receiver<()>,
    client: JoinHandle<()>,
}

fn post(user: &str) -> Vec<u8> {
    let body = format!(r#"{{"saleId":"sale_1","userId":"{user}"}}"#);
    let length = body.len();
    format!(
        "POST /api/v1/sale/purchase HTTP/1.1\r\nHost: 127.0.0.1:3000\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:3000\r\n\r\n").into_bytes()
}

/// Sends a request and reads its reply, which has to hold `expected`.
fn exchange(stream: &mut TcpStream, request: &[u8], expected: &str) {
    stream.write_all(request).expect("the server listens");
    let mut reply = Vec::new();
    let mut buffer = [0; 8_192];
    loop {
        let read = stream.read(&mut buffer).expect("the server answers");
        assert!(read > 0, "the server hung up");
        reply.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&reply).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if length.is_some_and(|length| length.parse() == Ok(body.len())) {
            assert!(text.contains(expected), "{text}");
            return;
        }
    }
}

/// A server, and a client that waits for a word and then sends requests, one after the other.
fn served(stock: u32, buyers: usize, requests: Vec<Vec<u8>>, expected: &'static str) -> Served {
    let folder = TempDir::new().expect("a folder");
    let here = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let beside = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let shop = beside.block_on(async {
        let shop = Shop::open(folder.path()).expect("a ledger");
        open_sale(shop.sales(), stock).await;
        for buyer in users("first", buyers) {
            let decision = shop.sales().attempt("sale_1", buyer.as_str()).await;
            assert!(matches!(decision, Ok(Decision::Reserved(_))), "{decision:?}");
        }
        shop
    });
    let listener = here.block_on(async { listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))) });
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (go, gone) = mpsc::sync_channel(1);
    let (finish, done) = oneshot::channel();
    let client = std::thread::spawn(move || {
        gone.recv().expect("somebody serves");
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        for request in &requests {
            exchange(&mut stream, request, expected);
        }
        let _ = finish.send(());
    });
    let counter = Some(Counter { listener, go, done, client });
    Served { here, beside, shop: Some(shop), counter, _folder: folder }
}

fn buyers(prefix: &str, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| post(&format!("{prefix}-{number:09}"))).collect()
}

fn to_reserve_by_http() -> Served {
    served(10_000, 16, buyers("user", 128), "SUCCESS")
}

fn to_reject_by_http() -> Served {
    served(16, 16, buyers("user", 256), "SOLD_OUT")
}

fn to_reject_duplicates_by_http() -> Served {
    served(10_000, 1, vec![post("first-000000000"); 256], "ALREADY_PURCHASED")
}

fn to_read_status_by_http() -> Served {
    served(10_000, 16, vec![get("/api/v1/sale/sale_1/status"); 256], "remainingStock")
}

#[library_benchmark]
#[bench::reserved_x128(args = (to_reserve_by_http()), teardown = close)]
#[bench::sold_out_x256(args = (to_reject_by_http()), teardown = close)]
#[bench::duplicate_x256(args = (to_reject_duplicates_by_http()), teardown = close)]
#[bench::status_x256(args = (to_read_status_by_http()), teardown = close)]
fn http_request(mut served: Served) -> Served {
    let ten = Duration::from_secs(10);
    let limits = Limits { connections: 1_000, header: ten, write: ten, drain: ten };
    let site = served.shop.as_ref().expect("it is open").site.clone();
    let Counter { listener, go, done, client } = served.counter.take().expect("it is served once");
    go.send(()).expect("the client waits");
    let stop = async { done.await.expect("the client got all its replies") };
    served.here.block_on(listener::serve(listener, site, limits, stop));
    client.join().expect("the client got all its replies");
    served
}

fn close(served: Served) {
    let Served { beside, shop, .. } = served;
    beside.block_on(shop.expect("it is open").close());
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [
        core_attempt,
        embedded_purchase,
        embedded_reject,
        embedded_record_rejections,
        embedded_confirm,
        cluster_write_message,
        cluster_read_message,
        cluster_reject_from_memory,
        http_parse_body,
        http_request
    ]
);

main!(library_benchmark_groups = instructions);
