//! What crosses between control plane and node agent.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ate_api::{
    id::{Activation, ActorName, Digest, ObjectName, Uid, WorkerId},
    resource::template::{ActorTemplateSpec, Scope},
};
use ate_sandbox::SandboxRef;
use ate_snapshot::manifest::Platform;
use serde::{Deserialize, Serialize};

/// The desired state of one pool on this node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolSpec {
    pub name: ObjectName,
    /// Labels of the pool, which worker selectors match.
    pub labels: BTreeMap<String, String>,
    pub replicas: u32,
    /// What its workers are made ready for: present and verified before a worker counts as ready.
    pub sandbox: SandboxRef,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerPhase {
    /// Assets are fetched or the herder is not up yet.
    Starting,
    /// Idle and able to take an actor.
    Ready,
    /// Holds an actor, or is being cleaned.
    Busy,
}

/// What the node says of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    pub id: WorkerId,
    /// Name of the node it is on.
    pub node: String,
    /// The pod it is in, where workers are pods.
    pub pod: Option<Pod>,
    pub pool: ObjectName,
    pub labels: BTreeMap<String, String>,
    pub class: String,
    pub phase: WorkerPhase,
    /// Where the router reaches its actor.
    pub address: IpAddr,
    pub platform: Platform,
    /// Configurations (by config digest and asset digests) this worker is verified for, as `name@revision`.
    pub configs: Vec<String>,
    /// Preparation in place, if any.
    pub prepared: Option<PrepareKey>,
    /// Whose activation is on it, as far as the node knows.
    pub holds: Option<Held>,
    /// It is about to go: nothing more is started on it, and who is on it had better leave.
    pub leaving: bool,
    /// Why it is not ready yet; for people.
    pub message: String,
}

/// The pod of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub name: String,
    pub uid: String,
}

/// An activation on a worker, as the node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub actor: Uid,
    pub activation: Activation,
    pub stage: HeldStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeldStage {
    Starting,
    Running,
    /// A capture of this generation is under way or done.
    Captured {
        generation: u64,
    },
    /// It ended or never came up, and waits to be released.
    Over,
}

/// What a preparation is good for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PrepareKey {
    pub template_uid: Uid,
    /// Digest over class, config and assets.
    pub sandbox: Digest,
    /// Manifest of the snapshot that new actors begin with.
    pub snapshot: Option<Digest>,
    /// That snapshot is restored ahead, for one new actor.
    pub standby: bool,
}

/// Something that happened on the node without being asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "most events are of the largest variant")]
pub enum NodeEvent {
    /// A worker is new or changed. The first events of a stream are all workers there are, then [`NodeEvent::Listed`].
    Worker(WorkerReport),
    /// Those were all: a worker that is not among them is gone, though nobody may have been told.
    Listed,
    /// The worker is gone for good, whatever it held is lost.
    WorkerLost { id: WorkerId, message: String },
    /// The actor on this worker ended by itself; the worker still has to be released.
    ActorEnded { worker: WorkerId, actor: Uid, activation: Activation, message: String },
    /// Progress of fetching one asset, for people.
    Asset(AssetReport),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AssetPhase {
    Fetching,
    Verified,
    Failed,
    /// Not on this node.
    Missing,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssetReport {
    pub sha256: Digest,
    pub phase: AssetPhase,
    /// Bytes there so far.
    pub size: u64,
    pub total: Option<u64>,
    pub media_type: String,
    pub message: String,
}

/// The template an actor is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    pub name: ObjectName,
    pub uid: Uid,
    pub spec_digest: Digest,
    pub spec: ActorTemplateSpec,
    /// Image reference → digest it was resolved to. Complete: every container's image is in it.
    pub images: BTreeMap<String, Digest>,
}

/// Who is activated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActorIdentity {
    pub name: ActorName,
    pub uid: Uid,
}

