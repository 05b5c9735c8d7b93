//! `simulate`: lives through seeds, and says what came of them. See `scripts/simulate`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use flashsale_simulation::{Fired, Outcome, STEPS, Tally, simulate};

/// Simulates core, embedded engine and worker: one seed decides schedule, clock, crashes and disk errors.
#[derive(Parser)]
#[command(name = "simulate")]
struct Args {
    /// How many seeds to live through.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    from: u64,
    /// One seed only, with its story.
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// How many steps each world lives.
    #[arg(long, default_value_t = STEPS)]
    steps: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A panic is a broken promise like any other, and is told with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    match args.seed {
        Some(seed) => one(seed, args.steps),
        None => many(&args),
    }
}

fn one(seed: u64, steps: u64) -> ExitCode {
    let outcome = simulate(seed, steps);
    tell(&outcome);
    println!("Trace {:016x}\n\n{}", outcome.trace, table(&outcome.fired));
    verdict(&outcome, steps)
}

fn many(args: &Args) -> ExitCode {
    let (started, mut said) = (Instant::now(), Instant::now());
    let (mut fired, mut tally, mut steps) = (Fired::default(), Tally::default(), 0);
    for done in 0..args.seeds {
        let outcome = simulate(args.from + done, args.steps);
        fired.add(&outcome.fired);
        tally.add(&outcome.tally);
        steps += outcome.steps;
        if outcome.broken.is_some() {
            tell(&outcome);
            return verdict(&outcome, args.steps);
        }
        if said.elapsed() > Duration::from_secs(30) {
            said = Instant::now();
            eprintln!("{} of {} seeds, {} s", done + 1, args.seeds, started.elapsed().as_secs());
        }
    }
    println!(
        "{} seeds from {}, {steps} steps, {:.1} s: no promise broken.\n",
        args.seeds,
        args.from,
        started.elapsed().as_secs_f64()
    );
    println!(
        "Starts with all checks {}, attempts answered {} (SUCCESS {}, ALREADY_PURCHASED {}, SOLD_OUT {}, not active {}), \
              without an answer {}, changes by the shop {}, orders confirmed {}.\n",
        tally.starts,
        tally.answered,
        tally.reserved,
        tally.already,
        tally.sold_out,
        tally.not_active,
        tally.unanswered,
        tally.changes,
        tally.confirmed
    );
    println!("{}", table(&fired));
    ExitCode::SUCCESS
}

fn tell(outcome: &Outcome) {
    for line in &outcome.story {
        println!("{line}");
    }
    println!();
}

fn table(fired: &Fired) -> String {
    format!("Faults that fired:\n{fired}")
}

fn verdict(outcome: &Outcome, steps: u64) -> ExitCode {
    let Some(broken) = &outcome.broken else {
        println!("Seed {}: no promise broken.", outcome.seed);
        return ExitCode::SUCCESS;
    };
    println!("Seed {}: BROKEN PROMISE: {broken}", outcome.seed);
    println!("The same again: scripts/simulate --seed {} --steps {steps}", outcome.seed);
    ExitCode::FAILURE
}
