//! One file with an EROFS filesystem of all layers of an image, for classes that take images in this form.
//!
//! ```text
//! ROOT/erofs/sha256-CHAIN/image     the filesystem, uncompressed, mode 0400
//!                        /digest    its sha256 and its size
//! ```
//!
//! Memory saved while an image was mounted is good with the same bytes only, so the file must come out the same
//! whenever it is built from the same layers: fixed uuid and creation time, no order taken from a directory listing.
//!
//! `mkfs.erofs` reads the layers as overlayfs shows them, mounted in a namespace of its own that ends with it: a
//! crash leaves nothing mounted. What overlayfs has for its own use it does not show. No shell and no other program is
//! needed: the image of the node agent has none.

use std::{
    ffi::{CString, OsStr, OsString},
    fs::{self, File, Permissions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use ate_api::id::Digest;
use ateom::namespaces::unshare;
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::chdir,
    thread::UnshareFlags,
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

use super::ImageError;
use crate::{disk, unpack::Hashing};

const IMAGE: &str = "image";
const DIGEST: &str = "digest";
/// A digest, a size and what separates them.
const MAX_RECORD: u64 = 128;
/// As herders have it for overlays of layers.
const MAX_LAYERS: usize = 128;
/// For an image of tens of gigabytes on a slow disk.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// Of what a program says went wrong, in our error: the end says most.
const MAX_REASON: usize = 1024;
/// Times above this one are cut to it (year 9999), and it is what the filesystem says of its own creation. So
/// everything keeps its time, as programs expect that compare a compiled file with its source.
const EPOCH: &str = "253402300799";
const UUID: &str = "00000000-0000-0000-0000-000000000000";
/// An attribute is shared, in an order found in listings, if more files than this have it: never.
const SHARE_XATTRS_ABOVE: &str = "2147483647";

/// An image as one read-only filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    pub path: PathBuf,
    /// Of its bytes.
    pub sha256: Digest,
}

/// What is there under a name, if it is whole. Blocks.
pub(super) fn load(dir: &Path) -> Option<ImageFile> {
    let mut text = String::new();
    File::open(dir.join(DIGEST)).ok()?.take(MAX_RECORD).read_to_string(&mut text).ok()?;
    let (sha256, size) = text.trim_end().split_once(' ')?;
    let path = dir.join(IMAGE);
    let whole = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && size.parse() == Ok(m.len()));
    Digest::parse(sha256).filter(|_| whole).map(|sha256| ImageFile { path, sha256 })
}

/// Builds the file of `layers`, lowest first, and puts it under its name. After an error nothing is left.
pub(super) async fn build(image: &Digest, layers: &[PathBuf], dir: &Path, tmp: &Path) -> Result<(), ImageError> {
    let failed = |e: io::Error| ImageError::io(image, "building a filesystem in", tmp, e);
    if layers.is_empty() || layers.len() > MAX_LAYERS {
        let message = format!("it has {} layers; a filesystem is made of 1 to {MAX_LAYERS}", layers.len());
        return Err(ImageError::invalid(image, message));
    }
    let mkfs = find("mkfs.erofs", "erofs-utils", &search_path())?;
    let work = work_dir(tmp, layers).map_err(failed)?;
    let mut command = Command::new(mkfs);
    command.args(["--quiet", "-U", UUID, "-x", SHARE_XATTRS_ABOVE, "new/image", "root"]);
    command.env_clear().env("SOURCE_DATE_EPOCH", EPOCH).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mkfs = spawn_over(layers.len(), work.path().to_owned(), command).await.map_err(failed)?;
    match tokio::time::timeout(LIMIT, mkfs.wait_with_output()).await {
        Ok(done) => check(image, &done.map_err(failed)?)?,
        Err(_) => return Err(failed(io::Error::other(format!("not done within {LIMIT:?}")))),
    }
    let dir = dir.to_owned();
    let named = image.clone();
    let finish = move || {
        let failed = |e| ImageError::io(&named, "finishing the filesystem in", work.path(), e);
        seal(&work.path().join("new"), &dir).map_err(failed)
    };
    super::blocking(image, finish).await
}

