//! Errors of this driver, in the words of the contract.

use std::fmt::Display;

use ate_api::{Error, Reason};
/// Something about files failed; a full disk is told apart.
pub(crate) use ateom::failed as io;

/// The machine could not be started, saved or restored.
pub(crate) fn failed(what: impl Display) -> Error {
    Error::new(Reason::SandboxFailed, what.to_string())
}

/// The snapshot is not what its driver wrote.
pub(crate) fn corrupt(what: impl Display) -> Error {
    Error::new(Reason::SnapshotCorrupt, what.to_string())
}

/// Work that blocks, on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|e| Err(Error::new(Reason::Internal, format!("a worker thread failed: {e}"))))
}
