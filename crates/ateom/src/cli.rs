//! The command line of a herder: `describe`, `doctor`, `probe`, `collect`, `serve`. The same for every class.

use std::{
    collections::BTreeMap,
    io::Read,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use async_trait::async_trait;
use ate_api::{Error, Reason};
use ate_sandbox::{Check, ClassDescriptor};
use clap::{Parser, Subcommand};
use serde::Deserialize;

use crate::{
    doctor,
    driver::Sandbox,
    process::Processes,
    sandbox::{Driver, Probed},
    serve::{self, Given, Place, ServeArgs},
};

/// A configuration and a few paths.
const MAX_PROBE: u64 = 1 << 20;

/// A sandbox class, as its herder's `main` hands it to [`main`].
#[async_trait]
pub trait Class: 'static {
    type Driver: Driver;

    /// What the class is. Touches nothing.
    fn descriptor() -> ClassDescriptor;

    /// Whether this machine can run it, with these assets in place of those it would find by itself.
    fn doctor(assets: &BTreeMap<String, PathBuf>) -> Vec<Check>;

    /// What binaries can do under a configuration.
    async fn probe(processes: &Processes, sandbox: &Sandbox) -> Result<Probed, Error>;

    /// Makes the assets of the class out of a directory with what a distribution ships. Answers asset name → file
    /// below `out`.
    fn collect(from: &Path, out: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
        let message = format!("class {} has nothing to make its assets from", Self::descriptor().name);
        let (_, _) = (from, out);
        Err(Error::new(Reason::Unimplemented, message).hint("name its assets one by one, as ASSET=PATH"))
    }

    fn driver(place: Place) -> Self::Driver;
}

/// Herder of a sandbox class: owns one worker and runs one actor at a time in it.
#[derive(Parser)]
#[command(version)]
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
        /// Try these assets instead of those found by default. May be repeated.
        #[arg(value_parser = asset, value_name = "ASSET=PATH")]
        assets: Vec<(String, PathBuf)>,
    },
    /// Print what binaries can do; reads `{"config":{…},"assets":{"NAME":"/path"}}` on stdin.
    Probe,
    /// Make the assets of this class from what a distribution ships; prints `{"NAME":"/path"}`.
    Collect {
        /// Directory with unpacked packages; see the class's documentation.
        #[arg(long)]
        from: PathBuf,
        /// Existing directory for the assets.
        #[arg(long)]
        out: PathBuf,
    },
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
    /// The worker's network interface: the one the node agent puts into its network namespace, or the pod's.
    #[arg(long, default_value = "eth0")]
    interface: String,
    /// The worker's address and prefix length, for example 10.88.0.2/16.
    #[arg(long, value_parser = address, required_unless_present = "pod")]
    address: Option<(Ipv4Addr, u8)>,
    /// The worker's default route; without it actors cannot reach beyond their network.
    #[arg(long, conflicts_with = "pod")]
    gateway: Option<Ipv4Addr>,
    /// The worker is a pod: use the network this is started in, outlive the node agent, and when asked to end, wait for the
    /// actor to leave.
    #[arg(long, conflicts_with = "address")]
    pod: bool,
    /// Set by the herder itself for its process inside the namespaces.
    #[arg(long, hide = true)]
    inside: bool,
}

fn address(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let (address, prefix) = text.split_once('/').ok_or("an address has the form A.B.C.D/PREFIX")?;
    let prefix = prefix.parse().ok().filter(|p| (1..=32).contains(p)).ok_or("a prefix length is 1 to 32")?;
    Ok((address.parse().map_err(|e| format!("`{address}`: {e}"))?, prefix))
}

fn asset(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("an asset has the form NAME=PATH")?;
    Ok((name.to_owned(), path.into()))
}

/// The whole `main` of a herder. No thread may have been started before.
pub fn main<C: Class>() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(false)
        .init();
    let result = match cli.command {
        Command::Describe => print(&C::descriptor()),
        Command::Doctor { assets } => {
            let kept = doctor::isolation(C::descriptor().isolation).into_iter();
            print(&kept.chain(C::doctor(&assets.into_iter().collect())).collect::<Vec<_>>())
        }
        Command::Probe => probe::<C>().and_then(|probed| print(&probed)),
        Command::Collect { from, out } => C::collect(&from, &out).and_then(|assets| print(&assets)),
        Command::Serve(args) => return serve::<C>(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let hint = if e.hint.is_empty() { String::new() } else { format!(" ({})", e.hint) };
            eprintln!("{}: {}{hint}", C::descriptor().driver_name, e.message);
            ExitCode::FAILURE
        }
    }
}

fn serve<C: Class>(args: Serve) -> ExitCode {
    let work_dir = match std::path::absolute(&args.work_dir) {
        Ok(work_dir) => work_dir,
        Err(e) => {
            eprintln!("{}: --work-dir {}: {e}", C::descriptor().driver_name, args.work_dir.display());
            return ExitCode::FAILURE;
        }
    };
    let args = ServeArgs {
        // As given: a relative path may be the only one short enough for a socket.
        socket: args.socket,
        work_dir,
        interface: args.interface,
        given: args.address.filter(|_| !args.pod).map(|address| Given { address, gateway: args.gateway }),
        inside: args.inside,
    };
    serve::serve(&args, C::driver)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeInput {
    #[serde(default)]
    config: serde_json::Map<String, serde_json::Value>,
    assets: BTreeMap<String, String>,
}

fn probe<C: Class>() -> Result<Probed, Error> {
    let bad = |e: &dyn std::fmt::Display| {
        let form = r#"{"config":{…},"assets":{"NAME":"/path"}}"#;
        Error::new(Reason::Invalid, format!("stdin is not {form}: {e}"))
    };
    let mut text = String::new();
    std::io::stdin().take(MAX_PROBE).read_to_string(&mut text).map_err(|e| bad(&e))?;
    let input: ProbeInput = serde_json::from_str(&text).map_err(|e| bad(&e))?;
    let config_json = serde_json::to_vec(&input.config).map_err(|e| bad(&e))?;
    let sandbox = Sandbox {
        // Nobody has hashed them; each path stands for itself.
        asset_digests: input.assets.clone().into_iter().collect(),
        asset_paths: input.assets.into_iter().collect(),
        ..Sandbox::with_config(config_json)
    };
    let failed = |e: std::io::Error| Error::new(Reason::Internal, e.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async { C::probe(&Processes::start().map_err(failed)?, &sandbox).await })
}

fn print(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::new(Reason::Internal, e.to_string()))?;
    println!("{text}");
    Ok(())
}
