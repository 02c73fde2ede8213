//! Measures what the project promises and prints it beside the goals.
//!
//! Ratios are measured in one run on one machine, interleaved. A goal that is missed is printed as missed.
#![forbid(unsafe_code)]

mod client;
mod control;
mod floor;
mod gvisor;
mod microvm;
mod microvm_floor;
mod postgres;
mod report;
mod revoke;
mod rollout;
mod router;
mod trust;
mod usage;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measure what the project promises.
#[derive(Parser)]
#[command(version, after_help = "Examples:\n  ate-bench --quick\n  ate-bench --json figures.json gvisor router")]
struct Args {
    /// 10 samples in place of 30
    #[arg(long)]
    quick: bool,
    /// Also write the figures as a JSON array to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these groups
    #[arg(value_parser = ["gvisor", "microvm", "router", "control", "postgres", "usage", "revoke", "trust", "rollout"])]
    names: Vec<String>,
    #[command(subcommand)]
    helper: Option<Helper>,
}

#[derive(Subcommand)]
enum Helper {
    /// Serves one floor sample per line on stdin; started by the benchmark itself
    #[command(hide = true)]
    FloorHelper { runsc: PathBuf, app: PathBuf, heap_mb: u32, dir: PathBuf },
    /// The same for machines
    #[command(hide = true)]
    MachineFloorHelper { vmm: PathBuf, snapshot: PathBuf, image: PathBuf, memory_mib: u32, dir: PathBuf },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.helper {
        None => {}
        Some(Helper::FloorHelper { runsc, app, heap_mb, dir }) => return floor::helper(&runsc, &app, heap_mb, &dir),
        Some(Helper::MachineFloorHelper { vmm, snapshot, image, memory_mib, dir }) => {
            return microvm_floor::helper(&microvm_floor::Files { vmm, snapshot, image, memory_mib }, &dir);
        }
    }
    let samples = if args.quick { 10 } else { 30 };
    let wanted = |name: &str| args.names.is_empty() || args.names.iter().any(|n| n == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Vec::new();
    if wanted("gvisor") {
        eprintln!("waking and suspending, {samples} times beside the floor …");
        figures.extend(runtime.block_on(gvisor::run(samples))?);
    }
    if wanted("microvm") {
        eprintln!("the same with machines, {samples} times beside the floor, and ten machines at once …");
        figures.extend(runtime.block_on(microvm::run(samples))?);
    }
    if wanted("router") {
        eprintln!("through the router and directly, {samples} times …");
        figures.extend(runtime.block_on(router::run(samples))?);
    }
    if wanted("control") {
        eprintln!("the control plane alone, with a thousand and with a million actors …");
        figures.extend(runtime.block_on(control::run(args.quick))?);
    }
    if wanted("postgres") {
        eprintln!("the control plane over PostgreSQL, beside the embedded store, and with a million actors …");
        figures.extend(runtime.block_on(postgres::run(args.quick))?);
    }
    if wanted("usage") {
        eprintln!("who uses a binary, asked of a control plane with very many actors …");
        figures.extend(runtime.block_on(usage::run(args.quick))?);
    }
    if wanted("revoke") {
        eprintln!("revoking a binary that a warm worker has started, {samples} times …");
        figures.extend(runtime.block_on(revoke::run(samples))?);
    }
    if wanted("trust") {
        eprintln!("attacking a node, and how much of a wake-up is verification, {samples} times …");
        figures.push(trust::attacks());
        figures.push(runtime.block_on(trust::wakeup(samples))?);
    }
    if wanted("rollout") {
        eprintln!("rolling another runsc out under actors that are asked meanwhile …");
        figures.extend(rollout::run(args.quick)?);
    }
    report::publish(&figures, args.json.as_deref())
}
