//! What containers write, and that they have ended, on the log port.

use std::{
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use ate_guest::{
    frame::Kind,
    protocol::{self, Event, LOG},
};

use crate::port::Port;

/// Read at once from a container's pipe.
const PIECE: usize = 16 << 10;

/// The port. Whoever holds the lock keeps everybody else from writing: so does a frozen machine.
pub(crate) struct Logs(Mutex<Port>);

impl Logs {
    pub(crate) fn open() -> Result<Self> {
        Ok(Logs(Mutex::new(Port::open(LOG)?)))
    }

    /// Until the guard is dropped nothing is written; what was being written has been.
    pub(crate) fn hold(&self) -> MutexGuard<'_, Port> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies a container's stream until its end.
    pub(crate) fn copy(&self, container: usize, stream: u8, from: OwnedFd) {
        let Ok(container) = u8::try_from(container) else { return };
        let mut from = File::from(from);
        let mut piece = vec![0; PIECE];
        while let Ok(n @ 1..) = from.read(&mut piece) {
            if self.hold().write(Kind::Log, &[&[container, stream], &piece[..n]]).is_err() {
                return;
            }
        }
    }

    pub(crate) fn tell(&self, event: &Event) -> Result<()> {
        let message = protocol::encode(event)?;
        Ok(self.hold().write(Kind::Message, &[&message])?)
    }
}
