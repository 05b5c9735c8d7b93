//! `flashsale stress`: puts a sale under load, and says whether the promises held.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use flashsale_core::ids::SaleId;
use flashsale_embedded::Folder;
use flashsale_loadtest::{Load, Options};
use rand::Rng;

use crate::config::{self, Common};

/// Where a server is that nothing says anything of.
const URL: &str = "http://127.0.0.1:3000";
/// What `--rate` is when neither it nor `--connections` is given.
const RATE: f64 = 2_000.0;

/// How much load, and where.
#[derive(Args, Debug)]
pub(crate) struct Stress {
    /// The server; by default the one that works on the data folder, or else http://127.0.0.1:3000
    #[arg(long, env = "FLASHSALE_URL", value_name = "URL")]
    url: Option<String>,
    /// The sale's id
    #[arg(long, value_name = "ID", default_value = "sale_1")]
    sale: SaleId,
    /// Attempts a second, however slow the server is (open loop): latency counts from when each attempt
    /// was due, so that a stall cannot hide [default: 2000]
    #[arg(long, value_name = "PER SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// How long
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = config::time)]
    duration: Duration,
    /// Without --rate: this many connections, each sending its next attempt when it has its reply (closed
    /// loop, for saturation). With --rate: the most connections that are opened
    #[arg(long, value_name = "COUNT")]
    connections: Option<usize>,
    /// Draw from this many users, so that some try again; otherwise each attempt is of a new user
    #[arg(long, value_name = "COUNT")]
    users: Option<u64>,
    /// How the names of the users begin; random by default, so that each run has users of its own
    #[arg(long, value_name = "TEXT")]
    user_prefix: Option<String>,
    /// How long to wait for a reply
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = config::time)]
    timeout: Duration,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1_000_000.0 => Ok(rate),
        _ => Err("it must be a number above 0, up to 1000000".to_owned()),
    }
}

pub(super) async fn run(common: &Common, mut stress: Stress) -> Result<ExitCode> {
    let json = stress.json;
    let url = stress.url.take().or_else(|| Folder::served(&common.data_dir));
    let report = flashsale_loadtest::run(stress.into_options(url.unwrap_or_else(|| URL.to_owned()))).await?;
    if json {
        super::say(serde_json::to_string_pretty(&report)?)?;
    } else {
        super::say(&report)?;
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Stress {
    fn into_options(self, url: String) -> Options {
        let prefix = self.user_prefix.unwrap_or_else(|| format!("stress-{:08x}", rand::rng().next_u32()));
        let mut options = Options::new(url, self.sale.to_string(), prefix);
        options.load = match (self.rate, self.connections) {
            (None, Some(connections)) => Load::ClosedLoop { connections, duration: self.duration },
            (rate, most) => {
                options.max_connections = most.unwrap_or(options.max_connections);
                Load::OpenLoop { rate_per_second: rate.unwrap_or(RATE), duration: self.duration }
            }
        };
        options.users = self.users;
        options.timeout = self.timeout;
        options.progress = !self.json;
        options
    }
}
