//! The snapshot manifest, format 1: a small canonical JSON document that says what a snapshot is, what it
//! needs, and the digest of every byte of it.
//!
//! It is the last object written for a snapshot. Its sha256 is what the control plane records, and what a
//! reader checks *before* parsing. A manifest says which binaries it needs; whether they may run is never
//! its decision.

pub(crate) mod check;
mod matching;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ate_api::{
    canonical,
    id::{Activation, Digest, Uid},
    resource::template::Scope,
    time::Timestamp,
};
use ate_sandbox::SandboxRef;
use serde::{Deserialize, Serialize};

pub const MEDIA_TYPE: &str = "application/vnd.ate.snapshot.manifest.v1+json";
pub const FORMAT_VERSION: u32 = 1;
/// A manifest names a few files and images; 1 MiB is a hundred times what is seen.
pub const MAX_BYTES: usize = 1 << 20;
/// Name of the manifest beside the files.
pub const MANIFEST_NAME: &str = "manifest.json";
/// The one encoding of stored files there is.
pub const ENCODING_ZSTD: &str = "zstd";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format_version: u32,
    pub media_type: String,
    pub created_at: Timestamp,
    pub scope: Scope,
    /// Counts the committed snapshots of this actor, from 1.
    pub generation: u64,
    pub activation: Activation,
    pub actor: ActorId,
    pub template: TemplateId,
    /// Manifest this one's activation was restored from; none after a boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Digest>,
    /// What the files differ from: without it they are of no use. None: they are whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    pub platform: Platform,
    pub sandbox: SandboxInfo,
    pub images: Vec<Image>,
    pub files: Vec<File>,
    /// Fields of a later minor format: kept, not understood.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActorId {
    pub atespace: String,
    pub name: String,
    pub uid: Uid,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateId {
    pub namespace: String,
    pub name: String,
    pub uid: Uid,
    /// sha256 of the canonical JSON of the template's spec.
    pub spec_digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    pub os: String,
    /// Go's names: amd64, arm64.
    pub arch: String,
    /// CPU feature flags of the machine, sorted. A restore needs all of them.
    pub cpu_features: Vec<String>,
    pub kernel_release: String,
}

/// A whole snapshot that another one rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Base {
    /// sha256 of its manifest.
    pub manifest: Digest,
    /// Its prefix in object storage when this one was written; for people. None: it was on the node only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// What ran it: the pinned sandbox and the driver that drove it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxInfo {
    #[serde(flatten)]
    pub sandbox: SandboxRef,
    pub driver: Driver,
    /// Asset name → version as the binary itself reports it. For people; the digest decides.
    #[serde(default)]
    pub versions: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Driver {
    pub name: String,
    pub version: String,
    pub contract: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    pub container: String,
    pub reference: String,
    /// Of the image manifest the layers were unpacked from.
    pub digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct File {
    /// A plain file name.
    pub name: String,
    /// Bytes of the file as the driver wrote it.
    pub size: u64,
    /// Of those bytes, whatever the encoding.
    pub sha256: Digest,
    pub media_type: String,
    /// How the object is stored: `zstd`, or as it is. The node-local copy is always as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

impl Manifest {
    /// The bytes that are stored, and whose sha256 names the snapshot: canonical JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        canonical::to_vec(&serde_json::to_value(self).expect("a manifest has string keys and always serializes"))
    }

    /// sha256 of [`Manifest::to_bytes`].
    pub fn digest(&self) -> Digest {
        Digest::of(&self.to_bytes())
    }

    /// Bytes of all files together.
    pub fn total_size(&self) -> u64 {
        self.files.iter().fold(0, |sum, f| sum.saturating_add(f.size))
    }
}
