//! Applies one layer archive to a directory that overlayfs can use as a lower layer.
//!
//! Why own code: the crates that unpack images (compared for this project) flatten all layers into one tree, and
//! none of them keeps devices, fifos and extended attributes; per-layer sharing needs whiteouts in overlay form.
//! So the `tar` crate parses and this file translates. What a layer means depends on those below it in three
//! ways, which is why layers are stored by chain id and unpacked lowest first:
//! - a parent directory that the archive does not list keeps the attributes it has below;
//! - a parent that is a symlink below (`lib -> usr/lib`) is followed, inside the image;
//! - a hard link may name a file of a lower layer, which is copied up first.
//!
//! A device 0:0 would read as a whiteout, so archives that contain one are refused; all other kinds are kept.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use ate_api::id::Digest;
use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, makedev},
    io::Errno,
};

use super::merged::{Child, MergedDir, OPAQUE, is_whiteout};
use crate::unpack::{
    Head, Kind, Limits, Meta, Tree, UnpackError, decompressed, for_each_entry, invalid,
    tree::{is_dir, make_dir, make_node, remove, set_meta, set_mtime, stat, through, write_file},
};

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
/// Book-keeping of old tools, no files of the image.
const AUFS_PREFIX: &[u8] = b".wh..wh.";

/// For directories nobody describes.
const PLAIN_DIR: Meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };

/// Unpacks `archive` (compressed or not) into the empty directory `into`; `below` are the unpacked lower layers,
/// lowest first. Returns the digest of the uncompressed archive (the layer's diff id).
pub(super) fn apply(archive: impl Read, into: &Path, below: &[PathBuf], limits: Limits) -> Result<Digest, UnpackError> {
    let upper = Tree::open(into)?;
    let mut dirs = vec![Arc::new(upper.dir(Path::new(""))?)];
    for layer in below.iter().rev() {
        dirs.push(Arc::new(Tree::open(layer)?.dir(Path::new(""))?));
    }
    let lower = MergedDir::new(dirs[1..].to_vec());
    let root_meta = lower.top().map_or(Ok(PLAIN_DIR), dir_meta)?;
    let mut layer = Layer {
        upper,
        merged: MergedDir::new(dirs),
        lower,
        parent: None,
        mtimes: BTreeMap::from([(PathBuf::new(), root_meta.mtime)]),
        copied: 0,
        limits,
    };
    set_meta(layer.upper.root(), OsStr::new("."), &root_meta)?;
    let stream = decompressed(archive)?;
    let (diff_id, _) = for_each_entry(stream, limits, |head, data| layer.entry(head, data))?;
    // Last, because filling a directory touches its time.
    for (path, mtime) in layer.mtimes.iter().rev() {
        if let Ok(dir) = layer.upper.dir(path) {
            set_mtime(dir, OsStr::new("."), *mtime)?;
        }
    }
    fs::syncfs(layer.upper.root())?;
    Ok(diff_id)
}

struct Layer {
    upper: Tree,
    /// This layer over those below.
    merged: MergedDir,
    /// Those below alone.
    lower: MergedDir,
    /// The parent of the entry before: archives list directories in a row. Whatever replaces a directory is an
    /// entry of another parent, so this one is never stale.
    parent: Option<(PathBuf, Arc<Place>)>,
    /// Directories made here and the times they shall have in the end.
    mtimes: BTreeMap<PathBuf, i64>,
    /// Bytes copied up from lower layers.
    copied: u64,
    limits: Limits,
}

/// A directory of the upper layer.
struct Place {
    /// Free of symlinks.
    path: PathBuf,
    dir: OwnedFd,
}

impl Layer {
    fn entry(&mut self, head: Head, data: &mut dyn Read) -> Result<(), UnpackError> {
        let (Some(name), Some(parent)) = (head.path.file_name(), head.path.parent()) else {
            if !matches!(head.kind, Kind::Dir) {
                return Err(invalid("the top of the archive is not a directory"));
            }
            self.mtimes.insert(PathBuf::new(), head.meta.mtime);
            return Ok(set_meta(self.upper.root(), OsStr::new("."), &head.meta)?);
        };
        let parent = self.parent(parent)?;
        let bytes = name.as_bytes();
        if bytes == OPAQUE_MARKER {
            return self.hide_below(&parent.path, parent.dir.as_fd(), OsStr::new("."));
        }
        if bytes.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        match bytes.strip_prefix(WHITEOUT_PREFIX) {
            Some(b"" | b"." | b"..") => Err(invalid(format!("bad whiteout {}", head.path.display()))),
            Some(hidden) => self.whiteout(&parent, OsStr::from_bytes(hidden)),
            None => self.place(&parent, name, &head, data),
        }
    }

