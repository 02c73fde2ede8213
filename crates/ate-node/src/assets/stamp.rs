//! Has a file changed since it was verified? One `stat` answers it, so that a digest need not be computed again
//! each time. Any write, replacement, change of owner or of mode shows in at least one field.

use std::{fs::Metadata, io, os::unix::fs::MetadataExt, path::Path};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    /// Seconds and nanoseconds.
    mtime: (i64, i64),
    /// Seconds and nanoseconds; cannot be set back by a program.
    ctime: (i64, i64),
    uid: u32,
    mode: u32,
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        Stamp {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            uid: meta.uid(),
            mode: meta.mode(),
        }
    }

    /// Of the name itself: a symlink in the place of a file is a change.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Stamp::of(&std::fs::symlink_metadata(path)?))
    }
}
