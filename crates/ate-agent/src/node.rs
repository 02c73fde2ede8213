//! The trait a node agent implements.

use async_trait::async_trait;
use ate_api::{
    Error,
    id::{Activation, Digest, ObjectName, Uid, WorkerId},
};
use ate_sandbox::{Revocations, SandboxRef, Verification};
use tokio::sync::mpsc;

use crate::types::*;

/// Events in order. The sender goes when the node does.
pub type NodeEvents = mpsc::Receiver<NodeEvent>;
/// Log lines in order; dropped by the reader to stop.
pub type LogTail = mpsc::Receiver<LogLine>;

/// Bytes of an asset on their way in.
pub struct AssetUpload {
    pub media_type: String,
    pub size: u64,
    pub chunks: mpsc::Receiver<Vec<u8>>,
}

/// One machine's agent. Every call is idempotent: repeated with the same numbers it gives the same result.
///
/// Fencing (I1): a call whose activation is lower than one the worker has seen for that actor, or that is for
/// another actor than the one on the worker, fails with [`ate_api::Reason::Fenced`] and changes nothing.
///
/// Errors are [`ate_api::Error`] with the reason closest to the cause. After an error of `activate` the worker
/// must be released. After an error of `capture` the actor runs on.
#[async_trait]
pub trait NodeAgent: Send + Sync + 'static {
    fn name(&self) -> &str;

    /// Whether workers, and who is on them, outlive the control plane. One that starts then asks who runs before it puts
    /// anybody to rest.
    fn keeps_workers(&self) -> bool {
        false
    }

    /// All workers, [`NodeEvent::Listed`], then whatever happens. Each caller gets its own stream.
    fn events(&self) -> NodeEvents;

    /// Sets the desired state of one pool; workers come and go in the background. When there are too many, those
    /// that hold nobody go first.
    async fn set_pool(&self, pool: PoolSpec) -> Result<(), Error>;
    /// Ends the workers of a pool. Whatever still runs on them is lost: drain first.
    async fn remove_pool(&self, pool: &ObjectName) -> Result<(), Error>;

    /// Checks the signatures of the assets against their bytes, which are fetched if they are not here and `fetch` says
    /// so; else what is not here is left out.
    async fn check_signatures(
        &self,
        sandbox: &SandboxRef,
        verification: &Verification,
        fetch: bool,
    ) -> Result<(), Error>;
    /// Fetches and verifies the assets and asks the driver what they can do.
    async fn probe(&self, sandbox: &SandboxRef) -> Result<Probed, Error>;
    /// Takes an asset into the node's store and returns its digest, size, URL and whether it was there.
    async fn import_asset(&self, upload: AssetUpload) -> Result<(Digest, u64, String, bool), Error>;
    async fn assets(&self) -> Result<Vec<AssetReport>, Error>;
    /// Removes an asset from the node. Absent is fine; `IN_USE` if a worker or a pool uses it.
    async fn delete_asset(&self, asset: &Digest) -> Result<(), Error>;

    /// Replaces the list of binaries that must not run any more. The node keeps it for itself, over restarts, and goes by it
    /// whoever asks. When this returns, the list is durable, nothing new begins under a binary on it (`ASSET_REVOKED`), and
    /// what was prepared under one is gone. What runs goes on. `FENCED` if the node has a later list.
    async fn set_revocations(&self, revocations: Revocations) -> Result<(), Error>;

    /// Finds an image, records its digest and unpacks its layers.
    async fn resolve_image(&self, reference: &str) -> Result<ResolvedImage, Error>;

    async fn prepare(&self, prepare: Prepare) -> Result<(), Error>;
    async fn activate(&self, activate: Activate) -> Result<Activated, Error>;
    async fn capture(&self, capture: Capture) -> Result<Captured, Error>;
    /// The capture of this generation is not committed: the actor goes on. `FENCED` if a later one is under way or done.
    async fn thaw(&self, worker: &WorkerId, actor: &Uid, activation: Activation, generation: u64) -> Result<(), Error>;
    /// Ends the activation, if it still runs, and cleans the worker. The worker is idle when this returns.
    async fn release(&self, worker: &WorkerId, actor: &Uid, activation: Activation) -> Result<(), Error>;

    /// The stored bytes of a manifest, digest verified.
    async fn manifest(&self, snapshot: &SnapshotRef) -> Result<Vec<u8>, Error>;
    /// Removes a snapshot from object storage and from the node. Absent is fine. Nothing may rest on it any more.
    async fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<(), Error>;
    /// Removes from the node whatever is not in the set and was not written in the last minutes.
    async fn collect(&self, live: LiveSet) -> Result<(), Error>;

    /// Lines of an actor's log, the last `tail` of them (0: all), then new ones if `follow`.
    async fn logs(&self, actor: &Uid, container: &str, tail: u32, follow: bool) -> Result<LogTail, Error>;
}