/// Start one activation of an actor on a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Activate {
    pub worker: WorkerId,
    pub actor: ActorIdentity,
    pub activation: Activation,
    pub template: Template,
    /// Under which binaries. For a restore these are the ones recorded with the snapshot at commit, and the
    /// node refuses a manifest that says otherwise.
    pub sandbox: SandboxRef,
    pub source: Source,
    /// Time for everything, readiness included.
    pub timeout: Duration,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Source {
    /// From the images.
    Boot,
    /// From a committed snapshot. With `Scope::Data`: from the images, with the durable directories in place.
    Snapshot {
        snapshot: SnapshotRef,
        /// What it rests on, as recorded when it was committed; the node refuses a manifest that says otherwise.
        base: Option<SnapshotRef>,
    },
    /// From the images, with the durable directories that a snapshot of whatever scope holds.
    Files { snapshot: SnapshotRef },
}

impl Source {
    /// The node that alone has it.
    pub fn node(&self) -> Option<&str> {
        match self {
            Source::Snapshot { snapshot, .. } | Source::Files { snapshot } => match &snapshot.location {
                SnapshotLocation::Local { node } => Some(node),
                SnapshotLocation::External { .. } => None,
            },
            Source::Boot => None,
        }
    }
}

/// A committed snapshot, as the control plane recorded it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRef {
    /// sha256 of the manifest.
    pub manifest: Digest,
    pub scope: Scope,
    pub location: SnapshotLocation,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotLocation {
    /// On the node of this name only.
    Local { node: String },
    /// URL prefix in object storage; `{prefix}/manifest.json` and the files beside it.
    External { prefix: String },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Activated {
    pub address: IpAddr,
    /// A sandbox started ahead was used.
    pub prepared: bool,
    /// Where the time went, in microseconds.
    pub steps_us: BTreeMap<String, u64>,
}

/// Freeze the actor and store a snapshot of it. The actor stays frozen until `thaw` or `release`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Capture {
    pub worker: WorkerId,
    pub actor: ActorIdentity,
    pub activation: Activation,
    /// Number the snapshot gets if it is committed.
    pub generation: u64,
    pub scope: Scope,
    pub parent: Option<Digest>,
    /// Stays available for as long as the snapshot is, so that the snapshot may hold only what differs from it. It is
    /// what the activation was restored from, or that one's base. None: the snapshot must be whole.
    pub base: Option<SnapshotRef>,
    pub target: CaptureTarget,
    pub timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CaptureTarget {
    Local,
    /// URL prefix below which the snapshot gets a prefix of its own; `default` is the node's own store.
    External {
        location: String,
    },
}

/// A snapshot that is completely written, verified and durable, but not committed yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Captured {
    pub manifest: Digest,
    pub manifest_json: Vec<u8>,
    /// Sum of its files.
    pub size: u64,
    pub location: SnapshotLocation,
    /// It rests on [`Capture::base`].
    pub needs_base: bool,
}

/// Start a sandbox ahead on an idle worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepare {
    pub worker: WorkerId,
    pub template: Template,
    pub sandbox: SandboxRef,
    /// What new actors of the template begin with, made under this sandbox; copied onto the node, off the clock.
    pub snapshot: Option<SnapshotRef>,
    /// A new actor is likely to come: restore the snapshot ahead, if the class can.
    pub standby: bool,
}

/// What binaries can do under a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    pub capabilities: Vec<String>,
    pub versions: BTreeMap<String, String>,
}

/// An image found and unpacked on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedImage {
    pub digest: Digest,
    /// TCP ports the image says it listens on.
    pub exposed_ports: Vec<u16>,
}

/// Everything that is still referenced; the rest may go.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LiveSet {
    pub manifests: Vec<Digest>,
    pub assets: Vec<Digest>,
    pub images: Vec<Digest>,
    pub actors: Vec<Uid>,
    /// Locations of object storage to look for what nobody committed; none: not now.
    pub locations: Vec<String>,
    /// URL prefixes of all that is committed, or on its way out of storage by itself.
    pub stored: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// RFC 3339, UTC.
    pub time: String,
    pub container: String,
    pub stream: String,
    pub text: String,
    pub activation: Activation,
}
