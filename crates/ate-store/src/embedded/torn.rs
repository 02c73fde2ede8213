//! Repairs the one thing a power cut can leave that the tree does not repair by itself.
//!
//! A group is synced before the next is written, so only the last one can be incomplete, and then nobody was told it
//! happened. If its pages reached the disk out of order it has a beginning, an end, and a hole between: the tree takes
//! that for damage and does not open. Here that group, and nothing before it, is cut off.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Larger than any journal: the tree begins a new one with each memtable, after at most one group more.
const MAX_JOURNAL: u64 = 1 << 30;

/// What was cut off, so that it can be put back.
pub(super) struct Cut {
    journal: PathBuf,
    at: u64,
    bytes: Vec<u8>,
}

impl Cut {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The group was not what kept the store from opening: leave everything as it was found.
    pub(super) fn undo(self) -> io::Result<()> {
        let mut file = File::options().write(true).open(&self.journal)?;
        file.seek(SeekFrom::Start(self.at))?;
        file.write_all(&self.bytes)?;
        file.sync_all()
    }
}

/// Cuts the last group off the youngest journal. `None`: the journal does not end as a power cut would leave it.
pub(super) fn cut_last_group(store: &Path) -> io::Result<Option<Cut>> {
    let Some(journal) = youngest_journal(store)? else { return Ok(None) };
    let mut bytes = Vec::new();
    File::open(&journal)?.take(MAX_JOURNAL).read_to_end(&mut bytes)?;
    let Some(at) = last_group(&bytes) else { return Ok(None) };
    let file = File::options().write(true).open(&journal)?;
    file.set_len(at as u64)?;
    file.sync_all()?;
    Ok(Some(Cut { journal, at: at as u64, bytes: bytes.split_off(at) }))
}

fn youngest_journal(store: &Path) -> io::Result<Option<PathBuf>> {
    let mut youngest = None;
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        if let (Some("jnl"), Some(number)) = (path.extension().and_then(|e| e.to_str()), number) {
            youngest = youngest.max(Some((number, path)));
        }
    }
    Ok(youngest.map(|(_, path)| path))
}

/// Where the last group begins, if nothing but unused space follows it.
fn last_group(journal: &[u8]) -> Option<usize> {
    let (mut position, mut last) = (0, None);
    while let Some((entry, length)) = entry(&journal[position..]) {
        if entry == Entry::Start {
            last = Some(position);
        }
        position += length;
    }
    journal[position..].iter().all(|byte| *byte == 0).then_some(last).flatten()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Start,
    Item,
    End,
    Clear,
}

/// The entry at the beginning of the bytes and its length; `None` if there is none. The layout of fjall 3's journal.
fn entry(bytes: &[u8]) -> Option<(Entry, usize)> {
    /// Tag, kind, compression, keyspace (8), key length (2), value length (4), stored length (4).
    const ITEM: usize = 21;
    let (entry, length) = match bytes.first()? {
        1 => (Entry::Start, 1 + 4 + 8),
        2 => {
            let head = bytes.get(..ITEM)?;
            let key = u16::from_le_bytes([head[11], head[12]]);
            let stored = u32::from_le_bytes([head[17], head[18], head[19], head[20]]);
            (Entry::Item, ITEM + usize::from(key) + stored as usize)
        }
        3 => (Entry::End, 1 + 8 + 4),
        4 => (Entry::Clear, 1 + 8),
        _ => return None,
    };
    (length <= bytes.len()).then_some((entry, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_journals() {
        ate_fuzz::Target::named("store.journal")
            .sample("two-groups", || {
                let item = |key: &[u8], value: &[u8]| {
                    let (key_length, length) = ((key.len() as u16).to_le_bytes(), (value.len() as u32).to_le_bytes());
                    [&[2, 0, 0][..], &[0; 8], &key_length, &length, &length, key, value].concat()
                };
                let group = |item: Vec<u8>| [&[1; 1][..], &[0; 12], &item, &[3], &[0; 12]].concat();
                [group(item(b"a", b"first")), group(item(b"b", b"second")), vec![0; 64]].concat()
            })
            .run(|bytes| match last_group(bytes) {
                Some(at) => {
                    assert_eq!(bytes[at], 1, "a group begins there");
                    Ok(())
                }
                None => Err("it does not end as a power cut leaves it"),
            });
    }
}
