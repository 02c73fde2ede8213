//! Safe unpacking of archives from outside, for sandbox assets and image layers alike.
//!
//! The `tar` crate parses; it never writes. Every name goes through [`entry::Head`], which refuses what could
//! leave the directory, and every write through [`tree::Tree`], which opens paths beneath one directory
//! descriptor with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`: not even a symlink that the archive itself
//! made earlier can lead outside. What an entry *means* (whiteouts, ownership, devices) is up to the caller.

mod compression;
mod entry;
mod reader;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod tree;

use std::io;

pub(crate) use compression::decompressed;
pub(crate) use entry::{Head, Kind};
pub(crate) use reader::{Hashing, for_each_entry};
pub(crate) use tree::{Meta, Tree};

/// What an archive may grow to; without caps a few kilobytes fill a disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Entries in the archive.
    pub(crate) entries: u64,
    /// Bytes after decompression, and bytes written.
    pub(crate) bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The archive is damaged or hostile.
    #[error("{0}")]
    Invalid(String),
    /// The local disk failed or is full.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for UnpackError {
    fn from(e: rustix::io::Errno) -> Self {
        UnpackError::Io(e.into())
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> UnpackError {
    UnpackError::Invalid(message.into())
}
