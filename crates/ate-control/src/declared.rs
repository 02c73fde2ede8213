//! Resources that are declared elsewhere, as on Kubernetes: they come in and their status goes out in process, each with
//! the uid and generation it has where it is declared. What is stored here is then a copy that the control plane goes on
//! from while the other side is away.

use std::{sync::Arc, time::Duration};

use ate_api::{
    Error, Reason,
    id::{ObjectName, Uid},
    resource::{self, Invalid, Resource, validate_update},
};
use ate_sandbox::Registry;
use futures::{Stream, StreamExt};
use tokio_stream::wrappers::WatchStream;

use crate::{control::Control, core::Core, resources::not_found, scheduler::Seat};

/// The kinds whose objects can be declared elsewhere.
pub const KINDS: [&str; 3] = ["SandboxConfig", "WorkerPool", "ActorTemplate"];

/// The side of the control plane that faces whoever keeps the resources. Clones are handles of the same.
#[derive(Clone)]
pub struct Declared {
    core: Arc<Core>,
}

/// A worker, as far as its end is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerUse {
    /// Nobody is on it, and it is clean.
    pub is_empty: bool,
    /// And nobody comes to it any more.
    pub is_leaving: bool,
}

impl Control {
    /// From now on objects of [`KINDS`] come from `keeper` alone: the API refuses to write them and says so.
    pub fn declared_by(&self, keeper: &'static str) -> Declared {
        let _ = self.core.keeper.set(keeper);
        Declared { core: self.core.clone() }
    }
}

impl Declared {
    /// The classes of this installation.
    pub fn classes(&self) -> &Registry {
        &self.core.classes
    }

    /// Applies an object as it is declared now and returns it with its status. An older declaration than the one in
    /// force changes nothing.
    ///
    /// # Errors
    /// `INVALID` and whatever else an apply of a user may be refused with; `IN_USE` if an object of the same name with
    /// another uid is still needed here.
    pub async fn apply(&self, resource: Resource) -> Result<Resource, Error> {
        resource::check(&resource)?;
        let meta = resource.metadata();
        let (kind, namespace, name) = (resource.kind(), meta.namespace.clone(), meta.name.clone());
        if let Some(old) = self.get(kind, &namespace, &name) {
            let (known, now) = (old.metadata(), resource.metadata());
            if known.uid != now.uid {
                // Deleted and declared anew while nobody looked.
                if !self.delete(kind, &namespace, &name, known.uid.as_ref()).await? {
                    let message = "the object of this name that was deleted is still being cleaned up";
                    return Err(Error::new(Reason::WrongState, message).on(resource.label()));
                }
            } else if now.generation < known.generation || same_declaration(&old, &resource) {
                return Ok(old);
            } else {
                Invalid::check(resource.label(), validate_update(&old, &resource))?;
            }
        }
        self.core.apply_object(resource).await?;
        let object = format!("{}/{}", kind.to_lowercase(), ObjectName::new(&namespace, &name));
        self.get(kind, &namespace, &name).ok_or_else(|| not_found("object", &object))
    }

