//! What workers use right now, which collection must leave alone whatever the control plane believes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ate_agent::{SnapshotRef, Template};
use ate_api::id::{Digest, WorkerId};
use ate_sandbox::SandboxRef;

/// Assets, images and snapshots by worker: of its last preparation and of its last activation, which its sandbox may still use.
#[derive(Clone, Default)]
pub(crate) struct Pins(Arc<Mutex<Pinned>>);

type Pinned = HashMap<(WorkerId, Use), Vec<Digest>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    Prepared,
    Active,
}

impl Pins {
    /// Before anything is ensured for the worker, so that nothing can be collected in between.
    pub(crate) fn pin<'a>(
        &self,
        worker: &WorkerId,
        r#use: Use,
        template: &Template,
        sandbox: &SandboxRef,
        snapshots: impl IntoIterator<Item = &'a SnapshotRef>,
    ) {
        let assets = sandbox.assets.iter().map(|a| &a.sha256);
        let snapshots = snapshots.into_iter().map(|s| &s.manifest);
        let digests = template.images.values().chain(assets).chain(snapshots).cloned().collect();
        self.lock().insert((worker.clone(), r#use), digests);
    }

    /// What the activation on a worker uses.
    pub(crate) fn of(&self, worker: &WorkerId) -> Vec<Digest> {
        self.lock().get(&(worker.clone(), Use::Active)).cloned().unwrap_or_default()
    }

    /// It was found again, with an activation that uses these.
    pub(crate) fn pin_again(&self, worker: &WorkerId, digests: Vec<Digest>) {
        self.lock().insert((worker.clone(), Use::Active), digests);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(WorkerId, Use), Vec<Digest>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything in use, forgetting workers that are gone.
    pub(crate) fn all(&self, exists: impl Fn(&WorkerId) -> bool) -> HashSet<Digest> {
        let mut pins = self.lock();
        pins.retain(|(worker, _), _| exists(worker));
        pins.values().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use ate_agent::SnapshotLocation;
    use ate_api::{id::ObjectName, resource::template::Scope};

    use super::*;

    #[test]
    fn a_snapshot_and_its_base_are_in_use_until_their_worker_goes_or_starts_from_others() {
        let template: Template = Template {
            name: ObjectName::new("default", "t"),
            uid: ate_api::id::Uid::generate(),
            spec_digest: Digest::of(b"spec"),
            spec: serde_json::from_str(r#"{"containers": [], "snapshotsConfig": {"location": "default"}}"#).unwrap(),
            images: Default::default(),
        };
        let sandbox: SandboxRef = serde_json::from_value(serde_json::json!({
            "class": "c",
            "config": {"name": "c", "revision": 1, "digest": Digest::of(b"{}"), "values": {}},
            "assets": [],
        }))
        .unwrap();
        let snapshot = |name: &str| SnapshotRef {
            manifest: Digest::of(name.as_bytes()),
            scope: Scope::Full,
            location: SnapshotLocation::Local { node: "here".into() },
        };
        let (pins, worker) = (Pins::default(), WorkerId("w".into()));
        let (own, base) = (snapshot("own"), snapshot("base"));
        pins.pin(&worker, Use::Prepared, &template, &sandbox, Some(&base));
        pins.pin(&worker, Use::Active, &template, &sandbox, [&own, &base]);
        assert_eq!(pins.all(|_| true), HashSet::from([own.manifest, base.manifest.clone()]));
        pins.pin(&worker, Use::Active, &template, &sandbox, None);
        assert_eq!(pins.all(|_| true), HashSet::from([base.manifest]));
        assert_eq!(pins.all(|_| false), HashSet::new());
    }
}
