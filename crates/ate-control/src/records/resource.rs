//! Stored resources: what the user wrote, and what the control plane made of it.

use std::collections::BTreeMap;

use ate_api::{
    id::{Digest, ObjectName, Uid},
    resource::{ActorTemplate, Atespace, SandboxConfig, WorkerPool},
};
use ate_sandbox::SandboxRef;
use serde::{Deserialize, Serialize};

use super::{ConfigKey, Snapshot};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AtespaceRecord {
    pub(crate) resource: Atespace,
    /// Being deleted: takes no new actors.
    #[serde(default)]
    pub(crate) deleting: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TemplateRecord {
    pub(crate) resource: ActorTemplate,
    /// Class after defaults, resolved once at creation.
    pub(crate) class: String,
    pub(crate) spec_digest: Digest,
    /// Image reference → digest, complete once resolved.
    #[serde(default)]
    pub(crate) images: BTreeMap<String, Digest>,
    /// Where HTTP goes when the host name names no port.
    pub(crate) default_port: u16,
    #[serde(default)]
    pub(crate) golden: Option<Snapshot>,
    #[serde(default)]
    pub(crate) deleting: bool,
}

impl TemplateRecord {
    pub(crate) fn name(&self) -> ObjectName {
        ObjectName::new(&self.resource.metadata.namespace, &self.resource.metadata.name)
    }

    /// Set at creation; a template without one was never stored.
    pub(crate) fn uid(&self) -> &Uid {
        self.resource.metadata.uid.as_ref().expect("stored templates have a uid")
    }

    pub(crate) fn phase(&self) -> &str {
        self.resource.status.as_ref().map_or("", |s| s.phase.as_str())
    }

    /// As the node needs it.
    pub(crate) fn for_node(&self) -> ate_agent::Template {
        ate_agent::Template {
            name: self.name(),
            uid: self.uid().clone(),
            spec_digest: self.spec_digest.clone(),
            spec: self.resource.spec.clone(),
            images: self.images.clone(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PoolRecord {
    pub(crate) resource: WorkerPool,
    /// Being drained; removed when the last actor left.
    #[serde(default)]
    pub(crate) deleting: bool,
}

impl PoolRecord {
    pub(crate) fn name(&self) -> ObjectName {
        ObjectName::new(&self.resource.metadata.namespace, &self.resource.metadata.name)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConfigRecord {
    pub(crate) resource: SandboxConfig,
    pub(crate) revision: u64,
}

impl ConfigRecord {
    pub(crate) fn key(&self) -> ConfigKey {
        ConfigKey { name: self.resource.metadata.name.clone(), revision: self.revision }
    }
}

/// One immutable revision: everything needed to run and to decide whether it may.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Revision {
    pub(crate) reference: SandboxRef,
    /// Digest of everything an edit could change in how it runs, all architectures included.
    pub(crate) content: Digest,
    pub(crate) created_ms: i64,
    /// Set by the probe, which also fetched and verified the assets.
    #[serde(default)]
    pub(crate) probed: bool,
    #[serde(default)]
    pub(crate) capabilities: Vec<String>,
    #[serde(default)]
    pub(crate) versions: BTreeMap<String, String>,
    /// Why the probe failed.
    #[serde(default)]
    pub(crate) failure: Option<Failure>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Revision {
    pub(crate) fn key(&self) -> ConfigKey {
        ConfigKey { name: self.reference.config.name.clone(), revision: self.reference.config.revision }
    }
}
