//! What can go wrong with an image.

use std::{io, path::Path};

use ate_api::{Error, Reason};

use crate::{disk, unpack::UnpackError};

#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// There is no such image, tag or file.
    #[error("image {image} not found: {message}")]
    NotFound { image: String, message: String },
    /// Damaged, hostile, too large or for another platform.
    #[error("image {image} cannot be used: {message}")]
    Invalid { image: String, message: String },
    /// The registry does not answer or refuses.
    #[error("image {image} cannot be fetched now: {message}")]
    Unavailable { image: String, message: String },
    #[error("no space left on the disk of the node while unpacking image {image}")]
    DiskFull { image: String },
    /// It reports errors or takes no writes.
    #[error("the disk of the node fails: {action}: {message}")]
    DiskFails { action: String, message: String },
    /// A program of the machine that building needs.
    #[error("the node lacks the program {program}")]
    ProgramMissing { program: &'static str, package: &'static str },
    /// The local disk failed.
    #[error("{action} failed: {message}")]
    Io { action: String, message: String },
}

impl ImageError {
    pub(super) fn invalid(image: impl ToString, message: impl ToString) -> Self {
        ImageError::Invalid { image: image.to_string(), message: message.to_string() }
    }

    pub(super) fn not_found(image: impl ToString, message: impl ToString) -> Self {
        ImageError::NotFound { image: image.to_string(), message: message.to_string() }
    }

    pub(super) fn unavailable(image: impl ToString, message: impl ToString) -> Self {
        ImageError::Unavailable { image: image.to_string(), message: message.to_string() }
    }

    /// A failure of the node's own disk while working for an image.
    pub(super) fn io(image: impl ToString, action: &str, path: &Path, e: io::Error) -> Self {
        if disk::is_full(&e) {
            return ImageError::DiskFull { image: image.to_string() };
        }
        let (action, message) = (format!("{action} {}", path.display()), e.to_string());
        match disk::is_failing(&e) {
            true => ImageError::DiskFails { action, message },
            false => ImageError::Io { action, message },
        }
    }

    pub(super) fn unpack(image: impl ToString, path: &Path, e: UnpackError) -> Self {
        match e {
            UnpackError::Invalid(message) => ImageError::invalid(image, message),
            UnpackError::Io(e) => ImageError::io(image, "unpacking into", path, e),
        }
    }
}

impl ate_failpoint::Injected for ImageError {
    fn injected(point: &str) -> Self {
        ImageError::Io { action: "a step".to_owned(), message: format!("a fault was injected at {point}") }
    }
}

impl From<ImageError> for Error {
    fn from(e: ImageError) -> Error {
        let (reason, hint) = match &e {
            ImageError::ProgramMissing { package, .. } => {
                (Reason::Unavailable, &*format!("install the Debian package {package} on the node"))
            }
            ImageError::NotFound { .. } => {
                (Reason::ImageNotFound, "check the reference: oci:DIR[:TAG], docker-archive:FILE[:TAG] or a registry")
            }
            ImageError::Invalid { .. } => (Reason::ImageInvalid, "build or copy the image again"),
            ImageError::Unavailable { .. } => {
                (Reason::Unavailable, "check that the node reaches the registry and has credentials for it")
            }
            ImageError::DiskFull { .. } => (Reason::DiskFull, "free space on the disk of the node's data directory"),
            ImageError::DiskFails { .. } => (Reason::StorageUnavailable, disk::FAILS),
            ImageError::Io { .. } => (Reason::Internal, ""),
        };
        Error::new(reason, e.to_string()).hint(hint)
    }
}
