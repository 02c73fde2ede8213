//! Places in the queue for a worker: first come, first served, among those a worker suits.

use std::sync::Arc;

use ate_agent::WorkerReport;
use ate_api::id::{Digest, WorkerId};
use tokio::sync::oneshot;

use super::Need;
use crate::records::Revision;

/// A worker that is ours now. Whoever has it must activate on it or have it cleaned.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) report: Arc<WorkerReport>,
    /// Digest of the worker's platform.
    pub(crate) platform: Digest,
    /// What the actor runs under.
    pub(crate) sandbox: Arc<Revision>,
}

impl Claim {
    pub(crate) fn worker(&self) -> &WorkerId {
        &self.report.id
    }
}

#[derive(Debug)]
pub(crate) struct Ticket {
    pub(super) number: u64,
    pub(crate) claim: oneshot::Receiver<Claim>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) need: Arc<Need>,
    pub(super) exclude: Vec<WorkerId>,
    pub(super) reply: oneshot::Sender<Claim>,
}
