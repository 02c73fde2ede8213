//! A committed snapshot as the control plane records it.

use ate_agent::{SnapshotLocation, SnapshotRef, Source};
use ate_api::{
    id::{ActorName, Digest, ObjectName, Uid},
    resource::template::Scope,
};
use serde::{Deserialize, Serialize};

/// One revision of one SandboxConfig.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ConfigKey {
    pub(crate) name: String,
    pub(crate) revision: u64,
}

impl std::fmt::Display for ConfigKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.revision)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Location {
    /// On the node of this name only.
    Node(String),
    /// URL prefix in object storage.
    Url(String),
}

/// What an actor would resume from. Complete and verified when it is recorded (I2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) manifest: Digest,
    pub(crate) scope: Scope,
    pub(crate) location: Location,
    pub(crate) generation: u64,
    /// Under which binaries and settings it was made; the only ones it is restored under.
    pub(crate) sandbox: ConfigKey,
    /// Digest of the platform record: architecture and CPU features a restore needs.
    pub(crate) platform: Digest,
    pub(crate) size: u64,
    pub(crate) created_ms: i64,
    /// What it rests on; none: it is whole. There for as long as this one is (I2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<Base>,
    /// Why it must not be used, if it failed verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) quarantined: Option<String>,
}

/// A whole snapshot that others rest on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Base {
    pub(crate) manifest: Digest,
    pub(crate) location: Location,
}

impl Base {
    pub(crate) fn reference(&self) -> SnapshotRef {
        reference(&self.manifest, Scope::Full, &self.location)
    }
}

impl Snapshot {
    pub(crate) fn source(&self) -> Source {
        Source::Snapshot { snapshot: self.reference(), base: self.base.as_ref().map(Base::reference) }
    }

    /// As what others may rest on, if it rests on none itself: there is never a chain.
    pub(crate) fn as_base(&self) -> Option<Base> {
        let whole = self.base.is_none() && self.scope == Scope::Full;
        whole.then(|| Base { manifest: self.manifest.clone(), location: self.location.clone() })
    }

    pub(crate) fn reference(&self) -> SnapshotRef {
        reference(&self.manifest, self.scope, &self.location)
    }

    pub(crate) fn garbage(&self) -> Garbage {
        Garbage { scope: self.scope, location: self.location.clone() }
    }
}

fn reference(manifest: &Digest, scope: Scope, location: &Location) -> SnapshotRef {
    let location = match location {
        Location::Node(node) => SnapshotLocation::Local { node: node.clone() },
        Location::Url(prefix) => SnapshotLocation::External { prefix: prefix.clone() },
    };
    SnapshotRef { manifest: manifest.clone(), scope, location }
}

/// Index entry under the manifest's digest: who owns the snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SnapshotRecord {
    pub(crate) actor: ActorName,
    pub(crate) actor_uid: Uid,
    pub(crate) template: ObjectName,
    pub(crate) snapshot: Snapshot,
}

/// Entry of the deletion queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Garbage {
    pub(crate) scope: Scope,
    pub(crate) location: Location,
}

impl Garbage {
    pub(crate) fn reference(&self, manifest: &Digest) -> SnapshotRef {
        reference(manifest, self.scope, &self.location)
    }
}
