//! `flashsale reset`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::shop::{Shop, Where};
use crate::config::Common;

/// Which sale.
#[derive(Args, Debug)]
pub(crate) struct Reset {
    /// The sale's id
    #[arg(long, value_name = "ID")]
    sale: String,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(common: &Common, Reset { sale, place }: Reset) -> Result<ExitCode> {
    let shop = Shop::open(common, place).await?;
    let reset = shop.reset(&sale).await;
    shop.close().await;
    reset?;
    super::say(format_args!("Sale {sale} has been reset."))?;
    Ok(ExitCode::SUCCESS)
}
