//! The file format of changed pages.
//!
//! ```text
//! block, block, …                     compressed with LZ4, each of BLOCK bytes of pages, the last of what is left
//! extent, extent, …                   u64 first page, u64 number of pages; ascending, none touching the next
//! length, length, …                   u32 bytes of each block in this file
//! magic  b"ATEPAGE2"                  8 bytes
//! u64 size of the memory in bytes, u64 number of extents, u64 number of pages
//! ```
//!
//! Pages of 4096 bytes in the order of the extents. All numbers little-endian. The index is at the end, so that pages
//! are written as they are found.

use std::{
    fs::File,
    io::{BufWriter, Write},
    os::unix::fs::FileExt,
};

use ate_api::Error;
use lz4_flex::block;

use super::{
    PAGE,
    changed::{Extent, Extents},
};
use crate::error::{corrupt, io};

const MAGIC: &[u8; 8] = b"ATEPAGE2";
const FOOTER: usize = 32;
const EXTENT: usize = 16;
const LENGTH: usize = 4;
/// Bytes of pages that are compressed as one.
const BLOCK: usize = 256 << 10;

/// Writes a file.
pub(super) struct Writer {
    file: BufWriter<File>,
    extents: Extents,
    lengths: Vec<u32>,
    /// The block that is being filled.
    block: Vec<u8>,
}

impl Writer {
    pub(super) fn new(file: File) -> Self {
        let block = Vec::with_capacity(BLOCK);
        Writer { file: BufWriter::new(file), extents: Extents::default(), lengths: Vec::new(), block }
    }

    /// A page of a higher number than those before.
    pub(super) fn push(&mut self, number: u64, page: &[u8]) -> Result<(), Error> {
        self.extents.push(number);
        self.block.extend_from_slice(page);
        if self.block.len() >= BLOCK { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<(), Error> {
        let compressed = block::compress(&self.block);
        self.block.clear();
        self.lengths.push(u32::try_from(compressed.len()).unwrap_or(u32::MAX));
        self.file.write_all(&compressed).map_err(io("write changed pages"))
    }

    /// Ends a file for a memory of this size and returns the number of pages in it.
    pub(super) fn finish(mut self, memory: u64) -> Result<u64, Error> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let extents = &self.extents.0;
        let mut index = Vec::with_capacity(extents.len() * EXTENT + self.lengths.len() * LENGTH + FOOTER);
        for extent in extents {
            index.extend_from_slice(&extent.first.to_le_bytes());
            index.extend_from_slice(&extent.count.to_le_bytes());
        }
        self.lengths.iter().for_each(|length| index.extend_from_slice(&length.to_le_bytes()));
        index.extend_from_slice(MAGIC);
        let pages: u64 = extents.iter().map(|e| e.count).sum();
        for number in [memory, extents.len() as u64, pages] {
            index.extend_from_slice(&number.to_le_bytes());
        }
        self.file.write_all(&index).and_then(|()| self.file.flush()).map_err(io("write changed pages"))?;
        Ok(pages)
    }
}

/// Reads a file.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    pub(super) extents: Vec<Extent>,
    lengths: Vec<u32>,
    /// Bytes of pages there are.
    bytes: u64,
}

impl Reader {
    /// Of a file whose index is in all as it must be for a memory of this size.
    pub(super) fn open(file: File, memory: u64) -> Result<Self, Error> {
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
        if count > pages || pages > memory / PAGE {
            return Err(wrong("has more pages than the memory"));
        }
        let bytes = pages * PAGE;
        let (extents, lengths) = (count * EXTENT as u64, bytes.div_ceil(BLOCK as u64) * LENGTH as u64);
        let begin = at.checked_sub(extents + lengths).ok_or_else(|| wrong("is too short"))?;
        let mut index = vec![0; usize::try_from(extents + lengths).unwrap_or_default()];
        file.read_exact_at(&mut index, begin).map_err(io("read changed pages"))?;
        let (extents, lengths) = index.split_at(usize::try_from(extents).unwrap_or_default());
        let extents = parse_extents(extents, memory / PAGE, pages)?;
        let length = |entry: &[u8]| u32::from_le_bytes(entry.try_into().unwrap_or_default());
        let lengths: Vec<u32> = lengths.chunks_exact(LENGTH).map(length).collect();
        let most = block::get_maximum_output_size(BLOCK) as u64;
        if lengths.iter().any(|l| u64::from(*l) > most) || lengths.iter().map(|l| u64::from(*l)).sum::<u64>() != begin {
            return Err(wrong("has not the size its index says"));
        }
        Ok(Reader { file, extents, lengths, bytes })
    }

