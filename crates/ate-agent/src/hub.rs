//! What everybody may know of workers: their last reports, and a stream of changes per listener.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ate_api::id::WorkerId;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{NodeEvent, NodeEvents, WorkerReport};

/// Events a listener may be behind. Then its stream ends; a new one starts with all workers again.
const BACKLOG: usize = 4096;

/// Last reports and listeners. Clones are the same.
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    workers: BTreeMap<WorkerId, WorkerReport>,
    listeners: Vec<mpsc::Sender<NodeEvent>>,
}

impl Hub {
    /// A stream that starts with all workers there are.
    pub fn listen(&self) -> NodeEvents {
        let mut inner = self.lock();
        let (tx, rx) = mpsc::channel(BACKLOG.max(2 * inner.workers.len()));
        for report in inner.workers.values() {
            let _ = tx.try_send(NodeEvent::Worker(report.clone()));
        }
        let _ = tx.try_send(NodeEvent::Listed);
        inner.listeners.push(tx);
        rx
    }

    /// A worker is new or changed; says nothing when it did not.
    pub fn report(&self, report: WorkerReport) {
        let mut inner = self.lock();
        if inner.workers.get(&report.id) == Some(&report) {
            return;
        }
        inner.workers.insert(report.id.clone(), report.clone());
        inner.send(NodeEvent::Worker(report));
    }

    /// A worker is gone.
    pub fn lost(&self, id: &WorkerId, message: String) {
        let mut inner = self.lock();
        if inner.workers.remove(id).is_some() {
            inner.send(NodeEvent::WorkerLost { id: id.clone(), message });
        }
    }

    pub fn send(&self, event: NodeEvent) {
        self.lock().send(event);
    }

    pub fn worker(&self, id: &WorkerId) -> Option<WorkerReport> {
        self.lock().workers.get(id).cloned()
    }

    pub fn workers(&self) -> Vec<WorkerReport> {
        self.lock().workers.values().cloned().collect()
    }

    /// Ends all streams: the node is going.
    pub fn close(&self) {
        self.lock().listeners.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn send(&mut self, event: NodeEvent) {
        self.listeners.retain(|listener| match listener.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(_)) => {
                tracing::warn!("a listener to the node's events is too slow and was dropped");
                false
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(n: usize) -> NodeEvent {
        NodeEvent::WorkerLost { id: WorkerId(n.to_string()), message: String::new() }
    }

    #[test]
    fn a_listener_that_does_not_listen_is_dropped_and_the_others_go_on() {
        let hub = Hub::default();
        let mut slow = hub.listen();
        assert_eq!(slow.try_recv(), Ok(NodeEvent::Listed));
        for n in 0..=BACKLOG {
            hub.send(gone(n));
        }
        let mut quick = hub.listen();
        hub.send(gone(0));
        assert_eq!(quick.try_recv(), Ok(NodeEvent::Listed));
        assert_eq!(quick.try_recv(), Ok(gone(0)));
        let received = std::iter::from_fn(|| slow.try_recv().ok()).count();
        assert_eq!(received, BACKLOG);
        assert_eq!(slow.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }
}
