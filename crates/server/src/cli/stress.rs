//! `flashsale stress`: puts a sale under load, and says whether the promises held.

use std::{future::pending, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use flashsale_core::ids::SaleId;
use flashsale_embedded::Folder;
use flashsale_loadtest::{Error, Load, Options};
use rand::Rng;
use tokio::{signal::ctrl_c, sync::oneshot};

use crate::config::{self, Common};

/// Where a server is that nothing says anything of.
const URL: &str = "http://127.0.0.1:3000";
/// What `--rate` is when neither it nor `--connections` is given.
const RATE: f64 = 2_000.0;
/// The exit code after SIGINT, as shells have it: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

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
    /// How long to wait for a reply, and at the start for the server
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
    let options = stress.into_options(url.unwrap_or_else(|| URL.to_owned()));
    let (stop, stopped) = oneshot::channel();
    let stopped = async {
        if stopped.await.is_err() {
            pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = flashsale_loadtest::run_until(options, stopped) => ended,
        () = interrupts(stop) => Err(Error::Interrupted),
    };
    let report = match ended {
        Err(Error::Interrupted) => return Ok(ExitCode::from(INTERRUPTED)),
        ended => ended?,
    };
    if json {
        super::say(serde_json::to_string_pretty(&report)?)?;
    } else {
        super::say(&report)?;
    }
    Ok(match report.passed() {
        _ if report.interrupted => ExitCode::from(INTERRUPTED),
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Stops the load at the first Ctrl-C, and ends at the second.
async fn interrupts(stop: oneshot::Sender<()>) {
    if ctrl_c().await.is_err() {
        // Nobody can listen for it: it ends the process, as always.
        return pending().await;
    }
    // The bar, if there is one, leaves its line open.
    eprintln!(
        "\ninterrupted: what is under way is waited for, then comes the report; Ctrl-C again ends at once"
    );
    let _ = stop.send(());
    if ctrl_c().await.is_err() {
        pending::<()>().await;
    }
}

impl Stress {
    fn into_options(self, url: String) -> Options {
        // The verdict rests on it that nobody has used a random one before, so it is long enough.
        let fresh = self.user_prefix.is_none();
        let prefix = self.user_prefix.unwrap_or_else(|| format!("stress-{:016x}", rand::rng().next_u64()));
        let mut options = Options::new(url, self.sale.to_string(), prefix);
        options.load = match (self.rate, self.connections) {
            (None, Some(connections)) => Load::ClosedLoop { connections, duration: self.duration },
            (rate, most) => {
                options.max_connections = most.unwrap_or(options.max_connections);
                Load::OpenLoop { rate_per_second: rate.unwrap_or(RATE), duration: self.duration }
            }
        };
        options.users = self.users;
        options.fresh_users = fresh;
        options.open_files = super::serve::raise_open_files();
        options.timeout = self.timeout;
        options.progress = !self.json;
        options
    }
}
