//! What binaries can do under a configuration.

use ate_api::{Error, Reason};
use ateom::{Probed, driver::Sandbox, process::Processes};

pub(crate) async fn probe(_processes: &Processes, _sandbox: &Sandbox) -> Result<Probed, Error> {
    Err(Error::new(Reason::Unimplemented, "not yet"))
}
