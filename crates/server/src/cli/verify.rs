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

/// A promise, checked.
#[derive(Serialize)]
struct Check {
    promise: &'static str,
    what: &'static str,
    figures: String,
    holds: bool,
}

/// A sale, checked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    sale_id: SaleId,
    epoch: u32,
    holds: bool,
    checks: Vec<Check>,
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
    let mut all = Vec::new();
    for sale in sales {
        all.push(check(&*store, sale).await?);
    }
    let holds = all.iter().all(|checked| checked.holds);
    if json {
        say(serde_json::to_string_pretty(&all)?)?;
    } else {
        for checked in &all {
            say(table(checked))?;
        }
        say(if holds { "All promises hold." } else { "A PROMISE IS BROKEN." })?;
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

async fn check(store: &dyn OrderStore, sale_id: SaleId) -> Result<Checked> {
    let figures = store.figures(&sale_id).await?;
    let checks = checks(&figures);
    let holds = checks.iter().all(|check| check.holds);
    Ok(Checked { sale_id, epoch: figures.epoch.0, holds, checks })
}

fn checks(figures: &Figures) -> Vec<Check> {
    let Figures { total_stock, available, reserved, confirmed, released, .. } = *figures;
    let live = reserved + confirmed;
    let check = |promise, what, figures, holds| Check { promise, what, figures, holds };
    let outcomes = figures.attempts_reserved
        + figures.attempts_sold_out
        + figures.attempts_duplicate
        + figures.attempts_not_active;
    vec![
        check("P1", "live orders ≤ stock", format!("{live} ≤ {total_stock}"), live <= total_stock),
        check(
            "P1",
            "no unit sold twice, none outside the stock",
            format!("{} twice, {} outside", figures.units_sold_twice, figures.units_outside_stock),
            figures.units_sold_twice + figures.units_outside_stock == 0,
        ),
        check(
            "P2",
            "no user holds two",
            format!("{} users", figures.users_with_two),
            figures.users_with_two == 0,
        ),
        check(
            "P4",
            "available + reserved + confirmed = total",
            format!("{available} + {reserved} + {confirmed} = {total_stock}"),
            available + live == total_stock,
        ),
        check(
            "P5",
            "nobody was told SOLD_OUT while a unit was free",
            format!("{} of {} were", figures.sold_out_too_early, figures.attempts_sold_out),
            figures.sold_out_too_early == 0,
        ),
        check(
            "P6",
            "every place of the sequence is on record",
            format!(
                "{} records, {} missing, {} unexpected",
                figures.records, figures.records_missing, figures.records_unexpected
            ),
            figures.records_missing + figures.records_unexpected == 0,
        ),
        check(
            "P6",
            "every attempt has its outcome",
            format!(
                "{} attempted = {} reserved + {} sold out + {} duplicate + {} not active",
                figures.attempted,
                figures.attempts_reserved,
                figures.attempts_sold_out,
                figures.attempts_duplicate,
                figures.attempts_not_active
            ),
            figures.attempted == outcomes,
        ),
        check(
            "P6",
            "every order and its reservation are on record",
            format!(
                "{} orders, {} reservations, {} without the other",
                live + released,
                figures.attempts_reserved,
                figures.orders_without_record
            ),
            figures.orders_without_record == 0 && live + released == figures.attempts_reserved,
        ),
        check(
            "P6",
            "every confirmation is on record",
            format!("{} on record, {confirmed} confirmed", figures.audited_confirmed),
            figures.audited_confirmed >= confirmed && figures.audited_confirmed <= confirmed + released,
        ),
        check(
            "P7",
            "no order of another epoch",
            format!("{} orders", figures.orders_of_other_epochs),
            figures.orders_of_other_epochs == 0,
        ),
    ]
}

fn table(checked: &Checked) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
    table.set_header(["", "promise", "figures", ""]);
    for check in &checked.checks {
        table.add_row([
            check.promise,
            check.what,
            &check.figures,
            if check.holds { "✓" } else { "✗ BROKEN" },
        ]);
    }
    format!("Sale {}, epoch {}\n{table}", checked.sale_id, checked.epoch)
}

#[cfg(test)]
mod tests {
    use flashsale_core::ids::Epoch;

    use super::*;

    fn sound() -> Figures {
        Figures {
            epoch: Epoch(1),
            total_stock: 100,
            reserved: 1,
            confirmed: 99,
            released: 0,
            available: 0,
            users_with_two: 0,
            units_sold_twice: 0,
            units_outside_stock: 0,
            orders_of_other_epochs: 0,
            attempted: 10_000,
            attempts_reserved: 100,
            attempts_sold_out: 9_900,
            attempts_duplicate: 0,
            attempts_not_active: 0,
            audited_confirmed: 99,
            orders_without_record: 0,
            records: 10_100,
            records_missing: 0,
            records_unexpected: 0,
            sold_out_too_early: 0,
        }
    }

    #[test]
    fn a_sound_sale_passes() {
        assert!(checks(&sound()).iter().all(|check| check.holds));
    }

    #[test]
    fn each_broken_promise_is_called_by_its_name() {
        type Breaks = fn(&mut Figures);
        let broken: [(&str, Breaks); 11] = [
            ("P1", |figures| figures.confirmed = 100),
            ("P1", |figures| figures.units_sold_twice = 1),
            ("P1", |figures| figures.units_outside_stock = 1),
            ("P2", |figures| figures.users_with_two = 1),
            ("P4", |figures| figures.available = 1),
            ("P5", |figures| figures.sold_out_too_early = 1),
            ("P6", |figures| figures.records_missing = 1),
            ("P6", |figures| figures.records_unexpected = 1),
            ("P6", |figures| figures.orders_without_record = 1),
            ("P6", |figures| figures.audited_confirmed -= 1),
            ("P7", |figures| figures.orders_of_other_epochs = 1),
        ];
        for (promise, breaks) in broken {
            let mut figures = sound();
            breaks(&mut figures);
            let checks = checks(&figures);
            assert!(checks.iter().any(|check| check.promise == promise && !check.holds), "{figures:?}");
        }
    }
}
