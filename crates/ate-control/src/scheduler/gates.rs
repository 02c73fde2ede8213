//! What an actor needs of a pool and a worker, and why one does not fit.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use ate_agent::WorkerReport;
use ate_api::{
    Error,
    id::{Activation, ActorName, Uid},
    resource::template::{LabelRequirement, LabelSelector},
};
use ate_snapshot::manifest::Platform;

use crate::{records::Revision, rollout::Successor};

/// A pool as the scheduler sees it.
#[derive(Debug, Clone)]
pub(crate) struct PoolInfo {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) class: String,
    /// The configuration in force, once it is resolved and its assets are verified.
    pub(crate) sandbox: Option<Arc<Revision>>,
    /// Why nothing may run under it any more.
    pub(crate) revoked: Option<Error>,
    /// Actors it may hold: its replicas, less while it is drained.
    pub(crate) capacity: usize,
}

/// Which binaries an actor runs under.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// Those recorded with its snapshot.
    Pinned(Arc<Revision>),
    /// Those of the pool it comes to, or what a rollout has put in their place, if they can do this.
    OfPool { capabilities: Vec<String>, successor: Option<Successor> },
}

/// One actor in search of a worker.
#[derive(Debug)]
pub(crate) struct Need {
    pub(crate) actor: ActorName,
    pub(crate) uid: Uid,
    /// Number of the activation that is going to be.
    pub(crate) activation: Activation,
    pub(crate) template_uid: Uid,
    /// It begins with the golden snapshot of its template: a standby of that is for it.
    pub(crate) begins: bool,
    pub(crate) class: String,
    pub(crate) template_selector: Option<LabelSelector>,
    pub(crate) actor_selector: BTreeMap<String, String>,
    pub(crate) wanted: Wanted,
    /// Where its snapshot was made; none for a boot.
    pub(crate) platform: Option<Arc<Platform>>,
    /// That very platform, not one that has more.
    pub(crate) same_platform: bool,
    /// The node its snapshot lies on, if that is nowhere else.
    pub(crate) node: Option<String>,
    /// `None`: never suspended for being idle.
    pub(crate) idle_timeout: Option<Duration>,
    /// Somebody who waits may have its worker when it is idle.
    pub(crate) movable: bool,
    pub(crate) default_port: u16,
}

/// Why a pool or its workers cannot take an actor.
#[derive(Debug)]
pub(crate) enum Misfit {
    Class { pool: String, wanted: String },
    Selector { key: String },
    NoConfig,
    Revoked(Error),
    Capability(String),
    Arch { worker: String, snapshot: String },
    CpuFeatures(Vec<String>),
    OtherPlatform,
    OtherNode(String),
    Draining,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Class { pool, wanted } => write!(f, "its sandbox class is {pool}, the actor's is {wanted}"),
            Misfit::Selector { key } => write!(f, "its label {key} does not match the worker selector"),
            Misfit::NoConfig => write!(f, "its sandbox configuration is not ready"),
            Misfit::Revoked(e) => f.write_str(&e.message),
            Misfit::Capability(c) => write!(f, "its sandbox configuration lacks the capability {c}"),
            Misfit::Arch { worker, snapshot } => {
                write!(f, "its workers are {worker}, the snapshot was made on {snapshot}")
            }
            Misfit::CpuFeatures(missing) => {
                write!(f, "its workers lack CPU features of the snapshot: {}", missing.join(" "))
            }
            Misfit::OtherPlatform => write!(f, "its workers are not of the platform it is to be started on"),
            Misfit::OtherNode(node) => write!(f, "its workers are not on node {node}, where the actor is paused"),
            Misfit::Draining => write!(f, "it is scaled to zero or being removed"),
        }
    }
}

impl Need {
    /// Checks everything that is the same for all workers of a pool; returns what the actor would run under.
    pub(crate) fn fits_pool(&self, pool: &PoolInfo) -> Result<Arc<Revision>, Misfit> {
        if pool.class != self.class {
            return Err(Misfit::Class { pool: pool.class.clone(), wanted: self.class.clone() });
        }
        if let Some((key, _)) = self.actor_selector.iter().find(|(k, v)| pool.labels.get(*k) != Some(v)) {
            return Err(Misfit::Selector { key: key.clone() });
        }
        if let Some(key) = self.template_selector.as_ref().and_then(|s| mismatch(s, &pool.labels)) {
            return Err(Misfit::Selector { key });
        }
        if pool.capacity == 0 {
            return Err(Misfit::Draining);
        }
        match &self.wanted {
            Wanted::Pinned(revision) => Ok(revision.clone()),
            Wanted::OfPool { capabilities, successor } => {
                let replaced =
                    |s: &&Successor| pool.revoked.is_some() || pool.sandbox.as_ref().is_some_and(|r| s.replaces(r));
                let revision = match (successor.as_ref().filter(replaced), &pool.revoked) {
                    (Some(successor), _) => &successor.revision,
                    (None, Some(e)) => return Err(Misfit::Revoked(e.clone())),
                    (None, None) => pool.sandbox.as_ref().ok_or(Misfit::NoConfig)?,
                };
                match capabilities.iter().find(|c| !revision.capabilities.contains(c)) {
                    Some(missing) => Err(Misfit::Capability(missing.clone())),
                    None => Ok(revision.clone()),
                }
            }
        }
    }

    /// Where the snapshot lies; then architecture and CPU: a restore needs every feature the snapshot's machine had.
    pub(crate) fn fits_worker(&self, worker: &WorkerReport) -> Result<(), Misfit> {
        if let Some(node) = self.node.as_ref().filter(|node| **node != worker.node) {
            return Err(Misfit::OtherNode(node.clone()));
        }
        match &self.platform {
            Some(needed) if self.same_platform && needed.cpu_features != worker.platform.cpu_features => {
                Err(Misfit::OtherPlatform)
            }
            Some(needed) => can_restore(needed, &worker.platform),
            None => Ok(()),
        }
    }
}

/// Whether what was made on the one platform can be restored on the other.
pub(crate) fn can_restore(needed: &Platform, worker: &Platform) -> Result<(), Misfit> {
    if needed.arch != worker.arch || needed.os != worker.os {
        return Err(Misfit::Arch { worker: worker.arch.clone(), snapshot: needed.arch.clone() });
    }
    if needed.cpu_features == worker.cpu_features {
        return Ok(());
    }
    let missing: Vec<String> =
        needed.cpu_features.iter().filter(|f| !worker.cpu_features.contains(f)).cloned().collect();
    if missing.is_empty() { Ok(()) } else { Err(Misfit::CpuFeatures(missing)) }
}

/// The first key of a Kubernetes label selector that does not match.
fn mismatch(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Option<String> {
    if let Some((key, _)) = selector.match_labels.iter().find(|(k, v)| labels.get(*k) != Some(v)) {
        return Some(key.clone());
    }
    selector.match_expressions.iter().find(|e| !holds(e, labels)).map(|e| e.key.clone())
}

fn holds(e: &LabelRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&e.key);
    match e.operator.as_str() {
        "In" => value.is_some_and(|v| e.values.contains(v)),
        "NotIn" => value.is_none_or(|v| !e.values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}
