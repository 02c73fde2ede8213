//! What workers use right now, which collection must leave alone whatever the control plane believes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use ate_agent::Template;
use ate_api::id::{Digest, WorkerId};
use ate_sandbox::SandboxRef;

/// Assets and images by worker: of its last preparation and of its last activation, which its sandbox may still use.
#[derive(Default)]
pub(crate) struct Pins(Mutex<HashMap<(WorkerId, Use), Vec<Digest>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    Prepared,
    Active,
}

impl Pins {
    /// Before anything is ensured for the worker, so that nothing can be collected in between.
    pub(crate) fn pin(&self, worker: &WorkerId, r#use: Use, template: &Template, sandbox: &SandboxRef) {
        let assets = sandbox.assets.iter().map(|a| &a.sha256);
        let digests = template.images.values().chain(assets).cloned().collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((worker.clone(), r#use), digests);
    }

    /// Everything in use, forgetting workers that are gone.
    pub(crate) fn all(&self, exists: impl Fn(&WorkerId) -> bool) -> HashSet<Digest> {
        let mut pins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pins.retain(|(worker, _), _| exists(worker));
        pins.values().flatten().cloned().collect()
    }
}
