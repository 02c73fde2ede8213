//! What a stack of unpacked layers looks like once overlaid, without mounting it: which file a path means, with
//! whiteouts, opaque directories and symlinks (always inside the image) honoured. Follows the rules of overlayfs.

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{self, FileType, Mode, OFlags, Stat},
    io::Errno,
};

use crate::unpack::{UnpackError, invalid, tree::is_dir};

/// The mark of a directory that hides those below it.
pub(super) const OPAQUE: &str = "trusted.overlay.opaque";
/// As the kernel: more symlinks in one path are taken for a loop.
const MAX_SYMLINKS: usize = 40;

/// One directory of the merged view: the directories it is merged from, top first.
#[derive(Clone)]
pub(super) struct MergedDir(Vec<Arc<OwnedFd>>);

pub(super) enum Child {
    Dir(MergedDir),
    Symlink(PathBuf),
    /// Anything else, opened as a path only.
    Other(OwnedFd, Stat),
}

/// Where a path leads once its symlinks are followed.
pub(super) struct Resolved {
    /// Free of symlinks.
    pub(super) path: PathBuf,
    /// `None`: nothing is there (yet).
    pub(super) child: Option<Child>,
}

pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn is_opaque(dir: impl AsFd) -> std::io::Result<bool> {
    let path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
    Ok(xattr::get_deref(path, OPAQUE)?.as_deref() == Some(b"y"))
}

impl MergedDir {
    /// The root of the view; `layers` top first.
    pub(super) fn new(layers: Vec<Arc<OwnedFd>>) -> Self {
        MergedDir(layers)
    }

    /// The directory whose attributes the merged one shows; `None` without any layer.
    pub(super) fn top(&self) -> Option<&OwnedFd> {
        self.0.first().map(AsRef::as_ref)
    }

    /// What is under one name.
    pub(super) fn child(&self, name: &OsStr) -> Result<Option<Child>, UnpackError> {
        let mut dirs = Vec::new();
        for dir in &self.0 {
            let path_only = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = match fs::openat(dir, name, path_only, Mode::empty()) {
                Ok(found) => found,
                Err(Errno::NOENT) => continue,
                Err(e) => return Err(e.into()),
            };
            let stat = fs::fstat(&found)?;
            if is_whiteout(&stat) {
                break;
            }
            if !is_dir(&stat) {
                if !dirs.is_empty() {
                    break;
                }
                if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                    let target = fs::readlinkat(&found, "", Vec::new())?;
                    return Ok(Some(Child::Symlink(OsString::from_vec(target.into_bytes()).into())));
                }
                return Ok(Some(Child::Other(found, stat)));
            }
            let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = fs::openat(dir, name, readable, Mode::empty())?;
            let opaque = is_opaque(&found)?;
            dirs.push(Arc::new(found));
            if opaque {
                break;
            }
        }
        Ok((!dirs.is_empty()).then_some(Child::Dir(MergedDir(dirs))))
    }

    /// Follows a path from this root. The last component is followed too only if `follow_last`.
    /// Components that do not exist stay in the path as they are; `..` stops at the root.
    pub(super) fn resolve(&self, path: &Path, follow_last: bool) -> Result<Resolved, UnpackError> {
        let mut todo: Vec<OsString> = names(path);
        let mut done: Vec<OsString> = Vec::new();
        // The directories passed, as long as they exist; shorter than `done` beneath a missing one.
        let mut dirs = vec![self.clone()];
        let mut leaf = None;
        let mut symlinks = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                dirs.truncate(done.len().max(1));
                done.pop();
                leaf = None;
                continue;
            }
            if leaf.is_some() {
                let at: PathBuf = done.iter().collect();
                return Err(invalid(format!("{} is not a directory", at.display())));
            }
            let exists = dirs.len() == done.len() + 1;
            match if exists { dirs[done.len()].child(&name)? } else { None } {
                Some(Child::Dir(dir)) => {
                    dirs.push(dir);
                    done.push(name);
                }
                Some(Child::Symlink(target)) if follow_last || !todo.is_empty() => {
                    symlinks += 1;
                    if symlinks > MAX_SYMLINKS {
                        return Err(invalid(format!("too many symlinks in {}", path.display())));
                    }
                    if target.is_absolute() {
                        done.clear();
                        dirs.truncate(1);
                    }
                    todo.extend(names(&target));
                }
                Some(other) => {
                    leaf = Some(other);
                    done.push(name);
                }
                None => done.push(name),
            }
        }
        let exists = dirs.len() == done.len() + 1;
        let child = leaf.or_else(|| if exists { dirs.pop().map(Child::Dir) } else { None });
        Ok(Resolved { path: done.iter().collect(), child })
    }
}

/// The components still to walk, next one last.
fn names(path: &Path) -> Vec<OsString> {
    let kept = path.components().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut names: Vec<_> = kept.collect();
    names.reverse();
    names
}
