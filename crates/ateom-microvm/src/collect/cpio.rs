//! Writes the archive that the kernel unpacks as its first filesystem: cpio of the form `newc`, not compressed.
//!
//! Not compressed, because unpacking it costs an emulated guest more than reading it.

use std::io::Write;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const END: &str = "TRAILER!!!";

/// Everything in it is owned by root and of no time.
#[derive(Default)]
pub(crate) struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    pub(crate) fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) {
        self.entry(path, REGULAR | permissions, (0, 0), contents);
    }

    pub(crate) fn character_device(&mut self, path: &str, permissions: u32, device: (u32, u32)) {
        self.entry(path, CHARACTER_DEVICE | permissions, device, &[]);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        let inode = if path == END { 0 } else { self.entries };
        let links = if mode & DIRECTORY != 0 && mode & REGULAR == 0 { 2 } else { 1 };
        let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        // inode, mode, user, group, links, time, size, device it is on, device it is, length of the name, checksum
        #[rustfmt::skip]
        let fields = [
            inode, mode, 0, 0, links, 0, length(contents.len()), 0, 0, device.0, device.1, length(path.len() + 1), 0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            // Writing into memory cannot fail.
            let _ = write!(self.bytes, "{field:08X}");
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
