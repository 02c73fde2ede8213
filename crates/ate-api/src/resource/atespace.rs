//! `Atespace`: the unit of isolation actors live in. Cluster-scoped.

use serde::{Deserialize, Serialize};

use super::meta::ObjectMeta;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Atespace {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
    #[serde(default)]
    pub spec: AtespaceSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AtespaceSpec {
    /// The class of templates in the namespace of this name that name none. Absent: the default of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_sandbox_class: Option<String>,
}
