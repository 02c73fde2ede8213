//! The part of the control plane's records that is checked, read from the bytes in the store: whoever restarts over them
//! has nothing else.

use ate_api::{
    id::{Activation, ActorName, Digest, Uid, WorkerId},
    resource::template::Scope,
};
use serde::Deserialize;

pub(crate) const ACTORS: &str = "actor/";
pub(crate) const BUSY: &str = "busy/";
pub(crate) const BY_BASE: &str = "by-base/";
pub(crate) const GARBAGE: &str = "garbage/";
pub(crate) const SNAPSHOTS: &str = "snapshot/";
pub(crate) const TEMPLATES: &str = "template/";

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Actor {
    pub(crate) uid: Uid,
    pub(crate) phase: String,
    pub(crate) activation: Activation,
    pub(crate) last_generation: u64,
    #[serde(default)]
    pub(crate) seat: Option<Seat>,
    #[serde(default)]
    pub(crate) snapshot: Option<Snapshot>,
    #[serde(default)]
    pub(crate) fallback: Option<Snapshot>,
    #[serde(default)]
    pub(crate) lost: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Seat {
    pub(crate) worker: WorkerId,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) manifest: Digest,
    pub(crate) scope: Scope,
    pub(crate) location: Location,
    pub(crate) generation: u64,
    #[serde(default)]
    pub(crate) base: Option<Base>,
    #[serde(default)]
    pub(crate) quarantined: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) enum Location {
    Node(String),
    Url(String),
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Base {
    pub(crate) manifest: Digest,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Template {
    #[serde(default)]
    pub(crate) golden: Option<Snapshot>,
    #[serde(default)]
    pub(crate) former: Vec<Snapshot>,
}

impl Actor {
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(self.phase.as_str(), "Suspended" | "Paused")
    }

    pub(crate) fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.snapshot.iter().chain(&self.fallback)
    }
}

impl Template {
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.golden.iter().chain(&self.former)
    }
}

/// A record that cannot be read is a bug of this file or worse.
pub(crate) fn actor(bytes: &[u8]) -> Actor {
    rmp_serde::from_slice(bytes).expect("actor records are readable")
}

pub(crate) fn template(bytes: &[u8]) -> Template {
    serde_json::from_slice(bytes).expect("template records are readable")
}

pub(crate) fn name_of(key: &str) -> Option<ActorName> {
    let (atespace, name) = key.strip_prefix(ACTORS)?.split_once('/')?;
    Some(ActorName::new(atespace, name))
}
