//! The class microvm, as the herder's command line has it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use ate_api::Error;
use ate_sandbox::{Check, ClassDescriptor};
use ateom::{Place, Probed, cli::Class, driver::Sandbox, process::Processes};

use crate::{binary::Binary, collect, describe, doctor, driver::MicrovmDriver};

pub(crate) struct Microvm;

#[async_trait]
impl Class for Microvm {
    type Driver = MicrovmDriver;

    fn descriptor() -> ClassDescriptor {
        describe::descriptor()
    }

    fn doctor(assets: &BTreeMap<String, PathBuf>) -> Vec<Check> {
        doctor::checks(assets)
    }

    async fn probe(processes: &Processes, sandbox: &Sandbox) -> Result<Probed, Error> {
        Ok(Binary::ask(processes, sandbox).await?.probed())
    }

    fn collect(from: &Path, out: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
        collect::collect(from, out)
    }

    fn driver(place: Place) -> MicrovmDriver {
        MicrovmDriver::new(place)
    }
}
