//! Model check of the control plane by simulation: random histories of users, faults and crashes over the real
//! [`ate_control::Control`], in simulated time, with the invariants I1–I6 checked.
//!
//! ```text
//! ate-simulation --histories 10000            # prints figures; fails with the seeds that violate something
//! ate-simulation --seconds 600                # for as long
//! SEED=17 ate-simulation                      # one history again, with everything that happened
//! ```
//!
//! Where to read first: `history` (what a history is), `judge` (what is checked), `machine` (the node, as the real one
//! behaves), `weather` (what goes wrong), `os` and `lanes` (why a seed gives the same history each time).
//!
//! **Why so.** Nothing of the control plane is modelled: scheduler, workflows, reconcilers, policies, records and gRPC
//! services are those that ship; only what is behind its three seams (`Store`, `NodeAgent`, `Traffic`) is simulated. A
//! model checker for a model of it (stateright, TLA+) would check the model. madsim and turmoil simulate the network
//! between hosts, which is not where this system's faults are, and madsim wants a patched tokio in every crate. tokio's
//! own paused clock leaves wall-clock time, uids, hash maps and `select!` as they are, and its feature `test-util` would be
//! compiled into what ships, or everything compiled twice. Taking the place of three calls of libc gives all of it, in
//! dependencies too, without a line in the control plane.
//!
//! What it does not show: races between threads (a history has one), and whatever a real node does otherwise than the
//! simulated one.

mod api;
mod chance;
mod disk;
mod history;
mod judge;
mod lanes;
mod machine;
mod objects;
mod os;
mod records;
mod report;
mod router;
mod users;
mod weather;
mod world;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;
use report::Report;

/// Violations a lane looks at before it gives up.
const ENOUGH: usize = 10;

#[derive(Debug, Clone, Parser)]
#[command(about = "Random histories of the real control plane over a simulated machine")]
struct Arguments {
    /// How many histories. Without a limit of either kind: 1000.
    #[arg(long)]
    histories: Option<u64>,
    /// No new history after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// The first seed; further ones follow.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Processes at once. Default: one per processor.
    #[arg(long)]
    lanes: Option<u64>,
    /// Replay this one history and print everything that happened.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return conclude(&history(seed, true)?);
    }
    let begun = Instant::now();
    let lanes = arguments.lanes.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
    let mut running = Vec::new();
    for lane in 0..lanes.max(1) {
        let arguments = arguments.clone();
        running.push(lanes::fork(move || {
            serde_json::to_vec(&drive(&arguments, lane, lanes.max(1), begun)).unwrap_or_default()
        })?);
    }
    let mut total = Report::default();
    for lane in running {
        total.add(serde_json::from_slice(&lane.join()?)?);
    }
    println!("simulation.seconds {:.1}", begun.elapsed().as_secs_f64());
    conclude(&total)
}

/// Every `lanes`th seed.
fn drive(arguments: &Arguments, lane: u64, lanes: u64, begun: Instant) -> Report {
    let count = arguments.histories.unwrap_or(if arguments.seconds.is_some() { u64::MAX } else { 1000 });
    let time = arguments.seconds.map_or(Duration::MAX, Duration::from_secs);
    let mut total = Report::default();
    let mut n = lane;
    while n < count && begun.elapsed() < time && total.violations.len() < ENOUGH {
        let seed = arguments.first.wrapping_add(n);
        match history(seed, false) {
            Ok(report) if report.violations.is_empty() => total.add(report),
            Ok(mut report) => {
                let first = std::mem::take(&mut report.violations).swap_remove(0);
                total.add(report);
                total.violations.push(format!("seed {seed}: {first}"));
            }
            Err(e) => total.violations.push(format!("seed {seed}: {e:#}")),
        }
        n += lanes;
    }
    total
}

/// In a process of its own.
fn history(seed: u64, traced: bool) -> Result<Report> {
    let child = lanes::fork(|| {
        if std::env::var_os("RUST_LOG").is_some() {
            let filter = tracing_subscriber::EnvFilter::from_default_env();
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
        }
        let panics = catch_panics();
        let mut report = lanes::bounded(|| {
            os::enter(seed);
            history::run(seed, traced)
        })
        .unwrap_or_default();
        report.violations.extend(panics.try_iter());
        serde_json::to_vec(&report).unwrap_or_default()
    })?;
    Ok(serde_json::from_slice(&child.join()?)?)
}

/// A panic in a task is caught by tokio and would be lost.
fn catch_panics() -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::panic::set_hook(Box::new(move |panic| drop(sender.send(format!("panic: {panic}")))));
    receiver
}

fn conclude(report: &Report) -> Result<()> {
    println!("simulation.histories {}", report.histories);
    println!("simulation.violations {}", report.violations.len());
    println!(
        "{} of {} errands done, {} requests served, {} activations, {} captures, {} commits, {} faults, {} crashes, {} h \
         simulated, {} orphans",
        report.done,
        report.asked,
        report.served,
        report.activations,
        report.captures,
        report.commits,
        report.faults,
        report.crashes,
        report.simulated_ms / 3_600_000,
        report.orphans
    );
    if report.violations.is_empty() {
        return Ok(());
    }
    for violation in &report.violations {
        println!("violated: {violation}");
    }
    bail!("replay one with SEED=N; the last lines before it say what led there")
}
