//! Load generator and black-box judge of a flash sale: it buys as a crowd would, over HTTP alone, and then says
//! whether the promises were kept.
//!
//! It shares no code with the server, so that its verdict trusts nobody: what it believes, it has seen in replies.
//! [`run`] reads the sale's status, applies the [`Load`], reads the status again, looks a sample of buyers up, and
//! returns a [`Report`]: figures and a [`Verdict`]. The verdict assumes that nobody resets the sale, changes its
//! stock or cancels orders while the load is on; other buyers are fine.
//!
//! * `schedule`, `open_loop`, `closed_loop`: when an attempt is made
//! * `connection`, `target`, `users`, `buyer`, `reply`: how one is made, and what came of it
//! * `tally`, `sale`, `verdict`, `report`: what is remembered, and what it proves
//! * [`history`]: the same from every single request, for tests that write each down

mod buyer;
mod closed_loop;
mod connection;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod history;
mod open_loop;
mod options;
mod progress;
mod reply;
mod report;
mod sale;
mod schedule;
mod tally;
mod target;
mod users;
mod verdict;

use std::sync::Arc;
use std::time::Instant;

pub use error::Error;
pub use options::{Load, Options};
pub use report::{Failure, Outcomes, Report, ResponseTime};
pub use sale::SaleStatus;
pub use verdict::{Check, Verdict};

use buyer::Plan;
use connection::Link;
use progress::Progress;
use sale::Clerk;
use tally::Tallies;
use target::Target;
use users::Users;
use verdict::Evidence;

/// Applies the load to the sale, and judges what the server answered.
///
/// # Errors
///
/// [`Error`] when the load could not be applied at all: options out of range, nobody listening, no such sale, or
/// something that does not answer like a flash sale server. Whatever goes wrong once the load is on is part of the
/// report.
pub async fn run(options: Options) -> Result<Report, Error> {
    options.check()?;
    let target = Arc::new(Target::find(&options.url).await?);
    let mut clerk = Clerk::new(Link::new(Arc::clone(&target)), &options.sale, options.timeout);
    let before = clerk.status().await?;

    let users = Users::new(&options.user_prefix, options.users);
    let plan = Arc::new(Plan::new(target, &options.sale, users.clone(), options.timeout));
    let tallies = Arc::new(Tallies::new());
    let progress = Progress::start(&options, &tallies);
    let started = match options.load {
        Load::OpenLoop { rate_per_second, duration } => {
            let schedule = schedule::Schedule::new(rate_per_second, duration);
            open_loop::run(&plan, &tallies, schedule, options.max_connections).await?
        }
        Load::ClosedLoop { connections, duration } => {
            closed_loop::run(&plan, &tallies, connections, duration).await?
        }
    };
    let tally = tallies.total();
    let elapsed = tally.last_answer().map_or_else(|| started.elapsed(), |at: Instant| at - started);
    progress.finish();

    let after = clerk.status().await.map_err(|error| error.to_string());
    let lookups = clerk.look_up(&tally, &users).await;
    let verdict =
        Evidence { before: &before, after: after.as_ref(), tally: &tally, lookups: &lookups, users: &users }
            .judge();
    Ok(Report::new(options.sale, elapsed, &tally, before, after.ok(), verdict))
}