    /// The upper directory that `path` means, made if it is not there yet.
    fn parent(&mut self, path: &Path) -> Result<Arc<Place>, UnpackError> {
        if let Some((last, place)) = &self.parent
            && last == path
        {
            return Ok(place.clone());
        }
        let resolved = self.merged.resolve(path, true)?;
        if matches!(resolved.child, Some(Child::Other(..) | Child::Symlink(_))) {
            return Err(invalid(format!("{} is not a directory", path.display())));
        }
        let dir = match self.upper.dir(&resolved.path) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_dirs(&resolved.path)?,
            Err(e) => return Err(e.into()),
        };
        let place = Arc::new(Place { path: resolved.path, dir });
        self.parent = Some((path.to_owned(), place.clone()));
        Ok(place)
    }

    /// Directories the archive does not list look as they do below.
    fn make_dirs(&mut self, path: &Path) -> Result<OwnedFd, UnpackError> {
        let mut at = PathBuf::new();
        let mut dir = self.upper.dir(&at)?;
        for name in path {
            let child = at.join(name);
            dir = match self.upper.dir(&child) {
                Ok(found) => found,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let meta = match self.merged.resolve(&child, false)?.child {
                        Some(Child::Dir(below)) => below.top().map_or(Ok(PLAIN_DIR), dir_meta)?,
                        _ => PLAIN_DIR,
                    };
                    self.place_dir(&child, dir.as_fd(), name, &meta)?;
                    self.upper.dir(&child)?
                }
                Err(e) => return Err(e.into()),
            };
            at = child;
        }
        Ok(dir)
    }

    /// What lower layers have at a path, symlinks not followed.
    fn lower_child(&self, path: &Path) -> Result<Option<Child>, UnpackError> {
        let mut dir = self.lower.clone();
        let mut names = path.iter().peekable();
        while let Some(name) = names.next() {
            match dir.child(name)? {
                Some(Child::Dir(next)) if names.peek().is_some() => dir = next,
                found if names.peek().is_none() => return Ok(found),
                _ => return Ok(None),
            }
        }
        Ok(Some(Child::Dir(dir)))
    }

    fn place(&mut self, parent: &Place, name: &OsStr, head: &Head, data: &mut dyn Read) -> Result<(), UnpackError> {
        let dir = parent.dir.as_fd();
        if matches!(head.kind, Kind::Dir) {
            return self.place_dir(&parent.path.join(name), dir, name, &head.meta);
        }
        if let Kind::HardLink(target) = &head.kind {
            return self.hard_link(parent, name, target);
        }
        remove(dir, name)?;
        let node = |kind, major, minor| -> Result<(), UnpackError> {
            if (major, minor) == (0, 0) && kind == FileType::CharacterDevice {
                return Err(invalid(format!("{} is the device 0:0, which would hide files", head.path.display())));
            }
            Ok(make_node(dir, name, kind, makedev(major, minor))?)
        };
        match &head.kind {
            Kind::File => return write_file(dir, name, data, head.size, &head.meta),
            Kind::Symlink(target) => fs::symlinkat(target, dir, name)?,
            Kind::Char(major, minor) => node(FileType::CharacterDevice, *major, *minor)?,
            Kind::Block(major, minor) => node(FileType::BlockDevice, *major, *minor)?,
            Kind::Fifo => make_node(dir, name, FileType::Fifo, 0)?,
            Kind::Dir | Kind::HardLink(_) => unreachable!("handled above"),
        }
        Ok(set_meta(dir, name, &head.meta)?)
    }

    fn place_dir(&mut self, path: &Path, dir: BorrowedFd<'_>, name: &OsStr, meta: &Meta) -> Result<(), UnpackError> {
        match stat(dir, name)? {
            Some(s) if is_dir(&s) => {}
            Some(_) => {
                // What was here hid the lower directory of this name; the new one must not bring it back.
                remove(dir, name)?;
                make_dir(dir, name)?;
                self.hide_below(path, dir, name)?;
            }
            None => make_dir(dir, name)?,
        }
        self.mtimes.insert(path.to_owned(), meta.mtime);
        Ok(set_meta(dir, name, meta)?)
    }

    fn hard_link(&mut self, parent: &Place, name: &OsStr, target: &Path) -> Result<(), UnpackError> {
        let missing = || invalid(format!("the hard link to {} has no target", target.display()));
        let (Some(target_name), Some(target_parent)) = (target.file_name(), target.parent()) else {
            return Err(missing());
        };
        let from = self.merged.resolve(target_parent, true)?;
        let Some(Child::Dir(merged)) = from.child else { return Err(missing()) };
        let from_path = from.path;
        if from_path == parent.path && target_name == name {
            return Ok(());
        }
        let in_upper = match self.upper.dir(&from_path) {
            Ok(dir) => stat(&dir, target_name)?.filter(|s| !is_whiteout(s)).map(|s| (dir, s)),
            Err(Errno::NOENT | Errno::NOTDIR) => None,
            Err(e) => return Err(e.into()),
        };
        let source = match in_upper {
            Some((_, s)) if is_dir(&s) => return Err(missing()),
            Some((dir, _)) => dir,
            None => match merged.child(target_name)? {
                Some(Child::Other(file, s)) if FileType::from_raw_mode(s.st_mode) == FileType::RegularFile => {
                    self.copy_up(&from_path, target_name, file)?
                }
                _ => return Err(missing()),
            },
        };
        remove(parent.dir.as_fd(), name)?;
        fs::linkat(source, target_name, &parent.dir, name, AtFlags::empty())?;
        Ok(())
    }

    /// Copies a file of a lower layer into this one, so that a second name can be given to it.
    fn copy_up(&mut self, parent: &Path, name: &OsStr, file: OwnedFd) -> Result<OwnedFd, UnpackError> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut data = File::open(&path)?;
        let stat = data.metadata()?;
        self.copied = self.copied.saturating_add(stat.size());
        if self.copied > self.limits.bytes {
            return Err(invalid(format!("unpacks to more than {} bytes", self.limits.bytes)));
        }
        let dir = match self.upper.dir(parent) {
            Ok(dir) => dir,
            Err(_) => self.make_dirs(parent)?,
        };
        let meta = meta_of(&stat, Path::new(&path))?;
        write_file(dir.as_fd(), name, &mut data, stat.size(), &meta)?;
        Ok(dir)
    }

    /// Hides a name of lower layers. What this layer itself has under it stays, as the image format wants.
    fn whiteout(&mut self, parent: &Place, name: &OsStr) -> Result<(), UnpackError> {
        let path = parent.path.join(name);
        match stat(&parent.dir, name)? {
            Some(s) if is_dir(&s) => self.hide_below(&path, parent.dir.as_fd(), name),
            Some(_) => Ok(()),
            // A whiteout of nothing would show up as a device when its directory is not merged with another.
            None if self.lower_child(&path)?.is_none() => Ok(()),
            None => Ok(make_node(parent.dir.as_fd(), name, FileType::CharacterDevice, 0)?),
        }
    }

    /// Makes a directory opaque, if there is anything to hide.
    fn hide_below(&self, path: &Path, dir: BorrowedFd<'_>, name: &OsStr) -> Result<(), UnpackError> {
        match self.lower_child(path)? {
            Some(Child::Dir(below)) if below.top().is_some() => Ok(xattr::set(through(dir, name), OPAQUE, b"y")?),
            _ => Ok(()),
        }
    }
}

fn dir_meta(dir: &OwnedFd) -> Result<Meta, UnpackError> {
    let dir = fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let dir = File::from(dir);
    meta_of(&dir.metadata()?, Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())))
}

/// Attributes of a file that is open as `path`; overlay marks are left behind.
fn meta_of(stat: &std::fs::Metadata, path: &Path) -> Result<Meta, UnpackError> {
    let mut xattrs: Vec<(OsString, Vec<u8>)> = Vec::new();
    for key in xattr::list_deref(path)? {
        if !key.as_bytes().starts_with(b"trusted.")
            && let Some(value) = xattr::get_deref(path, &key)?
        {
            xattrs.push((key, value));
        }
    }
    Ok(Meta { mode: stat.mode() & 0o7777, uid: stat.uid(), gid: stat.gid(), mtime: stat.mtime(), xattrs })
}
