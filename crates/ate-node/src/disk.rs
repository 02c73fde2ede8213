//! Small durable steps on disk that both caches take: private directories, atomic writes, telling a full disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::Path,
};

/// What to do when [`is_failing`].
pub(crate) const FAILS: &str = "look at what the kernel's log of the machine says about the disk";

/// Makes a directory only the node can enter. Refuses a symlink and somebody else's directory: whoever can
/// write there could swap bytes after they were verified.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let meta = fs::symlink_metadata(path)?;
    let ours = rustix::process::geteuid().as_raw();
    if !meta.is_dir() || meta.uid() != ours {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a directory owned by this user"));
    }
    if meta.mode() & 0o7777 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Whether it is a directory that [`private_dir`] would leave as it is.
pub(crate) fn is_private_dir(path: &Path) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|m| m.is_dir() && m.uid() == ours && m.mode() & 0o7777 == 0o700)
}

/// Makes names created, renamed or removed in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Puts a small file in place: all of it or nothing, also after a power cut. `tmp` is on the same file system.
pub(crate) fn write_durably(path: &Path, bytes: &[u8], tmp: &Path) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(tmp)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Removes a file or a whole directory; absent is fine.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Empties a directory of what a crash left in it.
pub(crate) fn clear(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        remove(&entry?.path())?;
    }
    Ok(())
}

/// Whether the disk reports errors or takes no writes, so that nothing else is to blame.
pub(crate) fn is_failing(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::ReadOnlyFilesystem || e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

pub(crate) fn is_full(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
