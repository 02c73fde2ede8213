//! Stored resources: what the user wrote, and what the control plane made of it.

use std::collections::BTreeMap;

use ate_api::{
    id::{Digest, ObjectName, Uid},
    resource::{ActorTemplate, Atespace, Choice, Rule, SandboxConfig, WorkerPool},
};
use ate_sandbox::{SandboxRef, Verification};
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
    /// Which rule gave it that class, and when. None: made by a build that did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) class_choice: Option<Choice>,
    pub(crate) spec_digest: Digest,
    /// Image reference → digest, complete once resolved.
    #[serde(default)]
    pub(crate) images: BTreeMap<String, Digest>,
    /// Where HTTP goes when the host name names no port.
    pub(crate) default_port: u16,
    #[serde(default)]
    pub(crate) golden: Option<Snapshot>,
    /// Golden snapshots under the same revision, for workers that cannot restore the one above: of another architecture, or
    /// without a CPU feature that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) siblings: Vec<Snapshot>,
    /// Golden snapshots of earlier revisions, the last one last: there while a rollout may go back to them, or an actor
    /// runs that began with one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) former: Vec<Snapshot>,
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

    /// As before its first one was made. What there is of them is its golden actors'.
    pub(crate) fn forget_goldens(&mut self) {
        self.golden = None;
        self.siblings.clear();
        self.former.clear();
        if let Some(status) = &mut self.resource.status {
            status.phase.clear();
            status.golden_snapshot = None;
            status.golden_manifest = None;
            status.conditions.retain(|c| c.r#type != "Ready");
        }
    }

    /// Actors of it have files that outlive their memory.
    pub(crate) fn has_durable_dirs(&self) -> bool {
        self.resource.spec.volumes.iter().any(|v| v.durable_dir.is_some())
    }

    /// Its class, with the rule that decided.
    pub(crate) fn class_choice(&self) -> Choice {
        let unknown = || match &self.resource.spec.sandbox_class {
            Some(_) => Choice::new(&self.class, Rule::Template, "the template names it"),
            None => Choice::new(&self.class, Rule::Recorded, "it was the default when the template was created"),
        };
        self.class_choice.clone().unwrap_or_else(unknown)
    }

    /// All golden snapshots, those of earlier revisions too.
    pub(crate) fn goldens(&self) -> impl Iterator<Item = &Snapshot> {
        self.beginnings().chain(&self.former)
    }

    /// What new actors begin with: the golden snapshot, or where that cannot be restored one of its siblings.
    pub(crate) fn beginnings(&self) -> impl Iterator<Item = &Snapshot> {
        self.golden.iter().chain(&self.siblings)
    }

    /// New actors begin with this one from now on, and with its siblings.
    pub(crate) fn set_golden(&mut self, snapshot: Snapshot) {
        let others = self.golden.take().into_iter().chain(self.siblings.drain(..)).chain(self.former.drain(..));
        let others = others.filter(|s| s.manifest != snapshot.manifest);
        (self.siblings, self.former) = others.partition(|s| s.sandbox == snapshot.sandbox);
        self.golden = Some(snapshot);
    }

    /// One more for other workers, unless the revision it was made under is not the one in force any more.
    pub(crate) fn add_sibling(&mut self, snapshot: Snapshot) {
        let current = self.golden.as_ref().is_some_and(|g| g.sandbox == snapshot.sandbox);
        if current && !self.beginnings().any(|s| s.manifest == snapshot.manifest) {
            self.siblings.push(snapshot);
        }
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

/// The default class of the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DefaultClass {
    pub(crate) class: String,
    /// The configuration that stands for it.
    pub(crate) config: String,
    pub(crate) since_ms: i64,
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
    /// Whose signatures its assets must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) verification: Option<Verification>,
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
    /// Whether its binaries count as admitted (I4). Those that have to be signed do once the bytes were seen to be.
    pub(crate) fn admits(&self) -> bool {
        self.verification.is_none() || self.probed
    }

    pub(crate) fn key(&self) -> ConfigKey {
        ConfigKey { name: self.reference.config.name.clone(), revision: self.reference.config.revision }
    }
}
