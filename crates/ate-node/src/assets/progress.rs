//! Who wants to know hears how far each asset is.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ate_agent::{AssetPhase, AssetReport};
use ate_api::id::Digest;
use tokio::sync::broadcast;

/// Often enough for a progress bar, rare enough not to count.
const INTERVAL: Duration = Duration::from_millis(200);
/// A listener that is further behind misses steps, never the state: it can ask for the reports.
const BACKLOG: usize = 256;

pub(super) struct Board {
    reports: Mutex<HashMap<Digest, AssetReport>>,
    sender: broadcast::Sender<AssetReport>,
}

impl Board {
    pub(super) fn new() -> Self {
        Board { reports: Mutex::default(), sender: broadcast::channel(BACKLOG).0 }
    }

    fn reports(&self) -> MutexGuard<'_, HashMap<Digest, AssetReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn post(&self, report: AssetReport) {
        self.reports().insert(report.sha256.clone(), report.clone());
        // Nobody listening is fine.
        let _ = self.sender.send(report);
    }

    pub(super) fn remove(&self, digest: &Digest) {
        let gone = self.reports().remove(digest);
        if let Some(report) = gone {
            let _ = self.sender.send(AssetReport { phase: AssetPhase::Missing, size: 0, ..report });
        }
    }

    pub(super) fn all(&self) -> Vec<AssetReport> {
        let mut all: Vec<_> = self.reports().values().cloned().collect();
        all.sort_by(|a, b| a.sha256.cmp(&b.sha256));
        all
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<AssetReport> {
        self.sender.subscribe()
    }
}

/// Posts the progress of one fetch, not more often than useful.
pub(super) struct Meter<'a> {
    board: &'a Board,
    report: AssetReport,
    last: Option<Instant>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(board: &'a Board, sha256: Digest, media_type: &str) -> Self {
        let (phase, media_type) = (AssetPhase::Fetching, media_type.to_owned());
        let report = AssetReport { sha256, phase, size: 0, total: None, media_type, message: String::new() };
        Meter { board, report, last: None }
    }

    pub(super) fn at(&mut self, size: u64, total: u64) {
        if self.last.is_some_and(|l| l.elapsed() < INTERVAL) {
            return;
        }
        self.last = Some(Instant::now());
        (self.report.size, self.report.total) = (size, Some(total));
        self.board.post(self.report.clone());
    }
}
