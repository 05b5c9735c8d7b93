//! Load generator and black-box judge of a flash sale: it buys as a crowd would, over HTTP alone, and then says
//! whether the promises were kept.
//!
//! It shares no code with the server, so that its verdict trusts nobody: what it believes, it has seen in replies.
//! [`run`] reads the sale's status, applies the [`Load`], reads the status again, looks a sample of buyers up, and
//! returns a [`Report`]: figures and a [`Verdict`]. The verdict assumes that nobody cancels orders while the load is on;
//! when the sale was reset or its stock changed, it says that it cannot judge. Other buyers are fine.
//!
//! * `schedule`, `open_loop`, `closed_loop`, `interrupt`: when an attempt is made, and when no more
//! * `connection`, `target`, `users`, `buyer`, `reply`: how one is made, and what came of it
//! * `tally`, `reasons`, `sale`, `verdict`, `holders`, `report`: what is remembered, and what it proves
//! * [`history`]: the same from every single request, for tests that write each down

mod buyer;
mod closed_loop;
mod connection;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod history;
mod holders;
mod interrupt;
mod open_loop;
mod options;
mod progress;
mod reasons;
mod reply;
mod report;
mod sale;
mod schedule;
mod tally;
mod target;
mod users;
mod verdict;

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;

pub use error::Error;
pub use options::{Load, Options};
pub use report::{Failure, Outcomes, Report, ResponseTime};
pub use sale::SaleStatus;
pub use verdict::{Check, Verdict};

use buyer::Plan;
use connection::Link;
use interrupt::Applied;
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
    run_until(options, pending()).await
}

/// As [`run`], but when `stop` ends, no more attempts are made; those under way are waited for, and the report is of
/// what was asked until then. A load that is over is judged to the end.
///
/// # Errors
///
/// As [`run`], and [`Error::Interrupted`] when `stop` ends before the load is on.
pub async fn run_until(options: Options, stop: impl Future<Output = ()>) -> Result<Report, Error> {
    options.check()?;
    let mut stop = pin!(stop);
    let arriving = arrive(&options);
    let (target, mut clerk, before) =
        interrupt::unless(stop.as_mut(), arriving).await.ok_or(Error::Interrupted)??;

    let users = Users::new(&options.user_prefix, options.users);
    let plan = Arc::new(Plan::new(target, &options.sale, users.clone(), options.timeout));
    let tallies = Arc::new(Tallies::new(users.come_again()));
    let progress = Progress::start(&options, &tallies);
    let applied = apply(&options, &plan, &tallies, stop).await?;
    let tally = tallies.total();
    progress.finish();

    let after = clerk.status().await.map_err(|error| error.to_string());
    let lookups = clerk.look_up(&tally, &users).await;
    let mut verdict = Evidence {
        before: &before,
        after: after.as_ref(),
        tally: &tally,
        lookups: &lookups,
        users: &users,
        fresh_users: options.fresh_users,
    }
    .judge();
    if applied.stopped.is_some() {
        let (lasted, meant) = (applied.lasted(options.load.duration()), options.load.duration());
        verdict.notes.insert(0, format!("interrupted after {:.1} s of {meant:?}", lasted.as_secs_f64()));
    }
    Ok(Report::new(options, applied, &tally, before, after.ok(), verdict))
}

/// Finds the server and the sale.
async fn arrive(options: &Options) -> Result<(Arc<Target>, Clerk, SaleStatus), Error> {
    let target = Arc::new(Target::find(&options.url, options.timeout).await?);
    let mut clerk = Clerk::new(Link::new(Arc::clone(&target)), &options.sale, options.timeout);
    let before = clerk.status().await?;
    Ok((target, clerk, before))
}

async fn apply(
    options: &Options,
    plan: &Arc<Plan>,
    tallies: &Arc<Tallies>,
    stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<Applied, Error> {
    match options.load {
        Load::OpenLoop { rate_per_second, duration } => {
            let schedule = schedule::Schedule::new(rate_per_second, duration);
            open_loop::run(plan, tallies, schedule, options.max_connections, stop).await
        }
        Load::ClosedLoop { connections, duration } => {
            closed_loop::run(plan, tallies, connections, duration, stop).await
        }
    }
}
