//! The guest's memory, from outside: which pages the machine has changed, and how they are stored.
//!
//! A machine's memory is always a private mapping of a file, its *base*: the golden snapshot's memory, or nothing but
//! zeros after a boot. What the guest writes becomes private pages of the VMM's process, which the kernel can name
//! (`/proc/PID/pagemap`). So many machines share the pages of one golden, a restore reads only what it touches, and
//! saving costs what was changed.

mod changed;
mod pages;
mod store;

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use ate_api::Error;

pub(crate) use store::{Saved, load, save_all, save_changed};

use crate::error::{failed, io};

/// Bytes; what the guest and the host both use here.
pub(crate) const PAGE: u64 = 4096;
/// Copied at once.
const PIECE: u64 = 1 << 20;

/// The memory of a running or stopped machine.
#[derive(Debug)]
pub(crate) struct Memory {
    base: File,
    /// `/proc/PID/mem`.
    mem: File,
    pagemap: File,
    start: u64,
    pub(crate) bytes: u64,
}

impl Memory {
    /// Finds the mapping of `base` in the process.
    pub(crate) fn of(pid: u32, base: &Path, bytes: u64) -> Result<Self, Error> {
        let proc = Path::new("/proc").join(pid.to_string());
        let base = File::open(base).map_err(io("open the memory file"))?;
        let inode = base.metadata().map_err(io("look at the memory file"))?.ino();
        let maps = fs::read_to_string(proc.join("maps")).map_err(io("read the VMM's mappings"))?;
        let start = find(&maps, inode, bytes).ok_or_else(|| failed("the VMM has not mapped the memory file"))?;
        let mem = File::options().read(true).write(true).open(proc.join("mem"));
        let pagemap = File::open(proc.join("pagemap"));
        Ok(Memory {
            base,
            mem: mem.map_err(io("open the VMM's memory"))?,
            pagemap: pagemap.map_err(io("open the VMM's page table"))?,
            start,
            bytes,
        })
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.mem.read_exact_at(buffer, self.start + at).map_err(io("read the guest's memory"))
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.mem.write_all_at(bytes, self.start + at).map_err(io("write the guest's memory"))
    }

    fn read_base(&self, at: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.base.read_exact_at(buffer, at).map_err(io("read the memory file"))
    }
}

/// Start of the mapping of a file of `bytes` bytes, in the text of `/proc/PID/maps`.
fn find(maps: &str, inode: u64, bytes: u64) -> Option<u64> {
    maps.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (from, to) = words.next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let (_permissions, offset, _device) = (words.next()?, words.next()?, words.next()?);
        let same = words.next()?.parse() == Ok(inode) && to - from == bytes && offset.bytes().all(|b| b == b'0');
        same.then_some(from)
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn the_mapping_of_the_memory_file_is_found_by_inode_and_size() {
        let maps = "7f0000000000-7f0008000000 rw-p 00000000 fe:00 4711                       /x/memory\n\
                    7f0008000000-7f0008001000 r--p 00001000 fe:00 4712                       /x/lib.so\n\
                    7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]\n";
        assert_eq!(find(maps, 4711, 128 << 20), Some(0x7f00_0000_0000));
        assert_eq!(find(maps, 4711, 64 << 20), None);
        assert_eq!(find(maps, 4712, 4096), None, "not from its beginning");
    }
}
