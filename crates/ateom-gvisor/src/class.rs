//! The class gvisor, as the herder's command line has it.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use ate_api::Error;
use ate_sandbox::{Check, ClassDescriptor};
use ateom::{Place, Probed, cli::Class, config, driver::Sandbox, process::Processes, program::Program};

use crate::{binary::Binary, config::Config, describe, doctor, driver::GvisorDriver};

pub(crate) struct Gvisor;

#[async_trait]
impl Class for Gvisor {
    type Driver = GvisorDriver;

    fn descriptor() -> ClassDescriptor {
        describe::descriptor()
    }

    fn doctor(assets: &BTreeMap<String, PathBuf>) -> Vec<Check> {
        doctor::checks(assets.get(describe::ASSET).cloned())
    }

    async fn probe(processes: &Processes, sandbox: &Sandbox) -> Result<Probed, Error> {
        let (path, _) = config::asset(sandbox, describe::ASSET)?;
        // Nobody has hashed it: whoever calls names a path.
        Binary::ask(processes, &Program::at(&path)?).await?.capabilities(&config::of::<Config>(sandbox)?)
    }

    fn driver(place: Place) -> GvisorDriver {
        GvisorDriver::new(place)
    }
}
