//! The sale service: the words of a request become the terms of the rules, and reach the inventory.
//!
//! Everything that enters from outside (HTTP, command line, pages) enters here, so that every door has the
//! same checks and the same errors.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Timestamp,
    error::Result,
    ids::{Epoch, SaleId, UserId},
    inventory::Decision,
    order::Purchase,
    ports::{Clock, Inventory, OrderIds},
    product::Product,
    sale::{NewSale, SaleChange, SaleStatus, Window},
};

/// What is asked for when a sale is to be made.
#[derive(Clone, Debug)]
pub struct SaleRequest {
    /// Its id; a new one is made when there is none.
    pub sale_id: Option<String>,
    /// What people call it.
    pub name: String,
    /// How many units there are in all.
    pub total_stock: u32,
    /// When it opens.
    pub starts_at: Timestamp,
    /// When it closes.
    pub ends_at: Timestamp,
    /// What pages show of it.
    pub product: Product,
}

/// The one door to the inventory.
#[derive(Clone)]
pub struct SaleService {
    inventory: Arc<dyn Inventory>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn OrderIds>,
}

impl SaleService {
    /// A service on `inventory`.
    pub fn new(inventory: Arc<dyn Inventory>, clock: Arc<dyn Clock>, ids: Arc<dyn OrderIds>) -> Self {
        Self { inventory, clock, ids }
    }

    /// The present moment, as decisions see it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Tries to buy.
    ///
    /// # Errors
    /// An id that is none, an unknown sale, a bound that is reached, a part that is away.
    pub async fn attempt(&self, sale: &str, user: &str) -> Result<Decision> {
        let (sale, user) = (sale.parse()?, user.parse()?);
        self.inventory.attempt(&sale, user).await
    }

    /// What a user holds of a sale.
    ///
    /// # Errors
    /// As [`SaleService::attempt`].
    pub async fn purchase(&self, sale: &str, user: &str) -> Result<Option<Purchase>> {
        let (sale, user): (SaleId, UserId) = (sale.parse()?, user.parse()?);
        self.inventory.purchase(&sale, &user).await
    }

    /// The state of a sale.
    ///
    /// # Errors
    /// As [`SaleService::attempt`].
    pub async fn status(&self, sale: &str) -> Result<SaleStatus> {
        self.inventory.status(&sale.parse()?).await
    }

    /// The state of all sales, in the order in which they were made.
    ///
    /// # Errors
    /// A part that is away.
    pub async fn statuses(&self) -> Result<Vec<SaleStatus>> {
        self.inventory.statuses().await
    }

    /// Makes a sale.
    ///
    /// # Errors
    /// A value that is not allowed, or an id that is taken.
    pub async fn create(&self, request: SaleRequest) -> Result<SaleStatus> {
        let id = match request.sale_id {
            Some(text) => text.parse()?,
            // As unique and as hard to guess as an order's, and a valid sale id.
            None => self.ids.mint(self.clock.now()).to_string().parse()?,
        };
        let window = Window::new(request.starts_at, request.ends_at)?;
        let new = NewSale::new(id, request.name, request.total_stock, window)?;
        self.inventory.create(new.with_product(request.product)?).await
    }

    /// Changes a sale.
    ///
    /// # Errors
    /// An unknown sale, a value that is not allowed, or a stock below a unit that is held.
    pub async fn change(&self, sale: &str, change: SaleChange) -> Result<SaleStatus> {
        self.inventory.change(&sale.parse()?, change).await
    }

    /// Stops a sale for now, or lets it go on.
    ///
    /// # Errors
    /// An unknown sale.
    pub async fn set_paused(&self, sale: &str, paused: bool) -> Result<SaleStatus> {
        self.change(sale, SaleChange { paused: Some(paused), ..SaleChange::default() }).await
    }

    /// Drops a sale's orders and purchasers, restores its stock, raises its epoch.
    ///
    /// # Errors
    /// An unknown sale.
    pub async fn reset(&self, sale: &str) -> Result<SaleStatus> {
        self.inventory.reset(&sale.parse()?, None).await
    }

    /// The same of this epoch only, which whoever asks has seen.
    ///
    /// # Errors
    /// An unknown sale, or one that has come to another epoch meanwhile.
    pub async fn reset_epoch(&self, sale: &str, expected: Epoch) -> Result<SaleStatus> {
        self.inventory.reset(&sale.parse()?, Some(expected)).await
    }

    /// Deletes a sale that has no orders.
    ///
    /// # Errors
    /// An unknown sale, or one that has orders.
    pub async fn delete(&self, sale: &str) -> Result<()> {
        self.inventory.delete(&sale.parse()?).await
    }

    /// Makes the seed's three sales, relative to the present moment; those that exist stay as they are.
    /// Returns the ones that were made.
    ///
    /// # Errors
    /// A part that is away.
    pub async fn seed(&self) -> Result<Vec<SaleStatus>> {
        let mut made = Vec::new();
        for request in demonstration(self.clock.now()) {
            match self.create(request).await {
                Ok(status) => made.push(status),
                Err(crate::Error::SaleExists(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }
}

/// The seed's three sales, as they stand at `now`: one active, one starting in 10 minutes, one that ended an
/// hour ago.
#[must_use]
pub fn demonstration(now: Timestamp) -> Vec<SaleRequest> {
    let minutes = |count: u64| Duration::from_secs(60 * count);
    let sale = |id: &str, name: &str, total_stock, starts_at, ends_at| SaleRequest {
        sale_id: Some(id.to_owned()),
        name: name.to_owned(),
        total_stock,
        starts_at,
        ends_at,
        product: Product::default(),
    };
    let (soon, ended) = (now.after(minutes(10)), now.before(minutes(60)));
    vec![
        sale("sale_1", "Limited Edition Product - Flash Sale", 100, now, now.after(minutes(60))),
        sale("sale_2", "Upcoming Product - Flash Sale", 50, soon, soon.after(minutes(60))),
        sale("sale_3", "Past Product - Flash Sale", 200, ended.before(minutes(60)), ended),
    ]
}
