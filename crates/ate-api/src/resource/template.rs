//! `ActorTemplate`: what an actor runs. Says at most which class of sandbox it wants, never which binary.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    choice::Choice,
    duration,
    meta::{Condition, ObjectMeta},
};
use crate::{canonical, id::Digest, time::Timestamp};

/// When a template names no `idleTimeout`.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The class used when nothing says otherwise.
pub fn default_class() -> String {
    "gvisor".to_owned()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActorTemplate {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: ActorTemplateSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<ActorTemplateStatus>,
}

/// Immutable once created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActorTemplateSpec {
    /// Accepted for compatibility; the main container is the root of the sandbox here, so nothing is started from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_image: Option<String>,
    pub containers: Vec<Container>,
    pub snapshots_config: SnapshotsConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_class: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_selector: Option<LabelSelector>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Suspend an actor that had no request for this long, for example `90s`, `15m`; `0` means never.
    /// Absent means 60 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
}

impl ActorTemplateSpec {
    /// sha256 of the canonical JSON; snapshots name it, so that none is restored for another spec.
    pub fn digest(&self) -> Digest {
        canonical::digest_of(self)
    }

    /// How long an actor may be idle; `None`: for ever. A text that validation would refuse counts as absent.
    pub fn idle_timeout(&self) -> Option<Duration> {
        let given = self.idle_timeout.as_deref().and_then(|text| duration::parse(text).ok());
        Some(given.unwrap_or(DEFAULT_IDLE_TIMEOUT)).filter(|t| !t.is_zero())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    pub name: String,
    /// With a digest (`…@sha256:…`). On one machine also `oci:DIR[:TAG]`, `docker-archive:FILE[:TAG]` and
    /// registry references with a tag, which are resolved to a digest once and recorded.
    pub image: String,
    /// In place of the image's entrypoint and command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readyz: Option<Readyz>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvVarSource>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVarSource {
    pub secret_key_ref: SecretKeyRef,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    pub name: String,
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Readyz {
    pub http_get: HttpGet,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpGet {
    #[serde(default = "default_readyz_path")]
    pub path: String,
    pub port: i32,
}

fn default_readyz_path() -> String {
    "/readyz".to_owned()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VolumeMount {
    pub name: String,
    pub mount_path: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable_dir: Option<DurableDir>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DurableDir {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SnapshotsConfig {
    /// Where snapshots go: a URL prefix (`file://`, `s3://`, `gs://`), or `default` for the node's own store.
    pub location: String,
    #[serde(default)]
    pub on_pause: Scope,
    #[serde(default)]
    pub on_commit: Scope,
}

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Scope {
    /// Memory and files.
    #[default]
    Full,
    /// Durable directories only.
    Data,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LabelSelector {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelRequirement {
    pub key: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct ActorTemplateStatus {
    /// "", ResumeGoldenActor, WaitGoldenActor, Ready or Failed.
    pub phase: String,
    #[serde(rename = "goldenActorID", skip_serializing_if = "Option::is_none")]
    pub golden_actor_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::time::DateTime>"))]
    pub take_golden_snapshot_at: Option<Timestamp>,
    /// URI prefix of the golden snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub golden_snapshot: Option<String>,
    /// sha256 of the golden snapshot's manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub golden_manifest: Option<String>,
    /// Class it was given when it was created, which it need not name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sandbox_class: String,
    /// Which rule gave it that class, and when. Never decided again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_class_choice: Option<Box<Choice>>,
    /// `name@revision` of the sandbox configuration the golden was made under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_config: Option<String>,
    /// Image reference → digest it was resolved to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    pub conditions: Vec<Condition>,
}