    /// Calls `work` with the pages, in pieces of whole pages in the order of the extents.
    pub(super) fn each_block(self, mut work: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let (mut at, mut left) = (0, usize::try_from(self.bytes).unwrap_or_default());
        let mut pages = vec![0; BLOCK.min(left)];
        for length in self.lengths {
            let mut compressed = vec![0; length as usize];
            self.file.read_exact_at(&mut compressed, at).map_err(io("read changed pages"))?;
            at += u64::from(length);
            let block = &mut pages[..BLOCK.min(left)];
            match block::decompress_into(&compressed, block) {
                Ok(n) if n == block.len() => {}
                Ok(_) => return Err(wrong("has a block that is too short")),
                Err(e) => return Err(wrong(&format!("has a damaged block: {e}"))),
            }
            work(block)?;
            left -= block.len();
        }
        Ok(())
    }
}

fn parse_extents(bytes: &[u8], most: u64, pages: u64) -> Result<Vec<Extent>, Error> {
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

fn wrong(what: &str) -> Error {
    corrupt(format!("the file of changed pages {what}"))
}

#[cfg(test)]
mod tests {
    use ate_api::Reason;

    use super::*;

    const MEMORY: u64 = 256 * PAGE;

    /// Half of a page is noise, so that blocks are as large as those of real memory.
    fn page(number: u64) -> Vec<u8> {
        let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state as u8
        });
        noise.take(PAGE as usize / 2).chain(std::iter::repeat_n(7, PAGE as usize / 2)).collect()
    }

    fn written(pages: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file.reopen().unwrap());
        pages.into_iter().for_each(|n| writer.push(n, &page(n)).unwrap());
        writer.finish(MEMORY).unwrap();
        std::fs::read(file.path()).unwrap()
    }

    fn open(bytes: &[u8]) -> Result<Reader, Error> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Reader::open(file, MEMORY)
    }

    fn read(bytes: &[u8]) -> Result<(Vec<Extent>, Vec<u8>), Error> {
        let reader = open(bytes)?;
        let (extents, mut pages) = (reader.extents.clone(), Vec::new());
        reader.each_block(|block| {
            pages.extend_from_slice(block);
            Ok(())
        })?;
        Ok((extents, pages))
    }

    #[test]
    fn what_was_written_is_read() {
        let numbers: Vec<u64> = [0, 1, 5].into_iter().chain(70..200).chain([255]).collect();
        let (extents, pages) = read(&written(numbers.clone())).unwrap();
        let expected = [(0, 2), (5, 1), (70, 130), (255, 1)].map(|(first, count)| Extent { first, count });
        assert_eq!(extents, expected);
        assert!(pages == numbers.iter().flat_map(|n| page(*n)).collect::<Vec<u8>>());
        assert_eq!(read(&written([])).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn no_page_outside_of_the_memory_and_no_page_twice() {
        for bad in [&[256][..], &[u64::MAX], &[3, 4, 3], &[9, 1]] {
            let refused = open(&written(bad.iter().copied())).unwrap_err();
            assert_eq!(refused.reason, Reason::SnapshotCorrupt, "{bad:?}");
        }
    }

    #[test]
    fn a_file_cut_short_grown_or_changed_in_its_index_is_refused() {
        let good = written(1..70);
        for len in [0, 10, good.len() - 1, good.len() - PAGE as usize] {
            assert!(read(&good[..len]).is_err(), "{len}");
        }
        assert!(read(&[&good[..], &[0]].concat()).is_err());
        for at in good.len() - FOOTER - 2 * LENGTH - EXTENT..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0xff;
            assert!(read(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn fuzz_files_of_changed_pages() {
        ate_fuzz::Target::named("microvm.pages")
            .sample("extents", || written([0, 1, 5].into_iter().chain(70..140).chain([255])))
            .sample("none", || written([]))
            .run(|bytes| {
                let (extents, pages) = read(bytes)?;
                assert_eq!(pages.len() as u64, extents.iter().map(|e| e.bytes()).sum::<u64>());
                assert!(extents.iter().all(|e| e.first + e.count <= MEMORY / PAGE));
                Ok::<_, Error>(())
            });
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn a_damaged_block_is_an_error_or_other_pages_and_no_more(at in 0usize..20_000, bits in 1u8..) {
            let mut bytes = written(1..70);
            let at = at % bytes.len();
            bytes[at] ^= bits;
            if let Ok((extents, pages)) = read(&bytes) {
                assert_eq!(pages.len() as u64, extents.iter().map(|e| e.bytes()).sum::<u64>());
            }
        }
    }
}
