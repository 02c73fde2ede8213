//! The data directory: made if it is not there, and used by one process at a time.

use std::{fs::File, os::unix::fs::DirBuilderExt as _, path::Path};

use ate_api::{Error, Reason};
use rustix::fs::{FlockOperation, flock};

use crate::failure::{Outcome, Trying as _};

/// Held as long as the process lives; the kernel lets go of it whatever the process dies of.
#[derive(Debug)]
pub(crate) struct Locked {
    _file: File,
}

pub(crate) fn lock(dir: &Path) -> Outcome<Locked> {
    let what = || format!("cannot use the data directory {}", dir.display());
    // Memory of actors is in it: nobody else may read.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).trying(what)?;
    let path = dir.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).trying(what)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Locked { _file: file }),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::new(Reason::InUse, "another `ate up` is using it")
            .hint("stop that one, or choose another directory with --data-dir"))
        .trying(what),
        Err(e) => Err(std::io::Error::from(e)).trying(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_is_used_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = lock(&path).unwrap();
        assert_eq!(lock(&path).unwrap_err().reason(), Some(Reason::InUse));
        drop(first);
        lock(&path).unwrap();
    }
}
