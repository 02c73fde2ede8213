//! `WorkerPool`: how many warm workers of which class.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::meta::{Condition, ObjectMeta};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerPool {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    pub spec: WorkerPoolSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<WorkerPoolStatus>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerPoolSpec {
    pub replicas: i32,
    /// Image of the herder on Kubernetes. On one machine the installed herder of the class is used.
    pub ateom_image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PodTemplate>,
    #[serde(default = "super::template::default_class")]
    pub sandbox_class: String,
    /// Absent: the default configuration of the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_config_name: Option<String>,
}

/// Scheduling hints for worker pods. Kept and passed on; without meaning on one machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodTemplate {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerPoolStatus {
    pub replicas: i32,
    /// Workers whose assets are present and verified and whose herder answers.
    pub ready_replicas: i32,
    pub observed_generation: u64,
    /// `name@revision` of the configuration in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_config: Option<String>,
    pub conditions: Vec<Condition>,
}
