//! A cap on what a tar parser reads into memory. It reads long names, pax records and maps of sparse files whole, however
//! long their headers say they are, and a compressed archive makes any length out of a few bytes.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

/// What lies under a tar parser: passes on everything, or at most so many bytes while headers are read.
pub struct Rationed<R> {
    inner: R,
    allowance: Allowance,
}

/// How much may pass; shared with whoever drives the parser.
#[derive(Clone, Default)]
pub struct Allowance {
    left: Rc<Cell<Option<u64>>>,
}

impl Allowance {
    /// From now on at most this much, until [`Allowance::everything`]. To be said before the parser looks for an entry; what
    /// is left of the entry before counts, so that has to be read first.
    pub fn at_most(&self, bytes: u64) {
        self.left.set(Some(bytes));
    }

    /// No cap any more. Answers what is left of the one there was.
    pub fn everything(&self) -> u64 {
        self.left.take().unwrap_or_default()
    }
}

impl<R> Rationed<R> {
    pub fn new(inner: R) -> (Self, Allowance) {
        let allowance = Allowance::default();
        (Rationed { inner, allowance: allowance.clone() }, allowance)
    }

    pub fn into_inner(self) -> R {
        self.inner
    }
}

impl<R: Read> Read for Rationed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        if let Some(left) = self.allowance.left.get() {
            let too_large = || io::Error::new(io::ErrorKind::InvalidData, "an extension header is too large");
            self.allowance.left.set(Some(left.checked_sub(n as u64).ok_or_else(too_large)?));
        }
        Ok(n)
    }
}
