//! The crash campaign, for `scripts/torture`: the real program under load, faults at random, and after each of them every
//! promise against what the clients were told.
//!
//! `program` runs the binary, `crowd` buys and writes down, `promises` compares, `embedded` and `cluster` know the faults of
//! their profile, `tally` counts. The services of the cluster are those that the suites use.

mod cluster;
mod crowd;
mod embedded;
mod program;
mod promises;
#[expect(dead_code, reason = "the suites use more of it, such as TLS")]
#[path = "../../tests/it/cluster/services.rs"]
mod services;
mod tally;

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use tally::{Broken, Tally};

/// What the program stands on.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Profile {
    Embedded,
    Cluster,
}

/// Breaks `flashsale` again and again, and compares what it told its clients with what it has on record.
#[derive(Parser, Debug)]
#[command(name = "torture")]
struct Args {
    #[arg(long, default_value = "embedded")]
    profile: Profile,
    /// For how long, as 90s, 10m or 2h.
    #[arg(long, value_parser = time)]
    time: Option<Duration>,
    /// How many rounds, of one fault or several at once.
    #[arg(long)]
    rounds: Option<u64>,
    /// Decides which faults, when, and on which sales; what the machine does with it is its own.
    #[arg(long)]
    seed: Option<u64>,
    /// The binary.
    #[arg(long)]
    bin: PathBuf,
    /// Each fault once, within about a minute, for a CI.
    #[arg(long)]
    short: bool,
    /// Only faults whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Where the work folder is made; it stays where a promise was broken.
    #[arg(long, default_value = "target/torture")]
    keep: PathBuf,
}

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as 90s, 10m or 2h");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(number * seconds))
}

/// When a campaign is over.
struct Plan {
    until: Option<Instant>,
    rounds: u64,
    stop: Arc<AtomicBool>,
}

impl Plan {
    fn of(args: &Args, faults: usize) -> Self {
        let rounds = match (args.rounds, args.time, args.short) {
            (Some(rounds), ..) => rounds,
            (None, Some(_), _) => u64::MAX,
            (None, None, true) => faults as u64,
            (None, None, false) => 100,
        };
        let until = args.time.map(|time| Instant::now() + time);
        Self { until, rounds, stop: interrupted() }
    }

    fn goes_on(&self, round: u64) -> bool {
        let in_time = self.until.is_none_or(|until| Instant::now() < until);
        round < self.rounds && in_time && !self.stop.load(Ordering::Relaxed)
    }
}

/// Set when somebody asks it to stop: the round under way is finished, and the table printed.
fn interrupted() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let heard = runtime.and_then(|runtime| {
            runtime.block_on(async {
                use tokio::signal::unix::{SignalKind, signal};
                let mut end = signal(SignalKind::terminate())?;
                tokio::select! {
                    interrupt = tokio::signal::ctrl_c() => interrupt,
                    _ = end.recv() => Ok(()),
                }
            })
        });
        if heard.is_ok() {
            eprintln!("stopping after this round");
            told.store(true, Ordering::Relaxed);
        }
    });
    stop
}

/// Draws each fault once before any comes again, so that none is left to luck.
struct Deck<F> {
    all: Vec<F>,
    left: Vec<F>,
}

impl<F: Copy> Deck<F> {
    fn new(all: Vec<F>) -> Self {
        Self { all, left: Vec::new() }
    }

    fn draw(&mut self, dice: &mut StdRng) -> F {
        if self.left.is_empty() {
            self.left.clone_from(&self.all);
            self.left.shuffle(dice);
        }
        self.left.pop().expect("there are faults")
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| rand::rng().random_range(1..1_000_000));
    fs::create_dir_all(&args.keep).with_context(|| format!("cannot make {}", args.keep.display()))?;
    let work = tempfile::Builder::new().prefix("work.").tempdir_in(fs::canonicalize(&args.keep)?)?;
    let bin = fs::canonicalize(&args.bin).with_context(|| format!("there is no {}", args.bin.display()))?;
    println!("torture: profile {:?}, seed {seed}, {}", args.profile, bin.display());
    let (mut tally, dice) = (Tally::new(), StdRng::seed_from_u64(seed));
    let began = Instant::now();
    let ended = match args.profile {
        Profile::Embedded => embedded::campaign(&args, &bin, work.path(), dice, &mut tally),
        Profile::Cluster => cluster::campaign(&args, &bin, work.path(), dice, &mut tally),
    };
    if let Err(error) = &ended {
        tally.blame(error.downcast_ref::<Broken>());
    }
    println!("\n{tally}");
    println!("{:.0} s, seed {seed}", began.elapsed().as_secs_f64());
    let Err(error) = ended else {
        println!("no promise was broken");
        return Ok(ExitCode::SUCCESS);
    };
    // Root of a crash's evidence: the folder stays.
    let kept = work.keep();
    println!("FAILED: {error:#}\nkept: {}", kept.display());
    Ok(ExitCode::FAILURE)
}
