//! Read-only views: what `get` shows of actors, workers, snapshots, assets and atespaces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::atespace::AtespaceSpec;
use super::meta::ObjectMeta;
use crate::{id::Digest, time::Timestamp};

/// The envelope every view shares. For actors `metadata.namespace` is the atespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View<Spec, Status> {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: Spec,
    pub status: Status,
}

pub type ActorView = View<ActorViewSpec, ActorViewStatus>;
pub type WorkerView = View<WorkerViewSpec, WorkerViewStatus>;
pub type SnapshotView = View<SnapshotViewSpec, SnapshotViewStatus>;
pub type AssetView = View<AssetViewSpec, AssetViewStatus>;
pub type AtespaceView = View<AtespaceSpec, AtespaceStatus>;
pub type TokenView = View<TokenViewSpec, TokenViewStatus>;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ActorViewSpec {
    pub template_namespace: String,
    pub template_name: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub worker_selector: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ActorViewStatus {
    /// Resuming, Running, Suspending, Suspended, Pausing or Paused.
    pub phase: String,
    pub activation: u64,
    pub generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Manifest digest of the snapshot it would resume from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Digest>,
    pub sandbox_class: String,
    /// `name@revision`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_config: Option<String>,
    /// Activations lost with their worker before they could commit.
    pub lost_activations: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    pub since: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub url: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventView>,
}

/// Something that happened to an actor and is worth telling; the newest few are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    pub time: Timestamp,
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerViewSpec {
    pub pool_namespace: String,
    pub pool: String,
    pub sandbox_class: String,
    pub node: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerViewStatus {
    /// Starting, Free, Claimed, Running, Cleaning or Lost.
    pub phase: String,
    pub address: String,
    /// `atespace/name` of the actor on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// `name@revision` of configurations whose assets are verified on its node.
    pub configs: Vec<String>,
    /// Template whose sandbox is started ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepared: Option<String>,
    /// And the golden snapshot of the template restored, for one new actor.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub standby: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SnapshotViewSpec {
    /// `atespace/name` of the actor, or `template namespace/name` of a golden.
    pub owner: String,
    pub golden: bool,
    /// Full or Data.
    pub scope: String,
    pub generation: u64,
    pub sandbox_class: String,
    pub sandbox_config: String,
    /// Asset name → version.
    pub versions: BTreeMap<String, String>,
    /// Asset name → sha256.
    pub assets: BTreeMap<String, String>,
    pub location: String,
    /// Manifest of the snapshot it holds only the differences from; absent: it is whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SnapshotViewStatus {
    pub size: u64,
    /// The one its owner would resume from.
    pub current: bool,
    pub created: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AssetViewSpec {
    pub sha256: String,
    pub size: u64,
    pub media_type: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AssetViewStatus {
    /// Fetching, Verified, Missing or Failed.
    pub phase: String,
    /// `config@revision/asset` of everything that names it.
    pub used_by: Vec<String>,
    /// Why it must not run any more; empty: it may.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revoked: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AtespaceStatus {
    pub actors: u64,
}

/// A token without its secret, which only its holder has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenViewSpec {
    pub role: String,
    /// Where it counts; `*` is everywhere. Empty for roles without such limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub atespaces: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<String>,
    /// Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenViewStatus {
    /// Active or Expired. A revoked one is gone.
    pub phase: String,
}
