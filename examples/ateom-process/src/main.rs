//! Example of a herder: actors as plain processes of the node. **This is no sandbox.**
//!
//! It shows what a driver has to do and nothing else; `docs/writing-a-driver.md` walks through it. An actor gets a root
//! directory and a network namespace of its own, and nothing keeps it there: run no code in it that you would not run
//! as root on this machine.
#![forbid(unsafe_code)]

mod driver;
mod enter;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use async_trait::async_trait;
use ate_api::Error;
use ate_sandbox::{Check, ClassDescriptor, HostNeeds, ImageFormat, Isolation, capability};
use ateom::{Place, Probed, cli::Class, config, doctor, driver::Sandbox, process::Processes};

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.split_first() {
        Some((verb, rest)) if verb == enter::VERB => enter::main(rest),
        _ => ateom::cli::main::<Process>(),
    }
}

struct Process;

#[async_trait]
impl Class for Process {
    type Driver = driver::ProcessDriver;

    fn descriptor() -> ClassDescriptor {
        ClassDescriptor {
            name: "process".into(),
            driver_name: "ateom-process".into(),
            driver_version: env!("CARGO_PKG_VERSION").into(),
            contract_version: ateom::CONTRACT_VERSION,
            required_assets: Vec::new(),
            config: BTreeMap::new(),
            host_needs: HostNeeds { programs: vec!["nft".into()], ..HostNeeds::default() },
            image_format: ImageFormat::Layers,
            // Nobody gets this class without naming it.
            isolation: Isolation::None,
        }
    }

    fn doctor(_: &BTreeMap<String, PathBuf>) -> Vec<Check> {
        doctor::basics()
    }

    async fn probe(_: &Processes, sandbox: &Sandbox) -> Result<Probed, Error> {
        config::of::<config::NoSettings>(sandbox)?;
        // Nothing here can save the memory of a process, so `snapshot.full` is not among them.
        let capabilities = [capability::SNAPSHOT_DATA, capability::SNAPSHOT_MULTI_CONTAINER];
        Ok(Probed { capabilities: capabilities.map(String::from).to_vec(), versions: BTreeMap::new() })
    }

    fn driver(place: Place) -> driver::ProcessDriver {
        driver::ProcessDriver { place, actor: None, count: 0 }
    }
}
