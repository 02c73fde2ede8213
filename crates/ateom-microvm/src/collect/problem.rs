//! What can be wrong with the packages.

use std::fmt::Display;

use ate_api::{Error, Reason};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// What it is, where it was looked for, and how it gets there.
    #[error("{what} is missing: {place}")]
    Missing { what: String, place: String, fix: String },
    #[error("{path}: {why}")]
    Unusable { path: String, why: String },
    #[error("{path} is larger than {} MiB", .cap >> 20)]
    TooLarge { path: String, cap: u64 },
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
}

/// For `map_err`: names what was read or written.
pub(super) fn io(path: impl Display) -> impl FnOnce(std::io::Error) -> Problem {
    move |source| Problem::Io { path: path.to_string(), source }
}

/// For `map_err`: names the file that cannot be used.
pub(super) fn unusable<E: Display>(path: impl Display) -> impl FnOnce(E) -> Problem {
    move |why| Problem::Unusable { path: path.to_string(), why: why.to_string() }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Error {
        let message = problem.to_string();
        match problem {
            Problem::Missing { fix, .. } => Error::new(Reason::NotFound, message).hint(fix),
            Problem::Unusable { .. } => Error::new(Reason::Invalid, message),
            Problem::TooLarge { .. } => Error::new(Reason::AssetTooLarge, message),
            Problem::Io { .. } => Error::new(Reason::Internal, message),
        }
    }
}
