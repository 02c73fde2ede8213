//! One archive entry, checked: its name stays inside, its kind is known, its attributes are bounded.

use std::{
    ffi::{OsStr, OsString},
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use super::{Meta, UnpackError, invalid, tree::Xattrs};

/// What the kernel takes as a path, terminator included.
const MAX_PATH: usize = 4096;
/// What file systems take as one name.
const MAX_NAME: usize = 255;
/// Uids and gids beyond are not representable.
const MAX_ID: u64 = u32::MAX as u64 - 1;
/// Mode bits an archive may set.
const MODE_BITS: u32 = 0o7777;
/// pax records that hold extended attributes.
const PAX_XATTR: &str = "SCHILY.xattr.";

/// Name, kind and attributes of an entry.
#[derive(Debug)]
pub(crate) struct Head {
    /// Relative, without `.` and `..`; empty for the top directory itself.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) meta: Meta,
    pub(crate) size: u64,
}

#[derive(Debug)]
pub(crate) enum Kind {
    File,
    Dir,
    /// The target is stored as it is: it is resolved where the tree is used, never here.
    Symlink(PathBuf),
    /// Path of an earlier entry, cleaned like [`Head::path`].
    HardLink(PathBuf),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

impl Head {
    /// `None` for entries that stand for no file.
    pub(super) fn read<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Option<Head>, UnpackError> {
        use tar::EntryType as T;
        let shown = entry.path_bytes();
        let path = inside(Path::new(OsStr::from_bytes(&shown)))?;
        let link = |entry: &tar::Entry<'_, R>| -> Result<PathBuf, UnpackError> {
            let bytes = entry.link_name_bytes().unwrap_or_default();
            if bytes.is_empty() || bytes.len() >= MAX_PATH || bytes.contains(&0) {
                return Err(invalid(format!("the link {} has no usable target", path.display())));
            }
            Ok(PathBuf::from(OsStr::from_bytes(&bytes)))
        };
        let header = entry.header();
        let device = || -> Result<(u32, u32), UnpackError> {
            Ok((header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0)))
        };
        let kind = match header.entry_type() {
            // Old archives mark a directory by a trailing slash only.
            T::Regular if shown.ends_with(b"/") => Kind::Dir,
            T::Regular | T::Continuous | T::GNUSparse => Kind::File,
            T::Directory => Kind::Dir,
            T::Symlink => Kind::Symlink(link(entry)?),
            T::Link => Kind::HardLink(inside(&link(entry)?)?),
            T::Char => device().map(|(major, minor)| Kind::Char(major, minor))?,
            T::Block => device().map(|(major, minor)| Kind::Block(major, minor))?,
            T::Fifo => Kind::Fifo,
            T::XGlobalHeader => return Ok(None),
            other => return Err(invalid(format!("{} is of unknown kind {:#04x}", path.display(), other.as_byte()))),
        };
        let id = |n: u64| if n <= MAX_ID { Ok(n as u32) } else { Err(invalid(format!("no such user or group: {n}"))) };
        let (uid, gid) = (id(header.uid()?)?, id(header.gid()?)?);
        let (mode, mtime) = (header.mode()? & MODE_BITS, header.mtime()?);
        let mtime = i64::try_from(mtime).unwrap_or(0);
        let meta = Meta { mode, uid, gid, mtime, xattrs: xattrs(entry, &path)? };
        Ok(Some(Head { path, kind, meta, size: entry.size() }))
    }
}

/// Removes `.` and a leading `/` (both are customary); refuses `..`, because no honest archive has it.
fn inside(path: &Path) -> Result<PathBuf, UnpackError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() >= MAX_PATH || bytes.contains(&0) {
        return Err(invalid("an entry has an empty or overlong name"));
    }
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) if name.len() <= MAX_NAME => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            _ => return Err(invalid(format!("the name {} leads out of the archive", path.display()))),
        }
    }
    Ok(clean)
}

/// File capabilities, access lists and user attributes. The rest would be dangerous (`trusted.overlay.*` can
/// redirect a directory) or mean nothing on another machine (labels of security modules).
fn wanted(name: &[u8]) -> bool {
    let user = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    user || name == b"security.capability" || name.starts_with(b"system.posix_acl_")
}

fn xattrs<R: Read>(entry: &mut tar::Entry<'_, R>, path: &Path) -> Result<Xattrs, UnpackError> {
    let mut found = Xattrs::new();
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        let key = record.key_bytes();
        if key.starts_with(b"GNU.sparse.") {
            return Err(invalid(format!("{} is stored as a pax sparse file, which is not supported", path.display())));
        }
        if let Some(name) = key.strip_prefix(PAX_XATTR.as_bytes()).filter(|n| wanted(n)) {
            found.push((OsString::from(OsStr::from_bytes(name)), record.value_bytes().to_vec()));
        }
    }
    Ok(found)
}
