//! Commits that wait for the writer, and how those that came at once are taken together.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{Result, Transaction, feed::Hub};

/// Commits that may wait for the writer; the next ones wait to be let in.
pub(crate) const QUEUE: usize = 4096;
/// Most transactions and bytes in one group: bounds the memory of a write and how long the first has to wait.
pub(crate) const GROUP_TRANSACTIONS: usize = 512;
const GROUP_BYTES: usize = 4 << 20;

pub(crate) struct Job {
    pub(crate) tx: Transaction,
    pub(crate) reply: oneshot::Sender<Result<u64>>,
}

impl Job {
    pub(crate) fn answer(self, result: Result<u64>) {
        // The caller may have gone; what it asked for has happened all the same.
        let _ = self.reply.send(result);
    }

    fn size(&self) -> usize {
        self.tx.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
    }
}

/// Takes the first into an empty group, and with it whatever waits already.
pub(crate) fn gather(first: Job, jobs: &mut mpsc::Receiver<Job>, group: &mut Vec<Job>) {
    let mut bytes = first.size();
    group.push(first);
    while group.len() < GROUP_TRANSACTIONS && bytes < GROUP_BYTES {
        let Ok(job) = jobs.try_recv() else { break };
        bytes += job.size();
        group.push(job);
    }
}

/// Hands out what was written of a group that is durable.
pub(crate) fn publish(hub: &Hub, group: &[Job], results: &[Result<u64>]) {
    let written = group.iter().zip(results).filter_map(|(job, result)| Some((job, *result.as_ref().ok()?)));
    hub.publish(written.flat_map(|(job, version)| job.tx.writes.iter().map(move |w| (version, w))));
}
