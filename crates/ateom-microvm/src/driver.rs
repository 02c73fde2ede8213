//! The driver of class microvm.

use async_trait::async_trait;
use ate_api::{Error, Reason};
use ateom::{
    Checkpoint, Checkpointed, Driver, Ended, Info, Place, Preparation, Probed, Start, driver::Sandbox, steps::Steps,
};

use crate::describe::{CLASS, DRIVER};

pub(crate) struct MicrovmDriver {
    place: Place,
}

impl MicrovmDriver {
    pub(crate) fn new(place: Place) -> Self {
        MicrovmDriver { place }
    }
}

#[async_trait]
impl Driver for MicrovmDriver {
    fn info(&self) -> Info {
        Info {
            sandbox_class: CLASS.into(),
            driver_name: DRIVER.into(),
            driver_version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    async fn probe(&mut self, sandbox: &Sandbox) -> Result<Probed, Error> {
        crate::probe::probe(&self.place.processes, sandbox).await
    }

    async fn prepare(&mut self, _: &Preparation) -> Result<(), Error> {
        Err(Error::new(Reason::Unimplemented, "not yet"))
    }

    async fn start(&mut self, _: &Start, _: &mut Steps) -> Result<bool, Error> {
        Err(Error::new(Reason::Unimplemented, "not yet"))
    }

    async fn checkpoint(&mut self, _: &Checkpoint) -> Result<Checkpointed, Error> {
        Err(Error::new(Reason::Unimplemented, "not yet"))
    }

    async fn thaw(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn reset(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn tidy(&mut self) {}

    async fn ended(&mut self) -> Ended {
        std::future::pending().await
    }

    fn sandbox_pid(&self) -> Option<u32> {
        None
    }
}
