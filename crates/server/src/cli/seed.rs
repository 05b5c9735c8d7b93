//! `flashsale seed`.

use std::process::ExitCode;

use anyhow::Result;

use super::shop::{At, Shop};
use crate::config::Common;

pub(super) async fn run(common: &Common, at: At) -> Result<ExitCode> {
    let shop = Shop::open(common, at)?;
    let made = shop.seed().await;
    shop.close().await;
    match made?.as_slice() {
        [] => println!("The three sales were there already."),
        made => println!("Made {}.", made.join(", ")),
    }
    Ok(ExitCode::SUCCESS)
}
