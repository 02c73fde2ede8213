//! The file format of changed pages.
//!
//! ```text
//! page, page, …                       4096 bytes each, in the order of the index
//! extent, extent, …                   u64 first page, u64 number of pages; ascending, none touching the next
//! magic  b"ATEPAGE1"                  8 bytes
//! u64 size of the memory in bytes, u64 number of extents, u64 number of pages
//! ```
//!
//! All numbers little-endian. The index is at the end, so that pages are written as they are found, each at a multiple
//! of its size.

use std::{fs::File, io::Write, os::unix::fs::FileExt};

use ate_api::Error;

use super::{PAGE, changed::Extent};
use crate::error::{corrupt, io};

const MAGIC: &[u8; 8] = b"ATEPAGE1";
const FOOTER: usize = 32;
const EXTENT: usize = 16;

/// Ends a file whose pages are written.
pub(super) fn finish(file: &mut File, memory: u64, extents: &[Extent]) -> Result<(), Error> {
    let mut index = Vec::with_capacity(extents.len() * EXTENT + FOOTER);
    for extent in extents {
        index.extend_from_slice(&extent.first.to_le_bytes());
        index.extend_from_slice(&extent.count.to_le_bytes());
    }
    index.extend_from_slice(MAGIC);
    let pages: u64 = extents.iter().map(|e| e.count).sum();
    for number in [memory, extents.len() as u64, pages] {
        index.extend_from_slice(&number.to_le_bytes());
    }
    file.write_all(&index).map_err(io("write changed pages"))
}

/// The index of a file, if everything about it is as it must be for a memory of this size.
pub(super) fn index(file: &File, memory: u64) -> Result<Vec<Extent>, Error> {
    let wrong = |what: &str| corrupt(format!("the file of changed pages {what}"));
    let size = file.metadata().map_err(io("look at changed pages"))?.len();
    let mut footer = [0; FOOTER];
    let at = size.checked_sub(FOOTER as u64).ok_or_else(|| wrong("is too short"))?;
    file.read_exact_at(&mut footer, at).map_err(io("read changed pages"))?;
    let (magic, numbers) = footer.split_at(8);
    let number = |i: usize| u64::from_le_bytes(numbers[i * 8..][..8].try_into().unwrap_or_default());
    let (of, count, pages) = (number(0), number(1), number(2));
    if magic != MAGIC {
        return Err(wrong("is of another format"));
    }
    if of != memory {
        return Err(wrong(&format!("is of a memory of {of} bytes, not {memory}")));
    }
    let most = memory / PAGE;
    let fits = count <= pages && pages <= most && size == pages * PAGE + count * EXTENT as u64 + FOOTER as u64;
    if !fits {
        return Err(wrong("has not the size its index says"));
    }
    let mut bytes = vec![0; usize::try_from(count).unwrap_or_default() * EXTENT];
    file.read_exact_at(&mut bytes, pages * PAGE).map_err(io("read changed pages"))?;
    let mut extents = Vec::with_capacity(bytes.len() / EXTENT);
    let (mut next, mut total) = (0, 0u64);
    for entry in bytes.chunks_exact(EXTENT) {
        let (first, count) = entry.split_at(8);
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        let extent = Extent { first: number(first), count: number(count) };
        let end = extent.first.checked_add(extent.count).filter(|&end| extent.count > 0 && end <= most);
        let Some(end) = end.filter(|_| extent.first >= next) else { return Err(wrong("has a page out of place")) };
        (next, total) = (end, total + extent.count);
        extents.push(extent);
    }
    if total != pages { Err(wrong("has another number of pages than it says")) } else { Ok(extents) }
}

#[cfg(test)]
mod tests {
    use ate_api::Reason;

    use super::*;

    const MEMORY: u64 = 64 * PAGE;

    fn written(extents: &[Extent]) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        let pages: u64 = extents.iter().map(|e| e.count).sum();
        file.write_all(&vec![7; (pages * PAGE) as usize]).unwrap();
        finish(&mut file, MEMORY, extents).unwrap();
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Extent>, Error> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        index(&file, MEMORY)
    }

    #[test]
    fn what_was_written_is_read() {
        let extents = [Extent { first: 0, count: 2 }, Extent { first: 5, count: 1 }, Extent { first: 63, count: 1 }];
        assert_eq!(read(&written(&extents)).unwrap(), extents);
        assert_eq!(read(&written(&[])).unwrap(), []);
    }

    #[test]
    fn no_page_outside_of_the_memory_and_no_page_twice() {
        for bad in [
            &[Extent { first: 63, count: 2 }][..],
            &[Extent { first: u64::MAX, count: 1 }],
            &[Extent { first: 3, count: 2 }, Extent { first: 4, count: 1 }],
            &[Extent { first: 9, count: 1 }, Extent { first: 1, count: 1 }],
        ] {
            assert_eq!(read(&written(bad)).unwrap_err().reason, Reason::SnapshotCorrupt, "{bad:?}");
        }
    }

    #[test]
    fn a_file_cut_short_grown_or_changed_in_its_index_is_refused() {
        let good = written(&[Extent { first: 1, count: 3 }]);
        for len in [0, 10, good.len() - 1, good.len() - PAGE as usize] {
            assert!(read(&good[..len]).is_err(), "{len}");
        }
        assert!(read(&[&good[..], &[0]].concat()).is_err());
        for at in good.len() - FOOTER - EXTENT..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0x80;
            assert!(read(&changed).is_err(), "byte {at}");
        }
    }
}
