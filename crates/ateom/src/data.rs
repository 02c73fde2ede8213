//! The archive of durable directories in a snapshot: a tar of them all, compressed with zstd.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use ate_api::{Error, Reason};
pub use ate_volumes::{DataError, MAX_BYTES};

use crate::driver::{Container, Workload};

/// File name of the archive in a snapshot.
pub const ARCHIVE: &str = "durable.tar.zst";
pub const MEDIA_TYPE: &str = "application/vnd.ate.durable.v1.tar+zstd";

/// Volume names are DNS labels, and become directories.
const MAX_NAME: usize = 63;
/// Fast, and already most of what higher levels would save.
const LEVEL: i32 = 1;

/// What a tar archive is written into before it is kept.
pub type Writer = zstd::Encoder<'static, File>;
/// The tar archive inside a kept one.
pub type Reader = zstd::Decoder<'static, std::io::BufReader<File>>;

/// A new file for an archive. Ends with [`zstd::Encoder::finish`].
pub fn create(archive: &Path) -> Result<Writer, DataError> {
    let file = File::create_new(archive).and_then(|file| zstd::Encoder::new(file, LEVEL));
    file.map_err(|cause| DataError::Pack { path: archive.to_owned(), cause })
}

pub fn open(archive: &Path) -> Result<Reader, DataError> {
    File::open(archive).and_then(zstd::Decoder::new).map_err(DataError::Unpack)
}

/// Makes an empty directory for each volume of the workload: name → `dir/NAME`.
pub fn lay_out(workload: &Workload, dir: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let made = |volume: &str| -> std::io::Result<PathBuf> {
        let path = dir.join(volume);
        std::fs::create_dir_all(&path)?;
        // It belongs to who writes to it first, as a volume of a container engine does.
        let user = |c: &&Container| c.mounts.iter().any(|m| m.volume == volume);
        if let Some(c) = workload.containers.iter().find(user) {
            std::os::unix::fs::chown(&path, Some(c.uid), Some(c.gid))?;
        }
        Ok(path)
    };
    let mut volumes = BTreeMap::new();
    for volume in &workload.volumes {
        check_name("volume", &volume.name)?;
        let path = made(&volume.name).map_err(|e| {
            let reason = if is_full(&e) { Reason::DiskFull } else { Reason::SandboxFailed };
            Error::new(reason, format!("cannot make durable directory `{}`: {e}", volume.name))
        })?;
        volumes.insert(volume.name.clone(), path);
    }
    let unknown = |m: &&crate::driver::Mount| !volumes.contains_key(&m.volume);
    match workload.containers.iter().find_map(|c| Some((c, c.mounts.iter().find(unknown)?))) {
        None => Ok(volumes),
        Some((c, m)) => {
            let message = format!("container `{}` mounts `{}`, which is no volume", c.name, m.volume);
            Err(Error::new(Reason::Invalid, message))
        }
    }
}

fn is_full(e: &std::io::Error) -> bool {
    matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Names of volumes and containers become paths.
pub fn check_name(kind: &str, name: &str) -> Result<(), Error> {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !name.is_empty() && name.len() <= MAX_NAME && !name.starts_with('-') && name.bytes().all(fine) {
        return Ok(());
    }
    Err(Error::new(
        Reason::Invalid,
        format!("`{name}` is not a {kind} name: a-z, 0-9 and `-`, at most {MAX_NAME} characters"),
    ))
}

/// What a failure with an archive means to whoever called the driver.
pub fn failed(e: DataError) -> Error {
    let reason = match &e {
        e if e.is_disk_full() => Reason::DiskFull,
        DataError::Pack { .. } => Reason::SandboxFailed,
        DataError::Unpack(_) | DataError::Refused(_) => Reason::ArchiveInvalid,
    };
    Error::new(reason, e.to_string())
}

/// Writes `volumes` (name → directory) into a new file. Blocks.
pub fn pack(volumes: &BTreeMap<String, PathBuf>, archive: &Path) -> Result<(), DataError> {
    let written = ate_volumes::pack(volumes, create(archive)?)?;
    written.finish().map_err(|cause| DataError::Pack { path: archive.to_owned(), cause })?;
    Ok(())
}

/// Unpacks into `volumes`, which exist and are empty. Blocks.
pub fn unpack(archive: &Path, volumes: &BTreeMap<String, PathBuf>) -> Result<(), DataError> {
    ate_volumes::unpack(open(archive)?, volumes)
}
