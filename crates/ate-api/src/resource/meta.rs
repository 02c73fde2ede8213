//! What every resource has: metadata, and conditions in its status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{id::Uid, time::Timestamp};

/// `apiVersion` of every resource.
pub const API_VERSION: &str = "ate.dev/v1alpha1";

/// Kubernetes' ObjectMeta, the part of it that means something on one machine too.
/// What Kubernetes adds beyond it is kept unread, so that `kubectl get -o yaml | ate apply -f -` works.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<Uid>,
    /// Grows with every change of the spec.
    #[serde(skip_serializing_if = "is_zero")]
    pub generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<Timestamp>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Kubernetes' Condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    pub r#type: String,
    /// "True", "False" or "Unknown".
    pub status: String,
    /// One CamelCase word.
    pub reason: String,
    #[serde(default)]
    pub message: String,
    #[cfg_attr(feature = "schema", schemars(with = "crate::time::DateTime"))]
    pub last_transition_time: Timestamp,
    #[serde(default)]
    pub observed_generation: u64,
}

impl Condition {
    /// A condition that changes now.
    pub fn new(r#type: &str, status: bool, reason: &str, message: impl Into<String>, observed_generation: u64) -> Self {
        Condition {
            r#type: r#type.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time: crate::time::now(),
            observed_generation,
        }
    }

    pub fn is_true(&self) -> bool {
        self.status == "True"
    }
}

/// Puts a condition in place of the one with its type; the time stands still while the status does.
pub fn set_condition(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|c| c.r#type == new.r#type) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time;
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}
