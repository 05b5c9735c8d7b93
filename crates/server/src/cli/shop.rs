//! The sales that a command works on: through a server where one runs, directly where none does.

use anyhow::{Context, Result, bail};
use clap::Args;
use flashsale_core::{
    product::{Price, ProductChange},
    sale::SaleChange,
    service::SaleRequest,
};
use flashsale_embedded::OpenError;

use super::remote::{Remote, SaleBody};
use crate::{
    config::{Common, Profile, Stand},
    wire::{self, Running},
};

/// Which sales.
#[derive(Args, Debug, Clone)]
pub(crate) struct At {
    /// The server to talk to; without it, the one that runs on the data folder, or the data folder itself
    #[arg(long, env = "FLASHSALE_URL", value_name = "URL", global = true, value_parser = url)]
    pub(super) url: Option<String>,
    /// The server's admin token; without it, the one in the data folder, or the demo's
    #[arg(long, env = "FLASHSALE_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true, global = true)]
    pub(super) admin_token: Option<String>,
}

/// Which sales: of a server, or of a store.
#[derive(Args, Debug, Clone)]
pub(crate) struct Where {
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    stand: Stand,
}

/// A server's address. TLS is a proxy's business, and so is not spoken here.
fn url(text: &str) -> Result<String, String> {
    let wrong = || "write it like http://127.0.0.1:3000".to_owned();
    let parsed: http::Uri = text.parse().map_err(|_| wrong())?;
    if parsed.scheme_str() == Some("http") { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// A way to the sales.
pub(super) enum Shop {
    /// Through a running server.
    Remote(Remote),
    /// On the store itself.
    Local(Box<Running>),
}

impl Shop {
    pub(super) async fn open(common: &Common, place: Where) -> Result<Self> {
        let Where { at, stand } = place;
        if let Some(url) = at.url {
            return Ok(Self::Remote(Remote::new(&url, at.admin_token, &common.data_dir)));
        }
        if stand.profile == Profile::Cluster {
            // As one more replica, beside those that serve.
            let running = wire::api(common, &stand.services).await?;
            running.ready().await?;
            return Ok(Self::Local(Box::new(running)));
        }
        match wire::embedded(&common.data_dir) {
            Ok(running) => Ok(Self::Local(Box::new(running))),
            Err(OpenError::Occupied(occupied)) => match occupied.address.clone() {
                Some(url) => Ok(Self::Remote(Remote::new(&url, at.admin_token, &common.data_dir))),
                None => Err(occupied).context("try again, or say where its server is with --url"),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Lets go of the store, with everything written down.
    pub(super) async fn close(self) {
        if let Self::Local(running) = self {
            running.close().await;
        }
    }

    pub(super) async fn list(&self) -> Result<Vec<SaleBody>> {
        match self {
            Self::Remote(remote) => remote.get("/api/v1/sales").await,
            Self::Local(running) => {
                running.sales.statuses().await?.into_iter().map(SaleBody::try_from_status).collect()
            }
        }
    }

    pub(super) async fn create(&self, request: SaleRequest) -> Result<SaleBody> {
        match self {
            Self::Remote(remote) => {
                let body = serde_json::json!({
                    "saleId": request.sale_id,
                    "name": request.name,
                    "totalStock": request.total_stock,
                    "startsAt": request.starts_at,
                    "endsAt": request.ends_at,
                    "description": request.product.description,
                    "imageUrl": request.product.image_url,
                    "price": request.product.price.map(|price| price.amount()),
                    "currency": request.product.price.as_ref().map(Price::currency),
                });
                remote.post("/api/v1/admin/sales", without_nulls(body)).await
            }
            Self::Local(running) => SaleBody::try_from_status(running.sales.create(request).await?),
        }
    }

    pub(super) async fn change(&self, sale: &str, change: SaleChange) -> Result<SaleBody> {
        match self {
            Self::Remote(remote) => {
                let all = serde_json::json!({
                    "name": change.name,
                    "totalStock": change.total_stock,
                    "startsAt": change.starts_at,
                    "endsAt": change.ends_at,
                    "paused": change.paused,
                });
                let mut body = without_nulls(all);
                // What is to be taken away is said with null.
                let ProductChange { description, image_url, price } = change.product;
                if let Some(description) = description {
                    body["description"] = description.into();
                }
                if let Some(image_url) = image_url {
                    body["imageUrl"] = image_url.into();
                }
                if let Some(price) = price {
                    body["price"] = price.map(|price| price.amount()).into();
                    body["currency"] = price.as_ref().map(Price::currency).into();
                }
                remote.patch(&admin_path(sale)?, body).await
            }
            Self::Local(running) => SaleBody::try_from_status(running.sales.change(sale, change).await?),
        }
    }

    pub(super) async fn delete(&self, sale: &str) -> Result<()> {
        match self {
            Self::Remote(remote) => remote.delete(&admin_path(sale)?).await,
            Self::Local(running) => Ok(running.sales.delete(sale).await?),
        }
    }

    pub(super) async fn reset(&self, sale: &str) -> Result<()> {
        match self {
            Self::Remote(remote) => {
                let body = serde_json::json!({ "saleId": sale });
                remote.post::<serde_json::Value>("/api/v1/admin/reset", body).await.map(drop)
            }
            Self::Local(running) => Ok(running.sales.reset(sale).await.map(drop)?),
        }
    }

    /// Makes the three sales of the demonstration; the ids of those that were made.
    pub(super) async fn seed(&self) -> Result<Vec<String>> {
        match self {
            Self::Remote(remote) => {
                let mut made = Vec::new();
                for request in flashsale_core::service::demonstration(remote.now().await?) {
                    let id = request.sale_id.clone().unwrap_or_default();
                    match self.create(request).await {
                        Ok(_) => made.push(id),
                        Err(error) if super::remote::is_conflict(&error) => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(made)
            }
            Self::Local(running) => {
                Ok(running.sales.seed().await?.into_iter().map(|status| status.sale.id.to_string()).collect())
            }
        }
    }
}

fn admin_path(sale: &str) -> Result<String> {
    // Checked here, so that no id can become another path.
    let id: flashsale_core::ids::SaleId = sale.parse()?;
    Ok(format!("/api/v1/admin/sales/{id}"))
}

fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(fields) => {
            fields.into_iter().filter(|(_, value)| !value.is_null()).collect::<serde_json::Map<_, _>>().into()
        }
        other => other,
    }
}

/// Whether a command that changes nothing was given nothing to change.
pub(super) fn require_change(change: &SaleChange) -> Result<()> {
    if *change == SaleChange::default() {
        bail!(
            "say what to change: --name, --stock, --starts, --ends, --description, --image-url, or --price with --currency"
        );
    }
    Ok(())
}
