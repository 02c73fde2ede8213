//! `SandboxConfig`: which binaries a sandbox class runs, under which settings. Cluster-scoped, owned by
//! sandbox administrators.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::meta::{Condition, ObjectMeta};
use crate::id::Digest;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SandboxConfig {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: SandboxConfigSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SandboxConfigStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SandboxConfigSpec {
    #[serde(default = "super::template::default_class")]
    pub sandbox_class: String,
    /// The configuration of its class that pools without `sandboxConfigName` use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// Architecture (Go's names: amd64, arm64) → asset name → where and what it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub assets: BTreeMap<String, BTreeMap<String, Asset>>,
    /// Whose signatures the assets must carry. Absent: nobody's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationSpec>,
    /// Settings in the class's own format. Its schema belongs to the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct VerificationSpec {
    /// Each as in a `minisign.pub`, or only its second line. A signature by any of them will do.
    pub public_keys: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Asset {
    /// `file://`, `http(s)://`, `s3://` or `gs://`.
    pub url: String,
    pub sha256: Digest,
    /// Bytes, as fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// `application/octet-stream` (default): a plain file. `application/x-tar`: an archive, perhaps
    /// compressed, unpacked into a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The text of a `.minisig` over its bytes, by one of `verification.publicKeys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct SandboxConfigStatus {
    /// Number of the current revision; each change of assets, class or config makes a new one.
    pub revision: u64,
    /// Digest of the current revision's content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    pub observed_generation: u64,
    /// What the binaries can do, as probed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Asset name → version, as the binary reports it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    pub conditions: Vec<Condition>,
}
