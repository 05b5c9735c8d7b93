//! `flashsale seed`.

use std::process::ExitCode;

use anyhow::Result;

use super::shop::{Shop, Where};
use crate::config::Common;

pub(super) async fn run(common: &Common, place: Where) -> Result<ExitCode> {
    let shop = Shop::open(common, place).await?;
    let made = shop.seed().await;
    shop.close().await;
    match made?.as_slice() {
        [] => super::say("The three sales were there already.")?,
        made => super::say(format_args!("Made {}.", made.join(", ")))?,
    }
    Ok(ExitCode::SUCCESS)
}
