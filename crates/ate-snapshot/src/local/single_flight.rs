//! One fetch of a snapshot at a time, however many wait for it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use ate_api::id::Digest;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use super::LocalSnapshot;
use crate::Error;

type Fetch = Shared<BoxFuture<'static, Result<LocalSnapshot, Error>>>;

/// The fetches that run. Each runs as a task of its own, so it is not lost when the caller that began it gives up.
#[derive(Clone, Default)]
pub(super) struct Fetches(Arc<Mutex<HashMap<Digest, Fetch>>>);

impl Fetches {
    /// Waits for the running fetch of this snapshot, or begins the one given.
    pub(super) async fn share<F>(&self, digest: &Digest, fetch: F) -> Result<LocalSnapshot, Error>
    where
        F: Future<Output = Result<LocalSnapshot, Error>> + Send + 'static,
    {
        let running = {
            let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = || {
                let done = Done { fetches: self.clone(), digest: digest.clone() };
                let task = tokio::spawn(async move {
                    let _done = done;
                    fetch.await
                });
                let ended = || Err(Error::Io("the fetch of the snapshot was cut short".to_owned()));
                task.map(move |r| r.unwrap_or_else(|_| ended())).boxed().shared()
            };
            running.entry(digest.clone()).or_insert_with(begin).clone()
        };
        running.await
    }
}

impl fmt::Debug for Fetches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetches")
    }
}

/// Takes a fetch off the list when it ends, also by a panic.
struct Done {
    fetches: Fetches,
    digest: Digest,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.fetches.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
    }
}
