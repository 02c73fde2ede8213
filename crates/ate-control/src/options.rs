//! What can be set when a control plane starts, with the reasons for the defaults.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::Reviewer;

/// Settings of one control plane. `Default` is right for one machine.
#[derive(Debug, Clone)]
pub struct Options {
    /// Allow `DebugClear`. Off: it deletes every actor.
    pub debug: bool,
    /// Where writes and denials are put on record. `None`: nowhere.
    pub audit_log: Option<PathBuf>,
    /// Who knows callers with tokens that are not this server's: the cluster it runs in.
    pub reviewer: Option<Arc<dyn Reviewer>>,
    /// How long its "yes" counts without being asked again. Half a minute: a revoked right is gone soon, and whoever
    /// works with the API all day costs the cluster a question now and then.
    pub review_ttl: Duration,
    /// Go's name of this machine's architecture; assets of other architectures are not needed here.
    pub arch: String,
    /// Port people reach the router on, for the URLs shown with actors. `None`: no URL is shown.
    pub router_port: Option<u16>,
    /// An actor may be moved out for somebody who waits once it had no request for this long. A quarter of a
    /// second keeps the pause between two requests of one page load from costing a suspend and a resume, and is
    /// still short beside the suspend itself.
    pub eviction_grace: Duration,
    /// Callers that may wait for a worker at once. Beyond it waiting longer would not help anybody.
    pub queue_limit: usize,
    /// Longest wait of a caller that named no deadline.
    pub resume_timeout: Duration,
    /// One attempt to start an actor on one worker, readiness included.
    pub activate_timeout: Duration,
    /// Freezing, writing and uploading one actor.
    pub capture_timeout: Duration,
    /// Cleaning one worker.
    pub release_timeout: Duration,
    /// Requests in flight may finish for this long when an actor is suspended by command.
    pub drain: Duration,
    /// First pause between two attempts at a golden snapshot; doubles each time.
    pub golden_backoff: Duration,
    /// How often a golden snapshot is tried before its template counts as failed.
    pub golden_attempts: u32,
    /// Booting a golden actor, image fetch and waiting for a worker included.
    pub golden_timeout: Duration,
    /// Where workers outlive the control plane: how long nodes may take to say who runs on them, before a new one puts to
    /// rest those nobody spoke of. Nodes register every few seconds, and one that is replaced is back within this.
    pub adoption_grace: Duration,
    /// How often running actors are looked at for idleness and passed deadlines. A tenth of the shortest idle
    /// timeout anybody would notice.
    pub tick: Duration,
    /// How often the node is told what is still referenced.
    pub collect_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            debug: false,
            audit_log: None,
            reviewer: None,
            review_ttl: Duration::from_secs(30),
            arch: ate_sandbox::host::arch().to_owned(),
            router_port: None,
            eviction_grace: Duration::from_millis(250),
            queue_limit: 1024,
            resume_timeout: Duration::from_secs(60),
            activate_timeout: Duration::from_secs(60),
            capture_timeout: Duration::from_secs(120),
            release_timeout: Duration::from_secs(20),
            drain: Duration::from_secs(5),
            golden_backoff: Duration::from_secs(1),
            golden_attempts: 4,
            golden_timeout: Duration::from_secs(180),
            adoption_grace: Duration::from_secs(30),
            tick: Duration::from_millis(200),
            collect_interval: Duration::from_secs(300),
        }
    }
}
