//! The answer of `ate explain`: which sandbox an actor or template gets, which rule decided, and what stands in the way.

use serde::{Deserialize, Serialize};

use super::choice::Choice;
use crate::{id::Digest, time::Timestamp};

/// Facts about one actor or template, as they are now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `actor/ATESPACE/NAME` or `actortemplate/NAMESPACE/NAME`.
    pub object: String,
    pub phase: String,
    /// Of an actor: `NAMESPACE/NAME` of what it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    pub class: Choice,
    /// `NAME@REVISION`; absent if there is none to be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Choice>,
    /// The class's settings in force under that configuration.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub settings: serde_json::Map<String, serde_json::Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binaries: Vec<Binary>,
    /// What the next start begins with.
    pub starts_from: StartsFrom,
    /// Where it runs now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_on: Option<RunsOn>,
    /// Every pool, and whether it would take it.
    pub pools: Vec<Place>,
    /// The worker it would get now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
    /// Why it would not start now. Empty: it would.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obstacles: Vec<Obstacle>,
    /// What would give another answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binary {
    pub name: String,
    pub sha256: Digest,
    /// As the binary itself says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Fetching, Verified, Missing or Failed.
    pub phase: String,
    /// `NAME@REVISION` of every configuration that admits it.
    pub admitted_by: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// The images of the template.
    Image,
    /// The golden snapshot of the template.
    Golden,
    /// The last snapshot of the actor itself.
    Snapshot,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartsFrom {
    pub origin: Origin,
    /// Absent for an image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotFacts>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotFacts {
    pub manifest: Digest,
    /// Full or Data.
    pub scope: String,
    pub generation: u64,
    pub made: Timestamp,
    pub location: String,
    pub os: String,
    pub arch: String,
    /// How many CPU features its machine had, all of which a restore needs.
    pub cpu_features: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunsOn {
    pub worker: String,
    pub pool: String,
    /// `NAME@REVISION`.
    pub config: String,
    pub since: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub pool: String,
    pub fits: bool,
    /// Why it does not fit; which rule gave it its configuration if it does.
    pub why: String,
    /// What would run there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    pub workers: usize,
    pub free: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Next {
    pub worker: String,
    pub pool: String,
    /// How far the worker is prepared for it.
    pub prepared: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Obstacle {
    /// As in [`crate::Reason`].
    pub reason: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl From<crate::Error> for Obstacle {
    fn from(e: crate::Error) -> Self {
        Obstacle { reason: e.reason.as_str().to_owned(), message: e.message, hint: e.hint }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    pub when: String,
    pub then: String,
    /// The command that does it, if one does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
}
