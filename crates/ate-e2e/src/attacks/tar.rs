//! Archives as no honest tool writes them.

use tar::{EntryType, Header};

/// A tar archive, entry by entry.
#[derive(Default)]
pub(super) struct Tar(Vec<u8>);

impl Tar {
    pub(super) fn file(self, name: &str, bytes: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, bytes, &|_| {})
    }

    pub(super) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, &[], &|h| put(&mut h.as_old_mut().linkname, target))
    }

    pub(super) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, &[], &|h| put(&mut h.as_old_mut().linkname, target))
    }

    /// A file of `size` bytes that takes none here: one hole.
    pub(super) fn sparse(self, name: &str, size: u64) -> Self {
        self.entry(EntryType::GNUSparse, name, &[], &|header| {
            let gnu = header.as_gnu_mut().expect("made as gnu");
            binary(&mut gnu.realsize, size);
            binary(&mut gnu.sparse[0].offset, size);
            binary(&mut gnu.sparse[0].numbytes, 0);
        })
    }

    /// Names are put as they are; the library's own way would refuse them.
    fn entry(mut self, kind: EntryType, name: &str, bytes: &[u8], more: &dyn Fn(&mut Header)) -> Self {
        let mut header = Header::new_gnu();
        if name.len() >= 100 {
            self = self.entry(EntryType::GNULongName, "././@LongLink", format!("{name}\0").as_bytes(), &|_| {});
        }
        put(&mut header.as_old_mut().name, name.get(..99).unwrap_or(name));
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        more(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn bytes(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    pub(super) fn zstd(self) -> Vec<u8> {
        zstd::encode_all(&self.bytes()[..], 1).expect("compress")
    }
}

fn put(field: &mut [u8], text: &str) {
    assert!(text.len() < field.len(), "{text} does not fit into a header");
    field[..text.len()].copy_from_slice(text.as_bytes());
}

/// A number in the binary form of GNU tar, for those that octal digits are too few for.
fn binary(field: &mut [u8; 12], number: u64) {
    *field = [0; 12];
    field[0] = 0x80;
    field[4..].copy_from_slice(&number.to_be_bytes());
}
