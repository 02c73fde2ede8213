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
    /// May these binaries run (I4)? Only if some revision of a configuration here names them, or named them.
    pub(crate) fn check_trust(&self, sandbox: &SandboxRef) -> Result<(), Error> {
        let admitted = self.admitted.read().unwrap_or_else(PoisonError::into_inner).clone();
        admitted.check(sandbox)
    }

    /// To be called after every change of the revisions.
    pub(crate) fn rebuild_admitted(&self) {
        let revisions = self.catalog.revisions.all();
        let admitted = Admitted::new(revisions.iter().map(|(_, r)| &r.value.reference), []);
        *self.admitted.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(admitted);
    }
}
