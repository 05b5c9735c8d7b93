//! `flashsale migrate`: opening a store for writing brings it to the present form.

use std::process::ExitCode;

use anyhow::Result;

use crate::{config::Common, wire};

pub(super) async fn run(common: &Common) -> Result<ExitCode> {
    wire::embedded(&common.data_dir)?.close().await;
    super::say(format_args!(
        "The store in {} has the form that this version needs.",
        common.data_dir.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}