/// Starts a program in `work`, where it alone sees the layers, one over the other, at `root`.
async fn spawn_over(layers: usize, work: PathBuf, mut command: Command) -> io::Result<Child> {
    // overlayfs wants two lower layers when there is no upper one. Relative paths, to fit in one page.
    let lower: String = (0..layers).rev().map(|n| format!("{n}:")).chain(["empty".to_owned()]).collect();
    let lower = CString::new(format!("lowerdir={lower}"))?;
    let (runtime, (started, starting)) = (Handle::current(), oneshot::channel());
    // A thread has mounts and a working directory of its own if it wants; its children begin with them.
    std::thread::Builder::new().name("erofs".to_owned()).spawn(move || {
        let mut start = || {
            unshare(UnshareFlags::NEWNS | UnshareFlags::FS)?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            chdir(&work)?;
            mount("overlay", "root", "overlay", MountFlags::RDONLY, Some(lower.as_c_str()))?;
            let _entered = runtime.enter();
            command.spawn()
        };
        let _ = started.send(start());
    })?;
    starting.await.map_err(io::Error::other)?
}

/// Where the program finds the layers under short names.
fn work_dir(tmp: &Path, layers: &[PathBuf]) -> io::Result<tempfile::TempDir> {
    let work = tempfile::Builder::new().prefix("erofs-").tempdir_in(tmp)?;
    for name in ["root", "empty", "new"] {
        fs::DirBuilder::new().mode(0o700).create(work.path().join(name))?;
    }
    for (n, layer) in layers.iter().enumerate() {
        symlink(layer, work.path().join(n.to_string()))?;
    }
    Ok(work)
}

fn check(image: &Digest, output: &Output) -> Result<(), ImageError> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No space left on device") || said.contains("Disk quota exceeded") {
        return Err(ImageError::DiskFull { image: image.to_string() });
    }
    let end = said.trim_end();
    let from = (end.len().saturating_sub(MAX_REASON)..=end.len()).find(|&n| end.is_char_boundary(n)).unwrap_or(0);
    let message = format!("{}: {}", output.status, &end[from..]);
    Err(ImageError::Io { action: format!("making one filesystem of image {}", image.short()), message })
}

/// Makes the new file durable, writes down what it is and gives both their name in one step. Blocks.
fn seal(new: &Path, dir: &Path) -> io::Result<()> {
    let path = new.join(IMAGE);
    let file = File::open(&path)?;
    file.set_permissions(Permissions::from_mode(0o400))?;
    let (sha256, size) = Hashing::new(&file, u64::MAX).finish()?;
    file.sync_all()?;
    let record = new.join(DIGEST);
    fs::write(&record, format!("{sha256} {size}\n"))?;
    File::open(&record)?.sync_all()?;
    disk::sync_dir(new)?;
    fs::rename(new, dir)?;
    dir.parent().map_or(Ok(()), disk::sync_dir)
}

/// Ours, and where Debian has what only root uses.
fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
    path
}

fn find(program: &'static str, package: &'static str, path: &OsStr) -> Result<PathBuf, ImageError> {
    let found = std::env::split_paths(path).map(|dir| dir.join(program)).find(|p| p.is_absolute() && p.is_file());
    found.ok_or(ImageError::ProgramMissing { program, package })
}

#[cfg(test)]
mod tests {
    use ate_api::{Error, Reason};

    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_package_that_brings_it() {
        let error = Error::from(find("mkfs.erofs", "erofs-utils", OsStr::new("/nonexistent")).unwrap_err());
        assert_eq!(error.reason, Reason::Unavailable);
        assert!(error.message.contains("mkfs.erofs") && error.hint.contains("erofs-utils"), "{error:?}");
    }

    #[test]
    fn a_file_that_is_not_as_it_was_recorded_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let write = |bytes: &str| fs::write(dir.path().join(IMAGE), bytes).unwrap();
        assert_eq!(load(dir.path()), None);
        let sha256 = Digest::of(b"four");
        fs::write(dir.path().join(DIGEST), format!("{sha256} 4\n")).unwrap();
        assert_eq!(load(dir.path()), None);
        write("fo");
        assert_eq!(load(dir.path()), None);
        write("four");
        assert_eq!(load(dir.path()).unwrap().sha256, sha256);
    }
}
