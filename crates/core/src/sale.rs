//! A sale: a named stock with a time window.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    clock::Timestamp,
    error::{Error, Invalid},
    ids::{Epoch, SaleId},
    product::{Price, Product, ProductChange},
};

/// The largest stock of a sale, in units.
pub const TOTAL_STOCK_MAX: u32 = 10_000_000;
/// The longest name of a sale, in characters.
pub const NAME_MAX: usize = 200;

/// A named stock with a time window, as the shop set it up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sale {
    /// Its id.
    pub id: SaleId,
    /// What people call it.
    pub name: String,
    /// How many units there are in all.
    pub total_stock: u32,
    /// When it is open.
    pub window: Window,
    /// Which of its lives this is.
    pub epoch: Epoch,
    /// Whether the shop has stopped it for now.
    pub paused: bool,
    /// What is sold, as pages show it. Shared, since a sale is copied for each look at it.
    pub product: Arc<Product>,
}

impl Sale {
    /// Whether a purchase may be tried at `now`.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        !self.paused && self.window.phase(now) == Phase::Active
    }

    /// Whether the sale is still as whoever changes it has seen it.
    ///
    /// # Errors
    /// The stock has changed meanwhile.
    pub fn check_expected(&self, change: &SaleChange) -> Result<(), Error> {
        match change.expected_stock {
            Some(expected) if expected != self.total_stock => Err(Error::Conflict(format!(
                "Nothing was changed: the stock has become {} meanwhile",
                self.total_stock
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the sale is still of the epoch that whoever resets it has seen.
    ///
    /// # Errors
    /// It has come to another epoch meanwhile.
    pub fn check_epoch(&self, expected: Option<Epoch>) -> Result<(), Error> {
        match expected {
            Some(expected) if expected != self.epoch => Err(Error::Conflict(format!(
                "Nothing was reset: the sale has come to epoch {} meanwhile",
                self.epoch
            ))),
            _ => Ok(()),
        }
    }

    /// The set-up, as the trail keeps it with each change.
    #[must_use]
    pub fn set_up(&self) -> SetUp<'_> {
        let Product { description, image_url, price } = &*self.product;
        SetUp {
            name: &self.name,
            total_stock: self.total_stock,
            starts_at: self.window.starts_at,
            ends_at: self.window.ends_at,
            paused: self.paused,
            description: description.as_deref(),
            image_url: image_url.as_deref(),
            price: price.map(|price| price.amount()),
            currency: price.as_ref().map(Price::currency),
        }
    }

    /// The sale as `change` would make it, with the same epoch.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn changed(&self, change: &SaleChange) -> Result<Self, Invalid> {
        Ok(Self {
            id: self.id.clone(),
            name: change.name.clone().map_or_else(|| Ok(self.name.clone()), valid_name)?,
            total_stock: change.total_stock.map_or(Ok(self.total_stock), valid_stock)?,
            window: Window::new(
                change.starts_at.unwrap_or(self.window.starts_at),
                change.ends_at.unwrap_or(self.window.ends_at),
            )?,
            epoch: self.epoch,
            paused: change.paused.unwrap_or(self.paused),
            product: if change.product == ProductChange::default() {
                self.product.clone()
            } else {
                Arc::new(change.product.applied_to(&self.product)?)
            },
        })
    }
}

/// What a sale is set up as, for the trail; in the words of the API.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct SetUp<'a> {
    name: &'a str,
    total_stock: u32,
    starts_at: Timestamp,
    ends_at: Timestamp,
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
}

/// When a sale is open: from its start, inclusive, to its end, exclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    starts_at: Timestamp,
    ends_at: Timestamp,
}

impl Window {
    /// The window from `starts_at` to `ends_at`.
    ///
    /// # Errors
    /// When it does not end after it starts.
    pub fn new(starts_at: Timestamp, ends_at: Timestamp) -> Result<Self, Invalid> {
        if starts_at < ends_at {
            Ok(Self { starts_at, ends_at })
        } else {
            Err(Invalid::new("endsAt", "must be later than startsAt"))
        }
    }

