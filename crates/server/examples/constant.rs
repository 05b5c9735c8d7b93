//! N: what the HTTP stack can do at most. It parses the purchase body and answers a constant.
//!
//! `LISTEN=127.0.0.1:3999 cargo run --release --example constant`, then put load on
//! `POST /api/v1/sale/purchase`. The ratios in docs and notes are to this server, in one run.

use std::time::Duration;

use axum::{Json, Router, routing::post};
use flashsale_server::http::listener::{self, Limits};
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Purchase {
    sale_id: String,
    user_id: String,
}

async fn answer(
    Json(Purchase { sale_id, user_id }): Json<Purchase>,
) -> ([(&'static str, &'static str); 1], &'static str) {
    std::hint::black_box((sale_id, user_id));
    (
        [("content-type", "application/json")],
        r#"{"success":false,"status":"SOLD_OUT","message":"Sale is sold out"}"#,
    )
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3999".to_owned()).parse()?;
    let listener = listener::bind(address)?;
    println!("listening on http://{}", listener.local_addr()?);
    let ten = Duration::from_secs(10);
    let limits = Limits { connections: 20_000, header: ten, write: ten, drain: Duration::from_secs(1) };
    let router = Router::new().route("/api/v1/sale/purchase", post(answer));
    listener::serve(listener, router, limits, std::future::pending()).await;
    Ok(())
}
