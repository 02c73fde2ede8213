//! The archive of durable directories in a snapshot: a tar of them all, compressed with zstd.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use ate_api::{Error, Reason};
pub use ate_volumes::{DataError, MAX_BYTES};

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

/// In the words of the contract.
pub fn error(e: DataError) -> Error {
    let reason = match &e {
        e if e.is_disk_full() => Reason::DiskFull,
        DataError::Pack { .. } => Reason::SandboxFailed,
        DataError::Unpack(_) | DataError::Refused(_) => Reason::ArchiveInvalid,
    };
    Error::new(reason, e.to_string())
}
