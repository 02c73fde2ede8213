//! A fully pinned sandbox: class, configuration revision and the digests of its binaries.

use ate_api::id::Digest;
use serde::{Deserialize, Serialize};

/// Names exactly one set of binaries and settings. Written into manifests; two that are equal behave equally.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxRef {
    pub class: String,
    pub config: ConfigRef,
    /// For this machine's architecture, ordered by name.
    pub assets: Vec<PinnedAsset>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigRef {
    pub name: String,
    pub revision: u64,
    /// sha256 of the canonical JSON of `values`.
    pub digest: Digest,
    /// Complete: defaults of the class are filled in.
    pub values: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedAsset {
    pub name: String,
    pub sha256: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub media_type: String,
    /// Where it can be had; tried in order.
    pub urls: Vec<String>,
}

impl SandboxRef {
    /// `name@revision`, for people.
    pub fn config_label(&self) -> String {
        format!("{}@{}", self.config.name, self.config.revision)
    }
}
