//! A tiny flash sale server that counts its stock, and can be told to break a promise.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, Notify};

/// What a shop does wrong, or differently.
pub(crate) enum Manner {
    Honest,
    /// Sells one more than there is.
    Oversells,
    /// Says SOLD_OUT to the first attempt, and sells afterwards.
    SoldOutEarly,
    /// Gives every buyer the same order id.
    SameOrder,
    /// Sells to the same user again.
    SellsTwice,
    /// Answers ALREADY_PURCHASED with an order id of its own.
    WrongOrder,
    /// Knows nothing of its buyers when asked.
    Forgets,
    /// Loses a unit from the books with every sale.
    Leaks,
    /// Never answers every n-th attempt.
    HangsEvery(u64),
    /// Holds the reply to the first attempt for so long.
    Stalls(Duration),
    /// Holds all replies until so many attempts are there at once.
    Gathers(Barrier),
    /// Closes the connection after every reply.
    Closes,
    /// Is overloaded.
    Refuses,
    /// Is not open.
    Closed,
    /// Answers what is no decision.
    Babbles,
    /// Asked for its status after an attempt, hangs up at first, then is busy, and then answers.
    Stammers,
    /// Hangs up on whoever asks for its status after an attempt.
    FallsSilent,
    /// Was reset when it is asked for its status after an attempt.
    Resets,
    /// Has another sale than it was asked for.
    Confuses,
    /// Tells everybody to have bought before, each with an order id of their own.
    TellsAllTheyHold,
    /// Once sold out, tells everybody that they hold the first order.
    SharesAnOrder,
    /// Says SOLD_OUT to whoever bought.
    TurnsHoldersAway,
    /// Says that it is not open, though its status says that it is.
    Denies,
    /// Takes so long to say what a user holds.
    LooksUpSlowly(Duration),
}

#[derive(Default)]
pub(crate) struct Books {
    /// Attempts that arrived.
    pub(crate) attempts: u64,
    /// Connections that were accepted.
    pub(crate) connections: u64,
    /// How often its status was asked for after the first attempt.
    pub(crate) asked_after: u64,
    /// Units sold, and the order of each buyer.
    pub(crate) sold: i64,
    pub(crate) orders: HashMap<String, String>,
}

pub(crate) struct Shop {
    pub(crate) url: String,
    stock: i64,
    manner: Manner,
    books: Mutex<Books>,
    /// Told of each attempt.
    came: Notify,
}

