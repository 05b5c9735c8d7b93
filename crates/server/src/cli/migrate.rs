//! `flashsale migrate`: brings a store to the form that this version needs.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    config::{Common, Profile, Stand},
    wire,
};

pub(super) async fn run(common: &Common, stand: Stand) -> Result<ExitCode> {
    let place = match stand.profile {
        Profile::Embedded => {
            // Opening it for writing does it.
            wire::embedded(&common.data_dir)?.close().await;
            common.data_dir.display().to_string()
        }
        Profile::Cluster => wire::migrate_cluster(common, &stand.services).await?.to_string(),
    };
    super::say(format_args!("The store in {place} has the form that this version needs."))?;
    Ok(ExitCode::SUCCESS)
}
