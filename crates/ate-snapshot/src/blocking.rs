//! File work off the async threads.

use futures::{StreamExt, TryStreamExt, stream};

use crate::Error;

/// Files worked on at once for one snapshot. A snapshot has few large files; more threads only fight for the disk.
pub(crate) const PARALLEL_FILES: usize = 4;

/// Runs file work on a thread that may block.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(Error::Io("the node is shutting down".to_owned())),
    }
}

/// The same work for each item, a few at once, results in order.
pub(crate) async fn run_each<I, T, F>(items: Vec<I>, work: F) -> Result<Vec<T>, Error>
where
    I: Send + 'static,
    T: Send + 'static,
    F: Fn(I) -> Result<T, Error> + Clone + Send + 'static,
{
    stream::iter(items)
        .map(|item| {
            let work = work.clone();
            run(move || work(item))
        })
        .buffered(PARALLEL_FILES)
        .try_collect()
        .await
}
