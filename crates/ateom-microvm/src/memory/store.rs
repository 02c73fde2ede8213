//! Saving memory and loading it again.

use std::{
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use ate_api::Error;

use super::{Memory, PAGE, PIECE, changed::Extent, pages};
use crate::error::{corrupt, io};

/// A file of pages of a snapshot: how much of it there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) pages: u64,
}

const ZEROS: [u8; PAGE as usize] = [0; PAGE as usize];

fn create(path: &Path) -> Result<File, Error> {
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(io(format!("create {}", path.display())))
}

/// Writes the whole memory into a new file, zeros as holes. `untouched` says that the base is nothing but zeros, so
/// that only what the machine wrote has to be looked at.
pub(crate) fn save_all(memory: &Memory, path: &Path, untouched: bool) -> Result<Saved, Error> {
    let file = create(path)?;
    file.set_len(memory.bytes).map_err(io("write the memory"))?;
    let everything = || vec![Extent { first: 0, count: memory.bytes / PAGE }];
    let extents = if untouched { memory.private()? } else { everything() };
    let mut pages = 0;
    each_piece(&extents, |at, len| {
        let mut piece = vec![0; len];
        memory.read(at, &mut piece)?;
        for run in runs(&piece, |_, page| page != ZEROS) {
            let bytes = &piece[run.clone()];
            file.write_all_at(bytes, at + run.start as u64).map_err(io("write the memory"))?;
            pages += bytes.len() as u64 / PAGE;
        }
        Ok(())
    })?;
    Ok(Saved { pages })
}

/// Writes the pages that differ from the base into a new file.
pub(crate) fn save_changed(memory: &Memory, path: &Path) -> Result<Saved, Error> {
    let mut writer = pages::Writer::new(create(path)?);
    let mut base = Vec::new();
    each_piece(&memory.private()?, |at, len| {
        let mut piece = vec![0; len];
        memory.read(at, &mut piece)?;
        base.resize(len, 0);
        memory.read_base(at, &mut base)?;
        for run in runs(&piece, |offset, page| page != &base[offset..offset + PAGE as usize]) {
            for offset in run.step_by(PAGE as usize) {
                writer.push((at + offset as u64) / PAGE, &piece[offset..offset + PAGE as usize])?;
            }
        }
        Ok(())
    })?;
    Ok(Saved { pages: writer.finish(memory.bytes)? })
}

/// Puts changed pages into the memory of a machine that has not started yet.
pub(crate) fn load(memory: &Memory, path: &Path) -> Result<Saved, Error> {
    let file = File::open(path).map_err(|e| corrupt(format!("cannot open {}: {e}", path.display())))?;
    let reader = pages::Reader::open(file, memory.bytes)?;
    let mut places = reader.extents.clone().into_iter();
    // Where the next page goes, and how many may follow it there.
    let (mut at, mut room) = (0, 0);
    let mut pages = 0;
    reader.each_block(|mut block| {
        while !block.is_empty() {
            if room == 0 {
                let Some(next) = places.next() else { return Err(corrupt("there are more pages than places")) };
                (at, room) = (next.offset(), next.bytes());
            }
            let (now, rest) = block.split_at(block.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            memory.write(at, now)?;
            (at, room, block) = (at + now.len() as u64, room - now.len() as u64, rest);
            pages += now.len() as u64 / PAGE;
        }
        Ok(())
    })?;
    Ok(Saved { pages })
}

/// Calls `work` with offset and length of pieces of at most [`PIECE`] bytes.
fn each_piece(extents: &[Extent], mut work: impl FnMut(u64, usize) -> Result<(), Error>) -> Result<(), Error> {
    for extent in extents {
        let end = extent.offset() + extent.bytes();
        let mut at = extent.offset();
        while at < end {
            let len = (end - at).min(PIECE);
            work(at, usize::try_from(len).unwrap_or_default())?;
            at += len;
        }
    }
    Ok(())
}

/// Ranges of neighbouring pages that are wanted, as offsets into the piece.
fn runs(piece: &[u8], wanted: impl Fn(usize, &[u8]) -> bool) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, page) in piece.chunks_exact(PAGE as usize).enumerate() {
        let at = i * PAGE as usize;
        if wanted(at, page) {
            match runs.last_mut() {
                Some(last) if last.end == at => last.end += page.len(),
                _ => runs.push(at..at + page.len()),
            }
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_pages_are_written_at_once() {
        let piece: Vec<u8> = [1, 2, 0, 3].iter().flat_map(|b| vec![*b; PAGE as usize]).collect();
        let page = PAGE as usize;
        assert_eq!(runs(&piece, |_, p| p[0] != 0), [0..2 * page, 3 * page..4 * page]);
    }

    #[test]
    fn a_large_extent_is_read_in_pieces() {
        let mut seen = Vec::new();
        let extents = [Extent { first: 1, count: PIECE / PAGE + 1 }, Extent { first: 1000, count: 1 }];
        each_piece(&extents, |at, len| {
            seen.push((at, len as u64));
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [(PAGE, PIECE), (PAGE + PIECE, PAGE), (1000 * PAGE, PAGE)]);
    }
}
