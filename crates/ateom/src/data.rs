//! The archive of durable directories in a snapshot: a tar of them all, compressed with zstd.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use ate_api::{Error, Reason};
pub use ate_volumes::{DataError, MAX_BYTES};

use crate::{
    driver::{SnapshotFile, Workload},
    failed, workload,
};

/// File name of the archive in a snapshot.
pub const ARCHIVE: &str = "durable.tar.zst";
pub const MEDIA_TYPE: &str = "application/vnd.ate.durable.v1.tar+zstd";

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
    workload::check(workload)?;
    let made = |volume: &str| -> std::io::Result<PathBuf> {
        let path = dir.join(volume);
        std::fs::create_dir_all(&path)?;
        let (uid, gid) = workload::volume_owner(workload, volume);
        std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        Ok(path)
    };
    let laid_out = workload.volumes.iter().map(|v| made(&v.name).map(|path| (v.name.clone(), path)));
    laid_out.collect::<Result<_, _>>().map_err(failed("make a durable directory"))
}

/// In the words of the contract.
pub fn error(e: DataError) -> Error {
    let reason = match &e {
        e if e.is_disk_full() => Reason::DiskFull,
        DataError::Pack { .. } => Reason::SandboxFailed,
        DataError::Unpack(_) | DataError::Refused(_) => Reason::ArchiveInvalid,
    };
    Error::new(reason, e.to_string())
}

/// Writes `volumes` into [`ARCHIVE`] below `dir`, unless there are none. After an error there is no such file.
pub async fn save(volumes: &BTreeMap<String, PathBuf>, dir: &Path) -> Result<Vec<SnapshotFile>, Error> {
    if volumes.is_empty() {
        return Ok(Vec::new());
    }
    let (volumes, archive) = (volumes.clone(), dir.join(ARCHIVE));
    blocking(move || {
        let private = PermissionsExt::from_mode(0o600);
        let protect = |()| std::fs::set_permissions(&archive, private).map_err(|e| failed("protect the archive")(e));
        let packed = pack(&volumes, &archive).map_err(error).and_then(protect);
        packed.inspect_err(|_| drop(std::fs::remove_file(&archive)))
    })
    .await?;
    Ok(vec![SnapshotFile { name: ARCHIVE.to_owned(), media_type: MEDIA_TYPE.to_owned() }])
}

/// Unpacks an archive into `volumes`, which are empty.
pub async fn load(archive: PathBuf, volumes: &BTreeMap<String, PathBuf>) -> Result<(), Error> {
    let volumes = volumes.clone();
    blocking(move || unpack(&archive, &volumes).map_err(error)).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|e| Err(Error::new(Reason::Internal, format!("a worker thread failed: {e}"))))
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
