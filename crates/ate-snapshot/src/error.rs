//! What can go wrong with a snapshot, and the stable reason each failure travels with.

use std::{io, path::Path};

use ate_api::{Reason, id::Digest};
use rustix::io::Errno;

/// Characters of a storage server's words that are repeated.
const MAX_REASON: usize = 400;

/// Clonable, because callers that wait for the same fetch all get its error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("manifest is larger than {limit} bytes")]
    ManifestTooLarge { limit: usize },
    #[error("manifest has digest {found}, not {expected} as recorded at commit")]
    ManifestDigest { expected: Digest, found: Digest },
    #[error("manifest has format version {found}; this build reads {known}")]
    ManifestVersion { found: u64, known: u32 },
    #[error("manifest is not valid: {0}")]
    Manifest(String),

    #[error("snapshot was made on another platform: {0}")]
    Platform(String),
    #[error("snapshot is of sandbox class {found}, not {expected}")]
    Class { expected: String, found: String },
    #[error("snapshot was made under another sandbox than recorded for it: {0}")]
    Sandbox(String),
    #[error("snapshot belongs to somebody else: {0}")]
    Owner(String),
    #[error("snapshot does not fit its base: {0}")]
    Base(String),

    #[error("the driver's checkpoint is unusable: {0}")]
    Checkpoint(String),
    #[error("snapshot {snapshot} is damaged: {problem}")]
    Corrupt { snapshot: Digest, problem: String },
    #[error("snapshot is not there: {0}")]
    NotFound(String),
    #[error("another activation has already committed a different snapshot at {0}")]
    Fenced(String),
    #[error("{0} is being written by another call")]
    Busy(String),
    #[error("snapshot location {location} cannot be used: {problem}")]
    Location { location: String, problem: String },

    #[error("disk is full: {0}")]
    DiskFull(String),
    /// It reports errors or takes no writes. Nothing is wrong with the snapshot.
    #[error("disk fails: {0}")]
    DiskFails(String),
    #[error("object storage failed: {0}")]
    Storage(String),
    #[error("file system failed: {0}")]
    Io(String),
}

impl ate_failpoint::Injected for Error {
    fn injected(point: &str) -> Self {
        Error::Storage(format!("a fault was injected at {point}"))
    }
}

impl Error {
    /// The stable reason of this failure.
    pub fn reason(&self) -> Reason {
        match self {
            Error::ManifestTooLarge { .. } | Error::Manifest(_) => Reason::ManifestInvalid,
            Error::Sandbox(_) | Error::Owner(_) | Error::Base(_) => Reason::ManifestInvalid,
            Error::ManifestDigest { .. } => Reason::ManifestDigestMismatch,
            Error::ManifestVersion { .. } => Reason::ManifestVersionUnknown,
            Error::Platform(_) => Reason::ArchMismatch,
            Error::Class { .. } => Reason::ClassMismatch,
            Error::Checkpoint(_) => Reason::SandboxFailed,
            Error::Corrupt { .. } => Reason::SnapshotCorrupt,
            Error::NotFound(_) => Reason::SnapshotNotFound,
            Error::Fenced(_) => Reason::Fenced,
            Error::Busy(_) => Reason::Conflict,
            Error::Location { .. } => Reason::Invalid,
            Error::DiskFull(_) => Reason::DiskFull,
            Error::Storage(_) | Error::DiskFails(_) => Reason::StorageUnavailable,
            Error::Io(_) => Reason::Internal,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Error::ManifestDigest { .. } | Error::Corrupt { .. } => {
                "resume the actor from an earlier snapshot, or boot it from its images"
            }
            Error::ManifestVersion { .. } => "resume the actor on a node of the version that wrote the snapshot",
            Error::Platform(_) => "resume the actor on a machine like the one it was suspended on",
            Error::DiskFull(_) => "free space on the disk, then try again; nothing was lost",
            Error::DiskFails(_) => "look at what the kernel's log of the machine says about the disk",
            Error::Storage(_) => "check that the location is reachable and that the credentials allow it",
            _ => "",
        }
    }

    /// A failure of a local file; a disk that is full, or that fails, is recognized.
    pub(crate) fn io(doing: &str, path: &Path, e: &io::Error) -> Self {
        let message = format!("cannot {doing} {}: {e}", path.display());
        match e.kind() {
            _ if is_disk_full(e) => Error::DiskFull(message),
            io::ErrorKind::ReadOnlyFilesystem => Error::DiskFails(message),
            _ if e.raw_os_error() == Some(Errno::IO.raw_os_error()) => Error::DiskFails(message),
            _ => Error::Io(message),
        }
    }

    /// A failure of object storage; a full disk and a missing object are recognized.
    pub(crate) fn storage(doing: &str, object: &str, e: &object_store::Error) -> Self {
        if matches!(e, object_store::Error::NotFound { .. }) {
            return Error::NotFound(format!("no {object}"));
        }
        // Servers answer with whole documents; what they are about stands before.
        let reason = e.to_string();
        let reason = reason.split("<?xml").next().unwrap_or_default().trim_end_matches([' ', ':']);
        let message = format!("cannot {doing} {object}: {}", reason.chars().take(MAX_REASON).collect::<String>());
        if is_disk_full(e) { Error::DiskFull(message) } else { Error::Storage(message) }
    }
}

impl From<Error> for ate_api::Error {
    fn from(e: Error) -> Self {
        let object = match &e {
            Error::Corrupt { snapshot, .. } => format!("snapshot/{}", snapshot.short()),
            Error::ManifestDigest { expected, .. } => format!("snapshot/{}", expected.short()),
            _ => String::new(),
        };
        ate_api::Error::new(e.reason(), e.to_string()).on(object).hint(e.hint())
    }
}

/// Whether a full disk or an exhausted quota is anywhere among the causes.
pub(crate) fn is_disk_full(e: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                return true;
            }
            // `source()` of an io::Error skips the error it wraps and goes on with that one's source.
            if io.get_ref().is_some_and(|inner| is_disk_full(inner)) {
                return true;
            }
        }
        next = e.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_found_however_deep_it_is_wrapped() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let wrapped = io::Error::other(object_store::Error::Generic {
            store: "test",
            source: Box::new(io::Error::other(full())),
        });
        let e = object_store::Error::Generic { store: "test", source: Box::new(wrapped) };
        assert_eq!(Error::storage("write", "x", &e).reason(), Reason::DiskFull);
        assert_eq!(Error::io("write", Path::new("x"), &full()).reason(), Reason::DiskFull);
        for failing in [Errno::ROFS, Errno::IO] {
            assert_eq!(Error::io("write", Path::new("x"), &failing.into()).reason(), Reason::StorageUnavailable);
        }
        let other = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(Error::io("write", Path::new("x"), &other).reason(), Reason::Internal);
    }
}
