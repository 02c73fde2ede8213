//! Unpacks an asset that is a tar archive, and says later whether the directory is still as it was unpacked.
//!
//! Stricter than image layers: files, directories and links only, no link leads out, nobody but the node owns
//! anything, no set-uid bits. An archive that asks for more is refused whole.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType},
    io::Errno,
};

use super::stamp::Stamp;
use crate::unpack::{
    Head, Kind, Limits, Meta, Tree, UnpackError, decompressed, for_each_entry, invalid,
    tree::{is_dir, make_dir, remove, set_meta, stat, write_file},
};

/// A tool chain or a guest system is far smaller.
const LIMITS: Limits = Limits { entries: 200_000, bytes: 16 << 30 };

/// Every name in an unpacked archive with its stamp; the empty name is the directory itself.
pub(super) type Listing = Vec<(String, Stamp)>;

/// Unpacks into the empty directory `into`. Blocking.
pub(super) fn unpack(archive: impl Read, into: &Path) -> Result<(), UnpackError> {
    let tree = Tree::open(into)?;
    unpack_below(archive, &tree, LIMITS)?;
    Ok(rustix::fs::syncfs(tree.root())?)
}

fn unpack_below(archive: impl Read, tree: &Tree, limits: Limits) -> Result<(), UnpackError> {
    for_each_entry(decompressed(archive)?, limits, |head, data| place(tree, head, data)).map(drop)
}

fn place(tree: &Tree, head: Head, data: &mut dyn Read) -> Result<(), UnpackError> {
    let shown = head.path.display();
    if head.path.to_str().is_none() {
        return Err(invalid(format!("the name {shown} is not UTF-8")));
    }
    let (Some(name), Some(parent_path)) = (head.path.file_name(), head.path.parent()) else {
        return if matches!(head.kind, Kind::Dir) { Ok(()) } else { Err(invalid("the top is not a directory")) };
    };
    let parent = make_dirs(tree, parent_path)?;
    let dir = parent.as_fd();
    let executable = head.meta.mode & 0o111 != 0;
    let mode = if matches!(head.kind, Kind::Dir) { 0o755 } else { 0o444 | if executable { 0o111 } else { 0 } };
    let meta = own(mode, head.meta.mtime);
    match head.kind {
        Kind::Dir => match stat(dir, name)? {
            Some(s) if is_dir(&s) => Ok(()),
            Some(_) => Err(invalid(format!("{shown} is in the archive twice"))),
            None => Ok(make_dir(dir, name).map_err(io::Error::from).and_then(|()| set_meta(dir, name, &meta))?),
        },
        Kind::File => {
            remove_file(dir, name, &head.path)?;
            write_file(dir, name, data, head.size, &meta)
        }
        Kind::Symlink(target) => {
            check_symlink(parent_path, &target)
                .map_err(|why| invalid(format!("the symlink {shown} -> {} {why}", target.display())))?;
            remove_file(dir, name, &head.path)?;
            rustix::fs::symlinkat(&target, dir, name)?;
            Ok(set_meta(dir, name, &meta)?)
        }
        Kind::HardLink(target) => {
            let missing = || invalid(format!("the hard link {shown} has no target {}", target.display()));
            let (Some(from), Some(from_parent)) = (target.file_name(), target.parent()) else { return Err(missing()) };
            let from_dir = tree.dir(from_parent).map_err(|_| missing())?;
            let kind = stat(&from_dir, from)?.map(|s| FileType::from_raw_mode(s.st_mode));
            if kind != Some(FileType::RegularFile) {
                return Err(missing());
            }
            if target != head.path {
                remove_file(dir, name, &head.path)?;
                rustix::fs::linkat(&from_dir, from, dir, name, AtFlags::empty())?;
            }
            Ok(())
        }
        Kind::Char(..) | Kind::Block(..) | Kind::Fifo => {
            Err(invalid(format!("{shown} is a device or pipe; only files, directories and links are allowed")))
        }
    }
}

/// Owned by the node, whoever packed it.
fn own(mode: u32, mtime: i64) -> Meta {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Meta { mode, uid, gid, mtime, xattrs: Vec::new() }
}

fn remove_file(dir: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), UnpackError> {
    match stat(dir, name)? {
        Some(s) if is_dir(&s) => Err(invalid(format!("{} is in the archive twice", path.display()))),
        _ => Ok(remove(dir, name)?),
    }
}

fn make_dirs(tree: &Tree, path: &Path) -> Result<OwnedFd, UnpackError> {
    let mut at = PathBuf::new();
    let mut dir = tree.dir(&at)?;
    for name in path {
        at.push(name);
        dir = match tree.dir(&at) {
            Err(Errno::NOENT) => {
                make_dir(dir.as_fd(), name)?;
                set_meta(dir.as_fd(), name, &own(0o755, 0))?;
                tree.dir(&at)?
            }
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(invalid(format!("{} is not a directory, but has files below it", at.display())));
            }
            other => other?,
        };
    }
    Ok(dir)
}

/// A target may go up and then down, never up again: `..` after a name could leave through another symlink.
fn check_symlink(dir: &Path, target: &Path) -> Result<(), &'static str> {
    let depth = dir.components().count();
    let (mut ups, mut down) = (0, false);
    for part in target.components() {
        match part {
            Component::ParentDir if down => return Err("goes up after a name"),
            Component::ParentDir => ups += 1,
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return Err("is absolute"),
        }
    }
    if ups > depth { Err("leads out of the archive") } else { Ok(()) }
}

/// Blocking.
pub(super) fn list(root: &Path) -> io::Result<Listing> {
    let mut found = vec![(String::new(), Stamp::at(root)?)];
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root.join(&dir))? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|_| io::ErrorKind::InvalidData)?;
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            let meta = entry.metadata()?;
            if meta.is_dir() {
                todo.push(path.clone());
            }
            found.push((path, Stamp::of(&meta)));
        }
    }
    Ok(found)
}

/// Whether nothing was added, removed or changed. Blocking: one `stat` per name.
pub(super) fn unchanged(root: &Path, listing: &Listing) -> bool {
    listing.iter().all(|(path, stamp)| Stamp::at(&root.join(path)).is_ok_and(|now| now == *stamp))
}

#[cfg(test)]
mod fuzz {
    use ate_fuzz::{Target, tar::with_checksums};

    use super::*;

    const SMALL: Limits = Limits { entries: 100, bytes: 1 << 20 };

    #[test]
    fn archives_of_assets() {
        Target::named("node.asset-archive").sample("tree", crate::unpack::sample::tree).run(|bytes| {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            let into = dir.path().join("tree");
            fs::create_dir(&into).unwrap();
            let unpacked = unpack_below(&with_checksums(bytes)[..], &Tree::open(&into).unwrap(), SMALL);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing lands beside it");
            unpacked?;
            for (name, _) in list(&into).unwrap() {
                let at = into.join(name);
                let kind = fs::symlink_metadata(&at).unwrap().file_type();
                assert!(kind.is_file() || kind.is_dir() || kind.is_symlink());
                if let (true, Ok(real)) = (kind.is_symlink(), at.canonicalize()) {
                    assert!(real.starts_with(into.canonicalize().unwrap()), "{} leads outside", at.display());
                }
            }
            Ok::<_, UnpackError>(())
        });
    }
}
