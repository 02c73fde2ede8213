//! What binaries can do under a configuration, without a worker.

use ate_api::Error;
use ateom::{Probed, config, driver::Sandbox, process::Processes};

use crate::{
    accelerator,
    binary::{Binary, check_kernel},
    config::Config,
    describe::{KERNEL, VMM},
};

pub(crate) async fn probe(processes: &Processes, sandbox: &Sandbox) -> Result<Probed, Error> {
    accelerator::choose(config::of::<Config>(sandbox)?.accelerator)?;
    check_kernel(&config::asset(sandbox, KERNEL)?.0)?;
    Ok(Binary::ask(processes, &config::asset(sandbox, VMM)?.0).await?.probed(sandbox))
}
