//! Writes into one directory and nowhere else.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid},
    io::Errno,
};

use super::{UnpackError, invalid};

pub(crate) type Xattrs = Vec<(OsString, Vec<u8>)>;

/// Attributes of a file to be.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
    pub(crate) xattrs: Xattrs,
}

/// A directory being filled. All paths are relative to it and contain neither `..` nor symlinks.
pub(crate) struct Tree {
    root: OwnedFd,
}

impl Tree {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Tree { root: fs::openat(CWD, dir, flags, Mode::empty())? })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// A directory below; empty is the root.
    pub(crate) fn dir(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        self.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn open_beneath(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        fs::openat2(&self.root, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve)
    }
}

/// What is there under a name, not following a symlink.
pub(crate) fn stat(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<Option<Stat>> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(crate) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Removes whatever is there under a name.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match stat(dir, name)? {
        Some(s) if is_dir(&s) => std::fs::remove_dir_all(through(dir, name)),
        Some(_) => Ok(fs::unlinkat(dir, name, AtFlags::empty())?),
        None => Ok(()),
    }
}

/// A path to a name in an open directory, for calls that take no directory descriptor. `name` is one component,
/// so nothing but the last step is resolved.
pub(crate) fn through(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

/// A new file with exactly `size` bytes of `data`.
pub(crate) fn write_file(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    data: &mut dyn Read,
    size: u64,
    meta: &Meta,
) -> Result<(), UnpackError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?);
    let mut buf = vec![0; 128 * 1024];
    let mut written = 0u64;
    loop {
        // Told apart, since a read that fails is the archive's fault and a write that fails the disk's.
        let n = match data.read(&mut buf) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.raw_os_error().is_none() => return Err(invalid(format!("{}: {e}", name.display()))),
            Err(e) => return Err(e.into()),
        };
        io::Write::write_all(&mut file, &buf[..n])?;
        written += n as u64;
    }
    if written != size {
        return Err(invalid(format!("{} ends after {written} of {size} bytes", name.display())));
    }
    set_meta(dir, name, meta)?;
    Ok(())
}

pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    fs::mkdirat(dir, name, Mode::RWXU)
}

pub(crate) fn make_node(dir: BorrowedFd<'_>, name: &OsStr, kind: FileType, dev: u64) -> rustix::io::Result<()> {
    fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, dev)
}

/// Owner, attributes, mode and time of something just made here, in the order that keeps set-uid bits and file
/// capabilities (a change of owner clears both).
pub(crate) fn set_meta(dir: BorrowedFd<'_>, name: &OsStr, meta: &Meta) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
    fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    for (key, value) in &meta.xattrs {
        // Sets the attribute of the name itself; a symlink is not followed.
        xattr::set(through(dir, name), key, value)?;
    }
    let is_symlink = stat(dir, name)?.is_some_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Symlink);
    if !is_symlink {
        fs::chmodat(dir, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
    }
    set_mtime(dir, name, meta.mtime)
}

pub(crate) fn set_mtime(dir: impl AsFd, name: &OsStr, mtime: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
