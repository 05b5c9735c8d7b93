//! The hot paths by themselves, for `benches/instructions.rs`.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
pub use flashsale_cluster::bench::{Order, SoldOut};
use flashsale_core::{
    ports::{Clock, OrderIds},
    service::SaleService,
};
pub use flashsale_embedded::{Folder, bench::ByHand};

use crate::{
    admission::{AdminToken, Door},
    ambient::{RandomIds, SystemClock},
    background::Background,
    board::Board,
    http::{App, Embed, Judge, Metrics, Shared, Site, body, purchase::PurchaseRequest},
    live::Hub,
    wire::{self, Running},
};

/// The system's clock, as the program has it.
#[must_use]
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// Ids of orders, as the program makes them.
#[must_use]
pub fn ids() -> Arc<dyn OrderIds> {
    Arc::new(RandomIds)
}

/// Whether the body of a purchase can be read.
#[must_use]
pub fn parses(body: &[u8]) -> bool {
    body::parse::<PurchaseRequest<'_>>(body).is_ok()
}

/// The embedded profile with all that is served, but for its listener and what runs by the clock.
pub struct Shop {
    running: Running,
    /// Everything that can be asked.
    pub site: Site,
}

impl Shop {
    /// Opens it in a data folder.
    ///
    /// # Errors
    /// When the ledger cannot be opened.
    pub fn open(data_dir: &Path) -> Result<Self> {
        let running = wire::embedded(data_dir)?;
        let token = AdminToken::new("bench-admin-token");
        let hub = Hub::new(running.sales.clone(), 1_000);
        let board = Board::new(running.sales.clone(), running.vitals.clone(), hub.clone());
        let app = App::new(Shared {
            sales: running.sales.clone(),
            store: running.store.clone(),
            vitals: running.vitals.clone(),
            door: Door::new(&token),
            admin_token: token,
            operators: running.operators.clone(),
            settings: Vec::new(),
            started: Instant::now(),
            stopping: Arc::default(),
            metrics: Metrics::new(),
            theme: None,
            embed: Embed::new(&[]).map_err(anyhow::Error::msg)?,
            hub,
            board,
            judge: Judge::default(),
            background: Arc::new(Background::start()?),
            body_timeout: Duration::from_secs(10),
        });
        Ok(Self { running, site: Site::new(app, &[]) })
    }

    /// Its sales.
    #[must_use]
    pub fn sales(&self) -> &SaleService {
        &self.running.sales
    }

    /// Closes it.
    pub async fn close(self) {
        drop(self.site);
        self.running.close().await;
    }
}
