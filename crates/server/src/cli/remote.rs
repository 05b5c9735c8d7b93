//! A running server, asked over HTTP.

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result, anyhow};
use flashsale_core::{clock::Timestamp, sale::SaleStatus};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use crate::admission;

/// A server and the tokens for it, to be tried in this order.
pub(super) struct Remote {
    url: String,
    tokens: Vec<String>,
}

/// A sale as the API shows it.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(super) struct SaleBody {
    pub(super) sale_id: String,
    pub(super) name: String,
    pub(super) total_stock: u32,
    pub(super) remaining_stock: u32,
    pub(super) total_sold: u32,
    pub(super) status: String,
    pub(super) sale_active: bool,
    pub(super) paused: bool,
    pub(super) epoch: u32,
    pub(super) starts_at: String,
    pub(super) ends_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
}

impl SaleBody {
    pub(super) fn try_from_status(status: SaleStatus) -> Result<Self> {
        let body = serde_json::to_vec(&crate::http::SaleBody::from(status))?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// What a server says when it does not do what it was asked.
#[derive(Debug)]
struct Refusal {
    status: u16,
    message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (HTTP {})", self.message, self.status)
    }
}

impl std::error::Error for Refusal {}

/// Whether a server refused because something is there already, or is in the way.
pub(super) fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.status == 409)
}

impl Remote {
    /// The server at `url`. A token that is not given is the one in the data folder, or the demo's: a folder
    /// that keeps a token may be served as a demonstration for once.
    pub(super) fn new(url: &str, token: Option<String>, data_dir: &Path) -> Self {
        let kept = || fs::read_to_string(data_dir.join(admission::FILE_NAME)).ok();
        let tokens = match token {
            Some(token) => vec![token],
            None => kept().into_iter().chain([admission::DEMO.to_owned()]).collect(),
        };
        Self { url: url.trim_end_matches('/').to_owned(), tokens }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call("GET", path, None).await
    }

    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> Result<T> {
        self.call("POST", path, Some(body)).await
    }

    pub(super) async fn patch<T: DeserializeOwned>(&self, path: &str, body: Value) -> Result<T> {
        self.call("PATCH", path, Some(body)).await
    }

    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        self.call::<Value>("DELETE", path, None).await.map(drop)
    }

    /// The server's own clock.
    pub(super) async fn now(&self) -> Result<Timestamp> {
        #[derive(Deserialize)]
        struct Health {
            timestamp: Timestamp,
        }
        Ok(self.get::<Health>("/health").await?.timestamp)
    }

    async fn call<T: DeserializeOwned>(&self, method: &str, path: &str, body: Option<Value>) -> Result<T> {
        let url = format!("{}{path}", self.url);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let (mut status, mut text) = (401, String::new());
        for token in &self.tokens {
            let request = http::Request::builder()
                .method(method)
                .uri(&url)
                .header("authorization", format!("Bearer {}", token.trim()))
                .header("content-type", "application/json")
                .body(body.clone())
                .with_context(|| format!("cannot ask {url}"))?;
            let answer = tokio::task::spawn_blocking(move || exchange(request)).await?;
            (status, text) = answer.with_context(|| format!("cannot reach {}", self.url))?;
            if status != 401 {
                break;
            }
        }
        if (200..300).contains(&status) {
            // 204 has no body.
            let text = if text.is_empty() { "null" } else { &text };
            return serde_json::from_str(text)
                .with_context(|| format!("{url} answers something else than expected"));
        }
        let message = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|problem| problem["message"].as_str().map(str::to_owned))
            .unwrap_or_else(|| format!("{url} does not answer as a flashsale server does"));
        let refusal = anyhow!(Refusal { status, message });
        Err(if status == 401 { refusal.context("give the admin token with --admin-token") } else { refusal })
    }
}

fn exchange(request: http::Request<String>) -> Result<(u16, String), ureq::Error> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(std::time::Duration::from_secs(30)))
        .build()
        .into();
    let mut response = agent.run(request)?;
    Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
}
