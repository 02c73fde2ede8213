//! What one history, or many, came to.

use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) histories: u64,
    /// What users and administrators asked for, and how much of that was done.
    pub(crate) asked: u64,
    pub(crate) done: u64,
    pub(crate) crashes: u64,
    pub(crate) faults: u64,
    pub(crate) commits: u64,
    pub(crate) activations: u64,
    pub(crate) captures: u64,
    pub(crate) served: u64,
    pub(crate) simulated_ms: u64,
    /// Whole snapshots in object storage that no record names: left by a crash between upload and commit.
    pub(crate) orphans: u64,
    pub(crate) violations: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, other: Report) {
        self.histories += other.histories;
        self.asked += other.asked;
        self.done += other.done;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.commits += other.commits;
        self.activations += other.activations;
        self.captures += other.captures;
        self.served += other.served;
        self.simulated_ms += other.simulated_ms;
        self.orphans += other.orphans;
        self.violations.extend(other.violations);
    }
}
