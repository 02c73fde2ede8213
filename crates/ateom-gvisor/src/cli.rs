//! The command line: `describe`, `doctor`, `probe`, `serve`.

use std::{net::Ipv4Addr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{describe, doctor, driver::GvisorDriver, probe};

/// Herder for gVisor: owns one worker and runs one actor at a time in it with runsc.
#[derive(Parser)]
#[command(name = "ateom-gvisor", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print what this class is: assets, configuration format, host needs (JSON).
    Describe,
    /// Print whether this machine can run it, and what to do if not (JSON array of checks).
    Doctor {
        /// Try this runsc instead of the one on the PATH.
        #[arg(long)]
        runsc: Option<PathBuf>,
    },
    /// Print what binaries can do; reads `{"config":{…},"assets":{"runsc":"/path"}}` on stdin.
    Probe,
    /// Be the herder of one worker.
    Serve(Serve),
}

#[derive(clap::Args)]
struct Serve {
    /// Unix socket to serve the driver contract on.
    #[arg(long)]
    socket: PathBuf,
    /// Directory for what must lie on disk; not below /run.
    #[arg(long)]
    work_dir: PathBuf,
    /// Network interface the node agent puts into this worker's network namespace.
    #[arg(long, default_value = "eth0")]
    interface: String,
    /// The worker's address and prefix length, for example 10.88.0.2/16.
    #[arg(long, value_parser = address)]
    address: (Ipv4Addr, u8),
    /// The worker's default route; without it actors cannot reach beyond their network.
    #[arg(long)]
    gateway: Option<Ipv4Addr>,
    /// Set by the herder itself for its process inside the namespaces.
    #[arg(long, hide = true)]
    inside: bool,
}

fn address(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let (address, prefix) = text.split_once('/').ok_or("an address has the form A.B.C.D/PREFIX")?;
    let prefix = prefix.parse().ok().filter(|p| (1..=32).contains(p)).ok_or("a prefix length is 1 to 32")?;
    Ok((address.parse().map_err(|e| format!("`{address}`: {e}"))?, prefix))
}

/// No thread may be started before `serve` has made its namespaces.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(false)
        .init();
    let result = match cli.command {
        Command::Describe => print(&describe::descriptor()),
        Command::Doctor { runsc } => print(&doctor::checks(runsc)),
        Command::Probe => probe::from_stdin().and_then(|probed| print(&probed)),
        Command::Serve(serve) => {
            let work_dir = match std::path::absolute(&serve.work_dir) {
                Ok(work_dir) => work_dir,
                Err(e) => {
                    eprintln!("ateom-gvisor: --work-dir {}: {e}", serve.work_dir.display());
                    return ExitCode::FAILURE;
                }
            };
            let args = ateom::ServeArgs {
                // As given: a relative path may be the only one short enough for a socket.
                socket: serve.socket,
                work_dir,
                interface: serve.interface,
                address: serve.address,
                gateway: serve.gateway,
                inside: serve.inside,
            };
            return ateom::serve::serve(&args, GvisorDriver::new);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ateom-gvisor: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
