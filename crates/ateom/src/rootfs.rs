//! Root filesystems: an overlay of shared read-only layers, mounted in the herder's mount namespace.
//!
//! The upper layer is a small tmpfs directory that holds mount points and the few files a container expects from its
//! host; what an actor writes goes elsewhere (into the sandbox's own overlay). Layers are hostile: whatever is made
//! in them is resolved with the layers' root as `/`, so that no symlink leads out.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::symlink,
    },
    path::{Component, Path, PathBuf},
};

use ate_api::{Error, Reason};
use rustix::{
    fs::{AtFlags, Mode, OFlags, ResolveFlags},
    mount::{MountFlags, UnmountFlags},
};

use crate::{driver::Container, identity::MOUNT_POINT, workload};

/// overlayfs takes its options in one page; our short names let this many fit.
pub const MAX_LAYERS: usize = 128;

#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("an image needs 1 to {MAX_LAYERS} layers, this one has {0}")]
    LayerCount(usize),
    #[error("layer {0} is not an absolute directory")]
    NotADirectory(PathBuf),
    #[error("cannot {what} {path}: {cause}")]
    Io { what: &'static str, path: PathBuf, cause: io::Error },
    #[error("{0} is not an absolute path without `..`")]
    Path(PathBuf),
}

impl From<RootfsError> for Error {
    fn from(e: RootfsError) -> Self {
        Error::new(Reason::ImageInvalid, e.to_string())
    }
}

fn at(what: &'static str, path: &Path) -> impl Fn(io::Error) -> RootfsError {
    move |cause| RootfsError::Io { what, path: path.to_owned(), cause }
}

/// A mounted root filesystem.
#[derive(Debug)]
pub struct Rootfs {
    root: PathBuf,
    fd: OwnedFd,
}

impl Rootfs {
    /// Mounts `layers`, lowest first, at `dir/root`. `dir` must be empty or absent, and on a tmpfs.
    pub fn mount(layers: &[PathBuf], dir: &Path) -> Result<Self, RootfsError> {
        if layers.is_empty() || layers.len() > MAX_LAYERS {
            return Err(RootfsError::LayerCount(layers.len()));
        }
        let root = dir.join("root");
        let make = |path: &Path| fs::create_dir_all(path).map_err(at("create", path));
        for sub in ["u", "w", "l", "root"] {
            make(&dir.join(sub))?;
        }
        // Short links keep the option string within a page and free of characters that overlayfs would interpret.
        let mut lower = Vec::new();
        for (i, layer) in layers.iter().enumerate().rev() {
            if !layer.is_absolute() || !layer.is_dir() {
                return Err(RootfsError::NotADirectory(layer.clone()));
            }
            let link = dir.join("l").join(i.to_string());
            symlink(layer, &link).map_err(at("link", &link))?;
            lower.push(link.to_string_lossy().into_owned());
        }
        let shown = dir.display();
        let options = format!("lowerdir={},upperdir={shown}/u,workdir={shown}/w", lower.join(":"));
        let options = std::ffi::CString::new(options).map_err(|e| at("mount", &root)(e.into()))?;
        rustix::mount::mount("overlay", &root, "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .map_err(|e| at("mount the overlay", &root)(e.into()))?;
        let fd = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| at("open", &root)(e.into()))?;
        Ok(Rootfs { root, fd })
    }

    pub fn path(&self) -> &Path {
        &self.root
    }

    /// Creates a directory and its parents, as seen from inside.
    pub fn create_dir(&self, path: &Path) -> Result<OwnedFd, RootfsError> {
        let mut so_far = PathBuf::new();
        let mut current = rustix::io::dup(&self.fd).map_err(|e| at("open", path)(e.into()))?;
        for part in parts(path)? {
            so_far.push(part);
            let open = || {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                rustix::fs::openat2(&self.fd, &so_far, flags, Mode::empty(), resolve)
            };
            current = match open() {
                Ok(fd) => fd,
                Err(rustix::io::Errno::NOENT) => rustix::fs::mkdirat(&current, part, Mode::from_raw_mode(0o755))
                    .and_then(|()| open())
                    .map_err(|e| at("create", path)(e.into()))?,
                Err(e) => return Err(at("open", path)(e.into())),
            };
        }
        Ok(current)
    }

    /// Mounts something on a directory, as seen from inside: `mount` gets a path that no symlink of the image diverts.
    pub fn mount_on(
        &self,
        path: &Path,
        mount: impl FnOnce(&Path) -> rustix::io::Result<()>,
    ) -> Result<(), RootfsError> {
        let dir = self.create_dir(path)?;
        let real = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        mount(&real).map_err(|e| at("mount on", path)(e.into()))
    }

    /// Replaces a file, as seen from inside; a symlink of that name is replaced, not followed.
    pub fn write_file(&self, path: &Path, content: &[u8]) -> Result<(), RootfsError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(RootfsError::Path(path.to_owned()));
        };
        let parent = self.create_dir(parent)?;
        let wrap = at("write", path);
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => (),
            Err(e) => return Err(wrap(e.into())),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644)).map_err(|e| wrap(e.into()))?;
        io::Write::write_all(&mut fs::File::from(file), content).map_err(wrap)
    }

    /// Mount points and the files that a container expects from its host.
    pub fn furnish(&self, container: &Container, resolv_conf: &[u8]) -> Result<(), RootfsError> {
        let dirs = ["/proc", "/dev", "/sys", "/tmp", MOUNT_POINT];
        let mounts = container.mounts.iter().map(|m| m.path.as_str());
        for dir in dirs.into_iter().chain(mounts) {
            self.create_dir(Path::new(dir))?;
        }
        let hosts = workload::hosts();
        let hostname = format!("{}\n", workload::HOSTNAME);
        let files = [
            ("/etc/hosts", hosts.as_bytes()),
            ("/etc/hostname", hostname.as_bytes()),
            ("/etc/resolv.conf", resolv_conf),
        ];
        files.into_iter().try_for_each(|(path, content)| self.write_file(Path::new(path), content))
    }

    /// Unmounts; what still uses it keeps it alive until it ends.
    pub fn unmount(self) -> Result<(), RootfsError> {
        drop(self.fd);
        rustix::mount::unmount(&self.root, UnmountFlags::DETACH).map_err(|e| at("unmount", &self.root)(e.into()))
    }
}

/// The names of an absolute path; refuses anything but plain names.
fn parts(path: &Path) -> Result<Vec<&std::ffi::OsStr>, RootfsError> {
    let bad = || RootfsError::Path(path.to_owned());
    let mut components = path.components();
    if components.next() != Some(Component::RootDir) {
        return Err(bad());
    }
    components.map(|c| if let Component::Normal(name) = c { Ok(name) } else { Err(bad()) }).collect()
}