    /// Removes an object with this uid. False: its end has begun and is not over. One that is not there is gone.
    ///
    /// # Errors
    /// `IN_USE`, naming who needs it.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str, uid: Option<&Uid>) -> Result<bool, Error> {
        let Some(old) = self.get(kind, namespace, name).filter(|old| old.metadata().uid.as_ref() == uid) else {
            return Ok(true);
        };
        let object = ObjectName::new(namespace, name);
        let deleted = match old {
            Resource::SandboxConfig(_) => self.core.delete_config(name, false).await,
            Resource::WorkerPool(_) => self.core.delete_pool(&object).await,
            Resource::ActorTemplate(_) => self.core.delete_template(&object).await,
            Resource::Atespace(_) => self.core.delete_atespace(name).await,
        };
        match deleted {
            Err(e) if e.reason != Reason::NotFound => Err(e),
            _ => Ok(self.get(kind, namespace, name).is_none()),
        }
    }

    /// The object as it is in force here, with its status.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Resource> {
        let (catalog, object) = (&self.core.catalog, ObjectName::new(namespace, name));
        match kind {
            "SandboxConfig" => {
                catalog.configs.get(&name.to_owned()).map(|e| Resource::SandboxConfig(e.value.resource.clone()))
            }
            "WorkerPool" => catalog.pools.get(&object).map(|e| Resource::WorkerPool(e.value.resource.clone())),
            "ActorTemplate" => {
                catalog.templates.get(&object).map(|e| Resource::ActorTemplate(e.value.resource.clone()))
            }
            _ => None,
        }
    }

    /// All objects of a kind.
    pub fn all(&self, kind: &str) -> Vec<Resource> {
        let catalog = &self.core.catalog;
        match kind {
            "SandboxConfig" => catalog
                .configs
                .all()
                .into_iter()
                .map(|(_, e)| Resource::SandboxConfig(e.value.resource.clone()))
                .collect(),
            "WorkerPool" => {
                catalog.pools.all().into_iter().map(|(_, e)| Resource::WorkerPool(e.value.resource.clone())).collect()
            }
            "ActorTemplate" => catalog
                .templates
                .all()
                .into_iter()
                .map(|(_, e)| Resource::ActorTemplate(e.value.resource.clone()))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Something about an object of this kind is new. Begins with one.
    pub fn changes(&self, kind: &str) -> impl Stream<Item = ()> + Send + 'static + use<> {
        let catalog = &self.core.catalog;
        let changed = match kind {
            "SandboxConfig" => catalog.configs.watch(),
            "WorkerPool" => catalog.pools.watch(),
            _ => catalog.templates.watch(),
        };
        WatchStream::new(changed).map(drop)
    }

    /// The worker in the pod with this uid, if its node has told of it.
    pub fn worker_in(&self, pod: &str) -> Option<WorkerUse> {
        let workers = self.core.scheduler.workers();
        let worker = workers.iter().find(|w| w.report.pod.as_ref().is_some_and(|p| p.uid == pod))?;
        Some(WorkerUse { is_empty: matches!(worker.seat, Seat::Free), is_leaving: worker.report.leaving })
    }

    /// Time that moving an actor off its worker may take.
    pub fn drain_time(&self) -> Duration {
        self.core.options.capture_timeout + self.core.options.drain + self.core.options.release_timeout
    }
}

/// Whether one is what the other was applied from.
fn same_declaration(stored: &Resource, declared: &Resource) -> bool {
    let (a, b) = (stored.metadata(), declared.metadata());
    let same = a.generation == b.generation && a.labels == b.labels && a.annotations == b.annotations;
    // A configuration that lost a default to another one counts that as a generation, and so may its declaration have
    // counted something else meanwhile.
    let same_spec = match (stored, declared) {
        (Resource::SandboxConfig(a), Resource::SandboxConfig(b)) => a.spec == b.spec,
        _ => true,
    };
    same && same_spec
}

impl Core {
    /// # Errors
    /// `WRONG_STATE` if objects of the kind are declared elsewhere.
    pub(crate) fn is_declared_here(&self, kind: &str) -> Result<(), Error> {
        match self.keeper.get().filter(|_| KINDS.contains(&kind)) {
            None => Ok(()),
            Some(keeper) => Err(Error::new(Reason::WrongState, format!("a {kind} comes from {keeper} here"))
                .hint(format!("write it there, for example with kubectl; {keeper} then brings it here"))),
        }
    }

    /// # Errors
    /// `WRONG_STATE` if configurations are declared elsewhere: nodes come and go there, and an upload would reach those
    /// that are there today.
    pub(crate) fn takes_uploads(&self) -> Result<(), Error> {
        let Some(keeper) = self.keeper.get() else { return Ok(()) };
        Err(Error::new(Reason::WrongState, format!("with {keeper} nodes fetch binaries by url"))
            .hint("put the file where every node reaches it (https, s3, gs), and url and sha256 into a SandboxConfig"))
    }
}
