//! What is checked of every resource before it is stored, and which binaries may run.

use std::sync::{Arc, PoisonError};

use ate_api::{
    Error,
    id::DEFAULT_SPACE,
    resource::{self, Resource},
};
use ate_sandbox::{Admitted, SandboxRef};

use crate::core::Core;

/// Reads one object of an apply and checks every rule that needs nothing but the object.
pub(crate) fn parse(json: &[u8]) -> Result<Resource, Error> {
    let mut resource = resource::from_json(json)?;
    if !Resource::is_cluster_scoped(resource.kind()) && resource.metadata().namespace.is_empty() {
        resource.metadata_mut().namespace = DEFAULT_SPACE.to_owned();
    }
    resource::check(&resource)?;
    Ok(resource)
}

impl Core {
    /// May these binaries run (I4)? Only if some revision of a configuration here names them, or named them, and none
    /// is revoked.
    pub(crate) fn check_trust(&self, sandbox: &SandboxRef) -> Result<(), Error> {
        let admitted = self.admitted.read().unwrap_or_else(PoisonError::into_inner).clone();
        admitted.check(sandbox)
    }

    /// To be called after every change of the revisions and of the revocations.
    pub(crate) fn rebuild_admitted(&self) {
        let mut admitted = self.admitted.write().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: of two that rebuild at once, the later one has what is later.
        let (revisions, revoked) = (self.catalog.revisions.all(), self.revocations());
        let withdrawn = self.withdrawn.lock().unwrap_or_else(PoisonError::into_inner);
        let here = revisions.iter().filter(|(key, r)| r.value.admits() && !withdrawn.contains(&key.name));
        *admitted = Arc::new(Admitted::new(here.map(|(_, r)| &r.value.reference), revoked));
    }

    /// Takes a configuration out of what may run, while it is being deleted.
    pub(crate) fn withdraw<'a>(&'a self, config: &str) -> Withdrawn<'a> {
        self.withdrawn.lock().unwrap_or_else(PoisonError::into_inner).insert(config.to_owned());
        self.rebuild_admitted();
        Withdrawn { core: self, config: config.to_owned() }
    }
}

/// Puts the configuration back when it is dropped, if it is still there.
pub(crate) struct Withdrawn<'a> {
    core: &'a Core,
    config: String,
}

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        self.core.withdrawn.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.config);
        self.core.rebuild_admitted();
    }
}