    /// Its first moment.
    #[must_use]
    pub fn starts_at(self) -> Timestamp {
        self.starts_at
    }

    /// The first moment after it.
    #[must_use]
    pub fn ends_at(self) -> Timestamp {
        self.ends_at
    }

    /// Where `now` lies.
    #[must_use]
    pub fn phase(self, now: Timestamp) -> Phase {
        if now < self.starts_at {
            Phase::Upcoming
        } else if now < self.ends_at {
            Phase::Active
        } else {
            Phase::Ended
        }
    }
}

/// Where a moment lies in relation to a sale's window. A pause does not change it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Before the start.
    Upcoming,
    /// Inside the window.
    Active,
    /// At the end or later.
    Ended,
}

/// What it takes to make a sale. Valid once made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewSale {
    id: SaleId,
    name: String,
    total_stock: u32,
    window: Window,
    product: Product,
}

impl NewSale {
    /// A sale of `total_stock` units, not yet opened for business, of which nothing is shown but its name.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn new(id: SaleId, name: String, total_stock: u32, window: Window) -> Result<Self, Invalid> {
        let (name, total_stock) = (valid_name(name)?, valid_stock(total_stock)?);
        Ok(Self { id, name, total_stock, window, product: Product::default() })
    }

    /// The same, with what pages show of it.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn with_product(self, product: Product) -> Result<Self, Invalid> {
        Ok(Self { product: product.checked()?, ..self })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &SaleId {
        &self.id
    }

    /// The sale, at the start of the life `epoch`.
    #[must_use]
    pub fn open(self, epoch: Epoch) -> Sale {
        let Self { id, name, total_stock, window, product } = self;
        Sale { id, name, total_stock, window, epoch, paused: false, product: Arc::new(product) }
    }
}

/// What to change of a sale; `None` leaves a value as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SaleChange {
    /// A new name.
    pub name: Option<String>,
    /// A new total stock, in units.
    pub total_stock: Option<u32>,
    /// A new start.
    pub starts_at: Option<Timestamp>,
    /// A new end.
    pub ends_at: Option<Timestamp>,
    /// Stop it for now, or let it go on.
    pub paused: Option<bool>,
    /// What to change of what pages show.
    pub product: ProductChange,
    /// Only while this is the total stock.
    pub expected_stock: Option<u32>,
}

fn valid_name(name: String) -> Result<String, Invalid> {
    let complaint = if name.trim().is_empty() {
        "must not be empty"
    } else if name.chars().count() > NAME_MAX {
        "must be at most 200 characters long"
    } else if name.chars().any(char::is_control) {
        "must not contain control characters"
    } else {
        return Ok(name);
    };
    Err(Invalid::new("name", complaint))
}

fn valid_stock(total_stock: u32) -> Result<u32, Invalid> {
    if (1..=TOTAL_STOCK_MAX).contains(&total_stock) {
        Ok(total_stock)
    } else {
        Err(Invalid::new("totalStock", format!("must be a whole number from 1 to {TOTAL_STOCK_MAX}")))
    }
}

/// What is known of a sale at one instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaleStatus {
    /// The sale as it is set up.
    pub sale: Sale,
    /// Units reserved, whose orders are not yet confirmed.
    pub reserved: u32,
    /// Units whose orders are confirmed.
    pub confirmed: u32,
    /// The moment of this status.
    pub now: Timestamp,
}

impl SaleStatus {
    /// Units that can still be had.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.sale.total_stock - self.sold()
    }

    /// Units that are taken.
    #[must_use]
    pub fn sold(&self) -> u32 {
        self.reserved + self.confirmed
    }

    /// Where the moment of this status lies in the sale's window.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.sale.window.phase(self.now)
    }
}
