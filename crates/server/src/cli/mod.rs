//! The command line: a file per command.

mod doctor;
mod migrate;
mod openapi;
mod remote;
mod reset;
mod sales;
mod seed;
mod serve;
mod shop;
mod stress;
mod verify;

use std::{
    ffi::OsString,
    fmt::Display,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing::{error, warn};

use crate::{
    config::{self, Common, LogFormat, Setting},
    telemetry,
};

/// Sells a limited stock to a crowd: never oversold, one a user, first come first served, nothing lost.
#[derive(Parser, Debug)]
#[command(
    name = "flashsale",
    version,
    propagate_version = true,
    after_help = "Start here: flashsale serve --demo, then open http://127.0.0.1:3000\n\
                  Each flag of serve has an environment variable, shown with it, and a key in the config file."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) action: Action,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Action {
    /// Serve everything: API, pages, and the order worker
    Serve(config::Serve),
    /// Serve API and pages of the cluster profile, as one of any number of replicas
    Api(serve::Api),
    /// Store the orders of the cluster profile, as one of any number of workers
    Worker(serve::Worker),
    /// Bring the store to the form that this version needs; `serve`, `api` and `worker` do so too
    Migrate(config::Stand),
    /// Make the three sales of the demonstration: one active, one upcoming, one ended
    Seed(shop::Where),
    /// Put a sale under load, and say whether the promises held
    Stress(stress::Stress),
    /// Check the promises against the store, and print the figures
    Verify(verify::Verify),
    /// List, make, change, pause, resume and delete sales
    Sales(sales::Sales),
    /// Drop a sale's orders and purchasers, restore its stock, raise its epoch
    Reset(reset::Reset),
    /// Look whether everything that a server needs is in order
    Doctor(doctor::Doctor),
    /// Print the OpenAPI document
    Openapi,
    /// Print a commented config file with all settings and their defaults
    Config,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    match run(std::env::args_os().collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", in_a_line(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<OsString>) -> Result<ExitCode> {
    let command = config::with_config_file(Cli::command(), &arguments)?;
    let unknown = config::unknown_variables(&command);
    // Clap prints help and its own errors, and ends the process with the code for each.
    let matches = command.clone().get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches)?;
    let settings = config::in_force(&Cli::command(), &command, &matches);
    telemetry::start(&cli.common);
    for name in unknown {
        warn!("{name} is set, but there is no such setting");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let json = cli.common.log_format == LogFormat::Json;
    match runtime.block_on(act(cli, settings)) {
        // Whoever reads the log by program reads its last line so too.
        Err(error) if json => {
            error!("{}", in_a_line(&error));
            Ok(ExitCode::FAILURE)
        }
        done => done,
    }
}

/// An error and its causes, as far as one says what those before it have not said already.
fn in_a_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.contains(&cause) {
            break;
        }
        line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
    }
    line
}

/// Prints a result. A reader that has gone, as in `flashsale openapi | head`, has seen all that it wanted.
fn say(text: impl Display) -> io::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

async fn act(Cli { common, action }: Cli, settings: Vec<Setting>) -> Result<ExitCode> {
    match action {
        Action::Serve(serve) => serve::run(&common, serve, settings).await,
        Action::Api(api) => serve::api(&common, api, settings).await,
        Action::Worker(worker) => serve::worker(&common, worker).await,
        Action::Migrate(stand) => migrate::run(&common, stand).await,
        Action::Seed(at) => seed::run(&common, at).await,
        Action::Stress(stress) => stress::run(&common, stress).await,
        Action::Verify(verify) => verify::run(&common, verify).await,
        Action::Sales(sales) => sales::run(&common, sales).await,
        Action::Reset(reset) => reset::run(&common, reset).await,
        Action::Doctor(doctor) => doctor::run(&common, doctor).await,
        Action::Openapi => {
            say(openapi::document())?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Config => {
            say(config::EXAMPLE.trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
