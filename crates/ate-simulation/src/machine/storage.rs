//! Snapshots as they lie on the machine's disk and in object storage. They outlive every crash.

use std::collections::{BTreeMap, BTreeSet};

use ate_agent::{SnapshotLocation, SnapshotRef, Source};
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, Uid},
    resource::template::Scope,
};

/// All an actor has: a counter in memory and one in a file. Each request adds one to both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) memory: u64,
    pub(crate) files: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) manifest: Digest,
    pub(crate) uid: Uid,
    pub(crate) activation: Activation,
    pub(crate) generation: u64,
    pub(crate) content: Content,
    /// What it rests on.
    pub(crate) base: Option<Digest>,
    pub(crate) written_ms: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Storage {
    pub(crate) local: BTreeMap<Digest, Stored>,
    /// By prefix.
    pub(crate) external: BTreeMap<String, Stored>,
    /// Local copies a fault has taken.
    pub(crate) lost: BTreeSet<Digest>,
}

impl Storage {
    /// A whole snapshot, wherever it is.
    pub(crate) fn find(&self, manifest: &Digest) -> Option<&Stored> {
        self.local.get(manifest).or_else(|| self.external.values().find(|s| s.manifest == *manifest))
    }

    fn at(&self, snapshot: &SnapshotRef) -> Result<&Stored, Error> {
        let there = match &snapshot.location {
            SnapshotLocation::Local { .. } => None,
            SnapshotLocation::External { prefix } => {
                self.external.get(prefix).filter(|s| s.manifest == snapshot.manifest)
            }
        };
        let found = self.local.get(&snapshot.manifest).or(there);
        found.ok_or_else(|| Error::new(Reason::SnapshotNotFound, format!("no snapshot {}", snapshot.manifest.short())))
    }

    /// What a start begins with, and what its snapshots may rest on.
    pub(crate) fn restore(&mut self, source: &Source) -> Result<(Content, Option<Digest>), Error> {
        let (snapshot, base) = match source {
            Source::Boot => return Ok((Content::default(), None)),
            Source::Files { snapshot } => {
                let files = self.at(snapshot)?.content.files;
                return Ok((Content { memory: 0, files }, None));
            }
            Source::Snapshot { snapshot, base } => (snapshot, base.as_ref()),
        };
        let found = self.at(snapshot)?.clone();
        if found.base.as_ref() != base.map(|b| &b.manifest) {
            return Err(Error::new(Reason::SnapshotCorrupt, "it rests on something else"));
        }
        if let Some(base) = base {
            self.at(base)?;
        }
        self.local.entry(found.manifest.clone()).or_insert_with(|| found.clone());
        let rests_on = base.map_or(&snapshot.manifest, |b| &b.manifest).clone();
        Ok(match snapshot.scope {
            Scope::Full => (found.content, Some(rests_on)),
            Scope::Data => (Content { memory: 0, files: found.content.files }, None),
        })
    }

    /// Removes a snapshot; returns what went.
    pub(crate) fn delete(&mut self, snapshot: &SnapshotRef) -> Vec<Digest> {
        let there = match &snapshot.location {
            SnapshotLocation::Local { .. } => None,
            SnapshotLocation::External { prefix } => self.external.remove(prefix),
        };
        let here = self.local.remove(&snapshot.manifest);
        there.into_iter().chain(here).map(|s| s.manifest).collect()
    }
}
