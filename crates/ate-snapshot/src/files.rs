//! Files of a snapshot on disk: opened without following links, hashed, stamped, made durable.
//!
//! Everything here blocks.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use ate_api::id::Digest;
use rustix::{fs::OFlags, io::Errno};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::Error;

/// Large enough that system calls do not count, small enough to stay in the cache of a core.
pub(crate) const BLOCK: usize = 256 << 10;

/// What a file looked like when its bytes were verified. As long as it looks the same, they are the same: every
/// write changes `ctime`, which nobody can set, and every replacement the inode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    dev: u64,
    inode: u64,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
    owner: u32,
    group: u32,
    mode: u32,
}

impl Stamp {
    pub(crate) fn of(m: &Metadata) -> Self {
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Stamp {
            dev: m.dev(),
            inode: m.ino(),
            size: m.size(),
            mtime_ns: ns(m.mtime(), m.mtime_nsec()),
            ctime_ns: ns(m.ctime(), m.ctime_nsec()),
            owner: m.uid(),
            group: m.gid(),
            mode: m.mode(),
        }
    }

    /// Whether the two differ in nothing but `ctime`, which also changes when a hard link is made or removed.
    pub(crate) fn same_but_for_links(&self, other: &Stamp) -> bool {
        *self == Stamp { ctime_ns: self.ctime_ns, ..other.clone() }
    }
}

/// Opens a regular file (anything else is [`io::ErrorKind::InvalidInput`]), never through a symbolic link, never waiting for the other end of a pipe.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let irregular = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).map_err(|e| {
        // A symbolic link, a socket.
        let special = [Errno::LOOP, Errno::NXIO].map(|e| Some(e.raw_os_error()));
        if special.contains(&e.raw_os_error()) { irregular() } else { e }
    })?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(irregular()) }
}

/// Size and digest of what a reader yields, which is given on block by block.
pub(crate) fn hash(mut reader: impl Read, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<(u64, Digest)> {
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    let mut size = 0u64;
    loop {
        match reader.read(&mut block) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&block[..n]);
                each(&block[..n])?;
                size += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok((size, Digest::from_bytes(hasher.finalize().into())))
}

/// A file's size, digest and stamp; fails if it changes under the reader.
pub(crate) fn hash_file(path: &Path) -> io::Result<(u64, Digest, Stamp)> {
    let (file, before) = open_regular(path)?;
    let (size, digest) = hash(&file, |_| Ok(()))?;
    let stamp = Stamp::of(&file.metadata()?);
    if stamp != Stamp::of(&before) || size != before.len() {
        return Err(io::Error::other("it changed while it was read"));
    }
    Ok((size, digest, stamp))
}

/// The whole of a small file. Nothing if it is longer than `max`.
pub(crate) fn read_small(path: &Path, max: usize) -> io::Result<Option<Vec<u8>>> {
    let (file, _) = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= max).then_some(bytes))
}

pub(crate) fn sync_file(path: &Path) -> Result<(), Error> {
    let synced = open_regular(path).and_then(|(file, _)| file.sync_all());
    synced.map_err(|e| Error::io("make durable", path, &e))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let dir = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    dir.and_then(|d| d.sync_all()).map_err(|e| Error::io("make durable", path, &e))
}

/// Creates a new file, durable when this returns; its name becomes durable with the directory.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    create_new(path)
        .and_then(|mut file| {
            io::Write::write_all(&mut file, bytes)?;
            file.sync_all()
        })
        .map_err(|e| Error::io("write", path, &e))
}

/// A file that was not there before, for the owner alone.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Creates a directory and its missing parents, for the owner alone. Their names are not durable yet.
pub(crate) fn create_dir_all(path: &Path) -> Result<(), Error> {
    let created = fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
    created.map_err(|e| Error::io("create", path, &e))
}

/// The same for the directory everything else is below: when this returns, its name is durable.
pub(crate) fn create_root(path: &Path) -> Result<(), Error> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    create_dir_all(path)?;
    missing.into_iter().filter_map(Path::parent).try_for_each(sync_dir)
}

/// Names of the entries of a directory; a name that is not UTF-8 is an error.
pub(crate) fn entries(dir: &Path) -> Result<Vec<String>, Error> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| {
                let name = entry?.file_name();
                name.into_string().map_err(|n| io::Error::other(format!("name {n:?} is not UTF-8")))
            })
            .collect()
    };
    read().map_err(|e| Error::io("list", dir, &e))
}

/// Turns "it was not there" into success.
pub(crate) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// For the owner to read and nobody to write.
pub(crate) fn make_read_only(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o400))
}
