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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn many_callers_share_one_fetch_which_outlives_the_one_that_began_it() {
        let fetches = Fetches::default();
        let digest = Digest::of(b"");
        let (begun, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let fetch = || {
            let (begun, go) = (begun.clone(), go.clone());
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                Err(Error::NotFound("the one answer".to_owned()))
            }
        };
        let first = fetches.share(&digest, fetch());
        tokio::time::timeout(Duration::from_millis(20), first).await.expect_err("it waits");
        let waiting = futures::future::join_all((0..10).map(|_| fetches.share(&digest, fetch())));
        let (answers, ()) = tokio::join!(waiting, async { go.notify_one() });
        for answer in answers {
            assert_eq!(answer.unwrap_err(), Error::NotFound("the one answer".to_owned()));
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        assert!(fetches.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_fetch_that_panics_is_an_error_and_the_next_one_begins_anew() {
        let fetches = Fetches::default();
        let digest = Digest::of(b"");
        let e = fetches.share(&digest, async { panic!("a bug") }).await.unwrap_err();
        assert!(matches!(e, Error::Io(_)));
        let e = fetches.share(&digest, async { Err(Error::NotFound(String::new())) }).await.unwrap_err();
        assert!(matches!(e, Error::NotFound(_)));
    }
}
