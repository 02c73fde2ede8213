//! The long runs: every fault at every step, load under faults, hundreds of lives and what they leave. A debug build,
//! because only that has failpoints; see `script/soak`.
#![forbid(unsafe_code)]

use std::{
    panic::catch_unwind,
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ate_e2e::{
    Kit,
    faults::{Report, Suite, cases, leaks, points, stories, storm},
    kit,
};
use clap::{Parser, ValueEnum};

/// All points on one node after the other; others run beside it.
const ALL_POINTS: Duration = Duration::from_secs(3600);

/// Run what takes long, and print what came of it.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  ate-soak faults\n  ate-soak storm --seconds 600 --seed 7\n  ate-soak leaks --class gvisor --lives 40"
)]
struct Args {
    what: What,
    /// Decides what happens when; printed, so that it can be given again
    #[arg(long)]
    seed: Option<u64>,
    /// How long load goes on
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Requests per second
    #[arg(long, default_value_t = 2.0)]
    rate: f64,
    #[arg(long, default_value_t = 200)]
    actors: usize,
    #[arg(long, default_value_t = 8)]
    workers: u32,
    /// Seconds between two faults
    #[arg(long, default_value_t = 5.0)]
    fault_every: f64,
    /// Actors that live and go
    #[arg(long, default_value_t = 500)]
    lives: usize,
    /// Sandbox class of the load and of the lives
    #[arg(long, default_value = "gvisor", value_parser = ["gvisor", "process", "microvm"])]
    class: String,
    /// Of all faults only those whose name has this in it
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Every fault at every step
    Faults,
    /// Open-loop load with a fault every few seconds
    Storm,
    /// Hundreds of lives, and what they leave behind
    Leaks,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.as_secs()));
    let kit: &'static Kit = match args.class.as_str() {
        "process" => &kit::PROCESS,
        "microvm" => &kit::MICROVM,
        _ => &kit::GVISOR,
    };
    println!("seed {seed}");
    let begun = Instant::now();
    let good = match args.what {
        What::Faults => faults(&args.only),
        What::Storm => {
            let (time, fault_every) = (Duration::from_secs(args.seconds), Duration::from_secs_f64(args.fault_every));
            let (actors, workers, rate) = (args.actors, args.workers, args.rate);
            let tally = storm::run(&storm::Plan { kit, actors, workers, rate, time, fault_every, seed });
            print!("{tally}");
            tally.is_good()
        }
        What::Leaks => {
            let left = catch_unwind(|| leaks::run(kit, args.lives, seed)).unwrap_or_else(|_| vec!["a panic".into()]);
            left.iter().for_each(|line| println!("  {line}"));
            println!("leaks.after_{} {} (class {})", args.lives, left.len(), kit.class);
            left.is_empty()
        }
    };
    println!("{:.0?}", begun.elapsed());
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Those on the way of an actor also with a real sandbox.
fn faults(only: &str) -> bool {
    let mut all = cases::all(&points::all());
    all.retain(|case| stories::of(&case.step.name).is_some() && case.to_string().contains(only));
    let lives = all.iter().filter(|case| stories::of(&case.step.name).is_some_and(|tell| stories::is_life(tell)));
    let sandboxed = Suite { kit: &kit::GVISOR, nodes: 2, cases: lives.cloned().collect() };
    let [process, gvisor] = Suite::of(all, 3);
    let mut report = Report::default();
    for suite in [process, Suite { cases: [sandboxed.cases, gvisor.cases].concat(), ..sandboxed }] {
        report.add(suite.run(ALL_POINTS));
    }
    println!("crash.points_x_faults {}\ncrash.restarts {}", report.cases, report.restarts);
    println!("crash.violations {}", report.violations.len());
    report.violations.iter().for_each(|v| println!("  {v}"));
    report.violations.is_empty()
}