impl Shop {
    /// Opens on a free port, with one sale, `sale_1`, of `stock` units.
    pub(crate) async fn open(stock: i64, manner: Manner) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let shop = Arc::new(Self { url, stock, manner, books: Mutex::default(), came: Notify::new() });
        tokio::spawn(accept(listener, Arc::clone(&shop)));
        shop
    }

    pub(crate) fn books<T>(&self, read: impl FnOnce(&mut Books) -> T) -> T {
        read(&mut self.books.lock().expect("no handler panicked"))
    }

    /// Waits until so many attempts have come.
    pub(crate) async fn attempted(&self, count: u64) {
        while self.books(|books| books.attempts) < count {
            self.came.notified().await;
        }
    }

    /// An error hangs up.
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let path = request.uri().path().to_owned();
        if request.method() == Method::POST && path == "/api/v1/sale/purchase" {
            let body = request.into_body().collect().await.expect("a body").to_bytes();
            return Ok(self.purchase(&serde_json::from_slice(&body).expect("JSON")).await);
        }
        let Some(asked) = path.strip_prefix("/api/v1/sale/sale_1/") else {
            return Ok(reply(404, &json!({"statusCode": 404})));
        };
        if asked == "status" {
            return self.asked_for_its_status();
        }
        if let Manner::LooksUpSlowly(time) = self.manner {
            tokio::time::sleep(time).await;
        }
        Ok(match asked.strip_prefix("user/").and_then(|rest| rest.strip_suffix("/purchase")) {
            Some(user) => reply(200, &self.user(&decoded(user))),
            None => reply(404, &json!({"statusCode": 404})),
        })
    }

    fn asked_for_its_status(&self) -> io::Result<Response<Full<Bytes>>> {
        let asked_after = self.books(|books| {
            books.asked_after += u64::from(books.attempts > 0);
            books.asked_after
        });
        match (&self.manner, asked_after) {
            (Manner::Stammers, 1) | (Manner::FallsSilent, 1..) => Err(io::ErrorKind::Other.into()),
            (Manner::Stammers, 2) => Ok(reply(503, &json!({"statusCode": 503}))),
            (Manner::Resets, 1..) => Ok(reply(200, &self.status("sale_1", 2, 0))),
            (Manner::Confuses, _) => Ok(reply(200, &self.status("sale_9", 1, 0))),
            _ => Ok(reply(200, &self.status("sale_1", 1, self.books(|books| books.sold)))),
        }
    }

    fn status(&self, sale: &str, epoch: u64, sold: i64) -> Value {
        let leaked = if matches!(self.manner, Manner::Leaks) { sold } else { 0 };
        json!({
            "saleId": sale, "name": "Test", "remainingStock": (self.stock - sold - leaked).max(0),
            "totalSold": sold, "saleActive": !matches!(self.manner, Manner::Closed), "status": "ACTIVE",
            "totalStock": self.stock, "epoch": epoch,
        })
    }

    fn user(&self, user: &str) -> Value {
        let order = self.books(|books| books.orders.get(user).cloned());
        match order {
            Some(id) if !matches!(self.manner, Manner::Forgets) => {
                json!({"purchased": true, "orderId": id, "status": "CONFIRMED"})
            }
            _ => json!({"purchased": false, "orderId": null, "status": "NOT_PURCHASED"}),
        }
    }

    async fn purchase(&self, body: &Value) -> Response<Full<Bytes>> {
        assert_eq!(body["saleId"], "sale_1");
        let user = body["userId"].as_str().expect("a user id");
        let number = self.books(|books| {
            books.attempts += 1;
            books.attempts
        });
        self.came.notify_one();
        match &self.manner {
            Manner::HangsEvery(n) if number.is_multiple_of(*n) => pending().await,
            Manner::Stalls(time) if number == 1 => tokio::time::sleep(*time).await,
            Manner::Gathers(barrier) => {
                barrier.wait().await;
            }
            Manner::Closed | Manner::Denies => {
                return reply(400, &json!({"statusCode": 400, "message": "Sale is not currently active"}));
            }
            Manner::Babbles => return reply(500, &json!({"message": "oops"})),
            Manner::Refuses => {
                let mut refusal = reply(503, &json!({"statusCode": 503}));
                refusal.headers_mut().insert(RETRY_AFTER, 1.into());
                return refusal;
            }
            _ => {}
        }
        let mut decided = reply(200, &self.decide(user, number));
        if matches!(self.manner, Manner::Closes) {
            decided.headers_mut().insert(CONNECTION, "close".parse().expect("a header"));
        }
        decided
    }

    fn decide(&self, user: &str, number: u64) -> Value {
        let stock = if matches!(self.manner, Manner::Oversells) { self.stock + 1 } else { self.stock };
        self.books(|books| {
            let known = books.orders.get(user).filter(|_| !matches!(self.manner, Manner::SellsTwice));
            let sold_out = json!({"success": false, "status": "SOLD_OUT", "message": "Sale is sold out"});
            let holds = |order: &str| {
                json!({"success": false, "status": "ALREADY_PURCHASED", "message": "m", "orderId": order})
            };
            match &self.manner {
                Manner::TellsAllTheyHold => return holds(&format!("order-{number}")),
                Manner::TurnsHoldersAway if known.is_some() => return sold_out,
                Manner::WrongOrder if known.is_some() => return holds("another"),
                Manner::SharesAnOrder if books.sold >= stock => return holds("order-1"),
                _ => {}
            }
            if let Some(order) = known {
                return holds(order);
            }
            let early = matches!(self.manner, Manner::SoldOutEarly) && number == 1;
            if early || books.sold >= stock {
                return sold_out;
            }
            books.sold += 1;
            let same = matches!(self.manner, Manner::SameOrder);
            let order = if same { "order".to_owned() } else { format!("order-{}", books.sold) };
            books.orders.insert(user.to_owned(), order.clone());
            json!({"success": true, "status": "SUCCESS", "message": "m", "orderId": order})
        })
    }
}

async fn accept(listener: TcpListener, shop: Arc<Shop>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("a live socket");
        shop.books(|books| books.connections += 1);
        let shop = Arc::clone(&shop);
        tokio::spawn(async move {
            let service = service_fn(|request| shop.answer(request));
            // A client that hangs up is no concern of the shop's.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A percent-encoded path segment as text.
fn decoded(segment: &str) -> String {
    let mut parts = segment.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two hex digits"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).expect("UTF-8")
}

fn reply(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status.try_into().expect("a status");
    response
}
