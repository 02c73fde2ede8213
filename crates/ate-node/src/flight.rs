//! Single flight: however many callers want the same thing, it is made once, and goes on when they leave.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};

type Running<K, V> = Arc<Mutex<HashMap<K, Shared<BoxFuture<'static, Option<V>>>>>>;

/// Work under way, by what it makes.
pub(crate) struct Flights<K, V> {
    running: Running<K, V>,
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Flights { running: Arc::default() }
    }
}

/// Takes a piece of work off the list also when it panics.
struct Landing<K: Eq + Hash, V> {
    running: Running<K, V>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.key);
    }
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the work for `key` or starts it. `None` when the work panicked.
    pub(crate) async fn run(&self, key: K, work: impl Future<Output = V> + Send + 'static) -> Option<V> {
        let flight = {
            let mut running = lock(&self.running);
            match running.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let landing = Landing { running: self.running.clone(), key: key.clone() };
                    let task = tokio::spawn(async move {
                        let _landing = landing;
                        work.await
                    });
                    let flight = task.map(Result::ok).boxed().shared();
                    running.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn work_wanted_by_many_is_done_once_and_outlives_who_started_it() {
        let flights = Arc::new(Flights::<u8, u32>::default());
        let (runs, go) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let work = |runs: Arc<AtomicU32>, go: Arc<Notify>| async move {
            runs.fetch_add(1, SeqCst);
            go.notified().await;
            7
        };
        let first = tokio::spawn({
            let (flights, work) = (flights.clone(), work(runs.clone(), go.clone()));
            async move { flights.run(1, work).await }
        });
        while runs.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        let _ = first.await;
        let second = flights.run(1, work(runs.clone(), go.clone()));
        go.notify_one();
        assert_eq!(second.await, Some(7));
        assert_eq!(runs.load(SeqCst), 1);
        assert!(lock(&flights.running).is_empty());
    }

    #[tokio::test]
    async fn work_that_panics_is_forgotten_and_can_be_tried_again() {
        let flights = Flights::<u8, u32>::default();
        assert_eq!(flights.run(1, async { panic!("expected in this test") }).await, None);
        assert_eq!(flights.run(1, async { 3 }).await, Some(3));
    }
}
