//! What can go wrong with an asset. Each names the asset and where it should have come from.

use std::{
    io,
    path::{Path, PathBuf},
};

use ate_api::{Error, Reason, id::Digest};

use crate::disk;

#[derive(Debug, Clone, thiserror::Error)]
pub enum AssetError {
    #[error("asset {name} (sha256:{digest}) cannot be had from {url}: {message}")]
    Unavailable { name: String, digest: Digest, url: String, message: String },
    #[error("asset {name} from {url} is not what was pinned: expected sha256:{expected}, got sha256:{actual}")]
    DigestMismatch { name: String, url: String, expected: Digest, actual: Digest },
    #[error("asset {name} from {url} is larger than {limit} bytes, which is {limited_by}")]
    TooLarge { name: String, url: String, limit: u64, limited_by: &'static str },
    #[error("archive {name} (sha256:{digest}) cannot be unpacked: {message}")]
    ArchiveInvalid { name: String, digest: Digest, message: String },
    #[error("no space left on the disk of the node for asset {name}")]
    DiskFull { name: String },
    /// It reports errors or takes no writes.
    #[error("the disk of the node fails: {action}: {message}")]
    DiskFails { action: String, message: String },
    #[error("asset sha256:{digest} cannot be removed while assets are being fetched")]
    Busy { digest: Digest },
    /// An upload that stopped before its declared end, or went past it.
    #[error("the upload of an asset is incomplete: {message}")]
    Incomplete { message: String },
    /// Somebody else could swap bytes after they were verified.
    #[error("{} of the asset cache is not a directory that only the node can change: {message}", dir.display())]
    Foreign { dir: PathBuf, message: String },
    /// The local disk failed.
    #[error("{action} failed: {message}")]
    Io { action: String, message: String },
}

impl AssetError {
    /// A failure of the node's own disk.
    pub(super) fn io(name: &str, action: &str, path: &Path, e: io::Error) -> Self {
        if disk::is_full(&e) {
            return AssetError::DiskFull { name: name.to_owned() };
        }
        let (action, message) = (format!("{action} {}", path.display()), e.to_string());
        match disk::is_failing(&e) {
            true => AssetError::DiskFails { action, message },
            false => AssetError::Io { action, message },
        }
    }
}

impl ate_failpoint::Injected for AssetError {
    fn injected(point: &str) -> Self {
        AssetError::Io { action: "a step".to_owned(), message: format!("a fault was injected at {point}") }
    }
}

impl From<AssetError> for Error {
    fn from(e: AssetError) -> Error {
        let (reason, name, hint) = match &e {
            AssetError::Unavailable { name, .. } => {
                (Reason::AssetUnavailable, name.as_str(), "check the urls of the asset in its SandboxConfig")
            }
            AssetError::DigestMismatch { name, .. } => (
                Reason::AssetDigestMismatch,
                name.as_str(),
                "the file at the url was replaced: restore it, or pin the new digest in the SandboxConfig",
            ),
            AssetError::TooLarge { name, .. } => {
                (Reason::AssetTooLarge, name.as_str(), "correct the size of the asset in its SandboxConfig")
            }
            AssetError::ArchiveInvalid { name, .. } => (
                Reason::ArchiveInvalid,
                name.as_str(),
                "make the archive again from plain files, directories and links",
            ),
            AssetError::DiskFull { name } => {
                (Reason::DiskFull, name.as_str(), "free space on the disk of the node's data directory")
            }
            AssetError::DiskFails { .. } => (Reason::StorageUnavailable, "", crate::disk::FAILS),
            AssetError::Busy { .. } => {
                (Reason::InUse, "", "try again later; `ate get assets` shows what is being fetched")
            }
            AssetError::Incomplete { .. } => (Reason::Invalid, "", "upload the asset again"),
            AssetError::Foreign { .. } => (
                Reason::AssetUnavailable,
                "",
                "find out who changed it, remove it and start the node again: assets are fetched anew",
            ),
            AssetError::Io { .. } => (Reason::Internal, "", ""),
        };
        let object = if name.is_empty() { String::new() } else { format!("asset/{name}") };
        Error::new(reason, e.to_string()).on(object).hint(hint)
    }
}
