//! Stops writing while there is still room, because a full disk in the middle of a journal entry is fatal.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Room the tree needs to sort what it has already taken: one memtable being written out, as large as it may get.
const RESERVE_BYTES: u64 = super::MEMTABLE_BYTES;
/// How much may be written between two looks at the disk, and how old a look may be. Others fill the disk too.
const LOOK_EVERY_BYTES: u64 = 4 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) struct SpaceGuard {
    path: PathBuf,
    looked: Option<Instant>,
    written: u64,
    room: bool,
}

impl SpaceGuard {
    pub(super) fn new(path: &Path) -> Self {
        SpaceGuard { path: path.to_owned(), looked: None, written: 0, room: true }
    }

    /// Whether a group may be written now.
    pub(super) fn has_room(&mut self) -> bool {
        let due = !self.room
            || self.written >= LOOK_EVERY_BYTES
            || self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY);
        if due {
            // A file system that cannot be asked is not full; the write itself will tell.
            self.room = rustix::fs::statvfs(&self.path)
                .map_or(true, |fs| fs.f_bavail.saturating_mul(fs.f_frsize) >= RESERVE_BYTES);
            self.looked = Some(Instant::now());
            self.written = 0;
        }
        self.room
    }

    pub(super) fn wrote(&mut self, bytes: u64) {
        self.written += bytes;
    }
}
