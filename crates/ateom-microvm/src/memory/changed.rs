//! Which pages of a machine are its own.

use std::os::unix::fs::FileExt;

use ate_api::Error;

use super::{Memory, PAGE};
use crate::error::io;

/// Bits of an entry of `/proc/PID/pagemap` (Linux, Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// The page belongs to a file, or is shared.
const OF_FILE: u64 = 1 << 61;
const ENTRY: u64 = 8;

/// Neighbouring pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Extent {
    pub(crate) fn offset(self) -> u64 {
        self.first * PAGE
    }

    pub(crate) fn bytes(self) -> u64 {
        self.count * PAGE
    }
}

/// Extents of ever higher pages; neighbours become one.
#[derive(Debug, Default)]
pub(super) struct Extents(pub(super) Vec<Extent>);

impl Extents {
    pub(super) fn push(&mut self, page: u64) {
        match self.0.last_mut() {
            Some(last) if last.first + last.count == page => last.count += 1,
            _ => self.0.push(Extent { first: page, count: 1 }),
        }
    }
}

impl Memory {
    /// Pages that the machine has written to since it was mapped.
    pub(super) fn private(&self) -> Result<Vec<Extent>, Error> {
        let pages = self.bytes / PAGE;
        let mut entries = vec![0; usize::try_from(pages * ENTRY).unwrap_or_default()];
        let read = self.pagemap.read_exact_at(&mut entries, self.start / PAGE * ENTRY);
        read.map_err(io("read the VMM's page table"))?;
        let mut extents = Extents::default();
        for (page, entry) in entries.chunks_exact(8).enumerate() {
            let entry = u64::from_le_bytes(entry.try_into().unwrap_or_default());
            if is_private(entry) {
                extents.push(page as u64);
            }
        }
        Ok(extents.0)
    }
}

fn is_private(entry: u64) -> bool {
    entry & (PRESENT | SWAPPED) != 0 && entry & OF_FILE == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_private_when_it_is_there_and_no_longer_the_files() {
        assert!(is_private(PRESENT) && is_private(SWAPPED));
        assert!(!is_private(0), "never touched");
        assert!(!is_private(PRESENT | OF_FILE), "read only so far");
    }

    #[test]
    fn neighbouring_pages_become_one_extent() {
        let mut extents = Extents::default();
        [3, 4, 5, 9].into_iter().for_each(|page| extents.push(page));
        assert_eq!(extents.0, [Extent { first: 3, count: 3 }, Extent { first: 9, count: 1 }]);
    }
}
