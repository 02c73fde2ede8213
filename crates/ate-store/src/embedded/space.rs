//! Stops writing while there is still room, because a full disk in the middle of a journal entry is fatal.

use std::path::{Path, PathBuf};

/// Room the tree needs to sort what it has already taken: one memtable being written out, as large as it may get.
const RESERVE_BYTES: u64 = super::MEMTABLE_BYTES;

pub(super) struct SpaceGuard {
    path: PathBuf,
}

impl SpaceGuard {
    pub(super) fn new(path: &Path) -> Self {
        SpaceGuard { path: path.to_owned() }
    }

    /// Whether a group may be written now. Looks each time, which takes a thousandth of what writing does: others fill the
    /// disk too, and a fast disk takes all of the reserve in a tenth of a second.
    pub(super) fn has_room(&self) -> bool {
        // A file system that cannot be asked is not full; the write itself will tell.
        rustix::fs::statvfs(&self.path).map_or(true, |fs| fs.f_bavail.saturating_mul(fs.f_frsize) >= RESERVE_BYTES)
    }
}
