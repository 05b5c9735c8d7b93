//! `flashsale sales …`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use flashsale_core::{
    clock::Timestamp,
    product::{Price, Product, ProductChange},
    sale::SaleChange,
    service::SaleRequest,
};

use super::{
    remote::SaleBody,
    shop::{Shop, Where, require_change},
};
use crate::config::Common;

/// What to do with sales, and where.
#[derive(Args, Debug)]
pub(crate) struct Sales {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    place: Where,
}

/// What pages show of a sale.
#[derive(Args, Debug)]
struct Shown {
    /// What it is, in plain text; in a change, "" takes it away
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Where its picture is: an https URL, or a path of the site; in a change, "" takes it away
    #[arg(long, value_name = "URL")]
    image_url: Option<String>,
    /// What one unit costs, such as 129.00; in a change, "" takes it away
    #[arg(long, value_name = "AMOUNT")]
    price: Option<String>,
    /// The currency of the price, by ISO 4217, such as EUR
    #[arg(long, value_name = "CODE")]
    currency: Option<String>,
}

impl Shown {
    fn change(self) -> Result<ProductChange> {
        let text = |given: Option<String>| given.map(|text| Some(text).filter(|text| !text.is_empty()));
        let price = match (self.price.as_deref(), self.currency.as_deref()) {
            (None, None) => None,
            (Some(""), None) => Some(None),
            (Some(amount), Some(currency)) => Some(Some(Price::new(amount, currency)?)),
            (Some(_), None) => bail!("--price needs its --currency, such as EUR"),
            (None, Some(_)) => bail!("--currency needs its --price, such as 129.00"),
        };
        Ok(ProductChange { description: text(self.description), image_url: text(self.image_url), price })
    }

    fn product(self) -> Result<Product> {
        Ok(self.change()?.applied_to(&Product::default())?)
    }
}

#[derive(Subcommand, Debug)]
enum What {
    /// List all sales
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a sale
    Create {
        /// Its id, of A-Z, a-z, 0-9, _ and -; one is made when there is none
        #[arg(long, value_name = "ID")]
        id: Option<String>,
        /// What people call it
        #[arg(long)]
        name: String,
        /// Units in all
        #[arg(long, value_name = "UNITS")]
        stock: u32,
        /// When it opens, such as 2026-02-23T03:00:00Z
        #[arg(long, value_name = "TIME")]
        starts: Timestamp,
        /// When it closes
        #[arg(long, value_name = "TIME")]
        ends: Timestamp,
        #[command(flatten)]
        shown: Shown,
    },
    /// Change a sale
    Change {
        /// Its id
        #[arg(value_name = "ID")]
        sale: String,
        /// A new name
        #[arg(long)]
        name: Option<String>,
        /// A new total stock, not below a unit that somebody holds
        #[arg(long, value_name = "UNITS")]
        stock: Option<u32>,
        /// A new start
        #[arg(long, value_name = "TIME")]
        starts: Option<Timestamp>,
        /// A new end
        #[arg(long, value_name = "TIME")]
        ends: Option<Timestamp>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Stop a sale for now
    Pause {
        /// Its id
        #[arg(value_name = "ID")]
        sale: String,
    },
    /// Let a paused sale go on
    Resume {
        /// Its id
        #[arg(value_name = "ID")]
        sale: String,
    },
    /// Delete a sale that has no orders
    Delete {
        /// Its id
        #[arg(value_name = "ID")]
        sale: String,
    },
}

pub(super) async fn run(common: &Common, Sales { what, place }: Sales) -> Result<ExitCode> {
    let shop = Shop::open(common, place).await?;
    let done = act(&shop, what).await;
    shop.close().await;
    super::say(done?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Does it, and says what was done.
async fn act(shop: &Shop, what: What) -> Result<String> {
    Ok(match what {
        What::List { json } => {
            let sales = shop.list().await?;
            if json { serde_json::to_string_pretty(&sales)? + "\n" } else { table(&sales) }
        }
        What::Create { id, name, stock, starts, ends, shown } => {
            let request = SaleRequest {
                sale_id: id,
                name,
                total_stock: stock,
                starts_at: starts,
                ends_at: ends,
                product: shown.product()?,
            };
            table(&[shop.create(request).await?])
        }
        What::Change { sale, name, stock, starts, ends, shown } => {
            let change = SaleChange {
                name,
                total_stock: stock,
                starts_at: starts,
                ends_at: ends,
                paused: None,
                product: shown.change()?,
                expected_stock: None,
            };
            require_change(&change)?;
            table(&[shop.change(&sale, change).await?])
        }
        What::Pause { sale } => table(&[shop.change(&sale, paused(true)).await?]),
        What::Resume { sale } => table(&[shop.change(&sale, paused(false)).await?]),
        What::Delete { sale } => {
            shop.delete(&sale).await.with_context(|| format!("{sale} was not deleted"))?;
            format!("Sale {sale} is deleted; its audit trail stays.\n")
        }
    })
}

fn paused(paused: bool) -> SaleChange {
    SaleChange { paused: Some(paused), ..SaleChange::default() }
}

fn table(sales: &[SaleBody]) -> String {
    if sales.is_empty() {
        return "There are no sales yet; make one with flashsale sales create.\n".to_owned();
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["id", "name", "state", "left", "of", "starts", "ends", "epoch"]);
    for sale in sales {
        let state = if sale.paused { format!("{}, paused", sale.status) } else { sale.status.clone() };
        table.add_row([
            sale.sale_id.clone(),
            sale.name.clone(),
            state,
            sale.remaining_stock.to_string(),
            sale.total_stock.to_string(),
            sale.starts_at.clone(),
            sale.ends_at.clone(),
            sale.epoch.to_string(),
        ]);
    }
    format!("{table}\n")
}
