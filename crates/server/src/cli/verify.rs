//! `flashsale verify`: counts the store row by row, and checks the promises against the figures.

use std::{process::ExitCode, sync::Arc};

use anyhow::{Result, bail};
use clap::Args;
use flashsale_core::{
    ids::SaleId,
    ports::{Figures, OrderStore},
};
use serde::Serialize;

use super::say;
use crate::{
    config::{Common, Profile, Stand},
    verdict::Verdict,
    wire,
};

/// Which sale.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The sale's id; without it, all sales
    #[arg(long, value_name = "ID")]
    sale: Option<SaleId>,
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stand: Stand,
}

/// A sale, checked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    sale_id: SaleId,
    epoch: u32,
    #[serde(flatten)]
    verdict: Verdict,
}

pub(super) async fn run(common: &Common, Verify { sale, json, stand }: Verify) -> Result<ExitCode> {
    let store = records(common, &stand).await?;
    let sales = match sale {
        Some(sale) => vec![sale],
        None => store.sale_ids().await?,
    };
    if sales.is_empty() {
        bail!("there are no sales in the store");
    }
    let (mut all, mut unread) = (Vec::new(), Vec::new());
    for sale in sales {
        match store.figures(&sale).await {
            Ok(figures) => all.push(Checked::by(sale, &figures)),
            Err(error) => unread.push(format!("Sale {sale} cannot be checked: {error}")),
        }
    }
    let holds = all.iter().all(|checked| checked.verdict.holds);
    if json {
        say(serde_json::to_string_pretty(&all)?)?;
    } else {
        for checked in &all {
            say(table(checked))?;
        }
        match (holds, unread.is_empty()) {
            (true, true) => say("All promises hold.")?,
            (true, false) => {}
            (false, _) => say("A PROMISE IS BROKEN.")?,
        }
    }
    if !unread.is_empty() {
        bail!("{}", unread.join("\n"));
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn records(common: &Common, stand: &Stand) -> Result<Arc<dyn OrderStore>> {
    if stand.profile == Profile::Cluster {
        return wire::cluster_records(common, &stand.services).await;
    }
    if !common.data_dir.join(flashsale_embedded::FILE_NAME).exists() {
        bail!("there is no ledger in {} (is it the right --data-dir?)", common.data_dir.display());
    }
    Ok(wire::embedded_records(&common.data_dir)?)
}

impl Checked {
    fn by(sale_id: SaleId, figures: &Figures) -> Self {
        Self { sale_id, epoch: figures.epoch.0, verdict: Verdict::on(figures) }
    }
}

fn table(checked: &Checked) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["", "promise", "figures", ""]);
    for check in &checked.verdict.checks {
        table.add_row([
            check.promise,
            check.what,
            &check.figures,
            if check.holds { "✓" } else { "✗ BROKEN" },
        ]);
    }
    let note = checked.verdict.note.as_ref().map(|note| format!("\nNote: {note}")).unwrap_or_default();
    format!("Sale {}, epoch {}\n{table}{note}", checked.sale_id, checked.epoch)
}
