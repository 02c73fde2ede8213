//! What was chosen for somebody who did not say, and which rule decided.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// On a `SandboxConfig`, with the value `true`: its class is the default of the cluster, as with a StorageClass.
pub const DEFAULT_CLASS_ANNOTATION: &str = "ate.dev/is-default-class";

/// A rule that decides, in the order in which they are asked: first those on the class, then those on the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum Rule {
    /// The template names the class.
    Template,
    /// The default class of the atespace.
    AtespaceDefault,
    /// The default class of the cluster.
    ClusterDefault,
    /// The class there is without anybody's word.
    BuiltIn,
    /// A snapshot is restored under what it was made under, and nothing else.
    Snapshot,
    /// The pool names the configuration.
    Pool,
    /// The default configuration of the class.
    ClassDefault,
    /// Decided by an older build, which did not note why.
    Recorded,
}

/// A name, and why it is that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Choice {
    pub name: String,
    pub rule: Rule,
    /// The rule in words, with the object that it speaks of.
    pub why: String,
    /// When it was decided, if that was once and for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::time::DateTime>"))]
    pub at: Option<Timestamp>,
}

impl Choice {
    pub fn new(name: impl Into<String>, rule: Rule, why: impl Into<String>) -> Self {
        Choice { name: name.into(), rule, why: why.into(), at: None }
    }

    /// Decided then, and never again.
    #[must_use]
    pub fn at(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }
}
