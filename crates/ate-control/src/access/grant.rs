//! What a caller was given: a role, and the spaces it counts in.

use std::collections::BTreeSet;

use ate_api::role::Role;
use serde::{Deserialize, Serialize};

/// Some names, or all of them, those to come included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reach {
    All,
    Only(BTreeSet<String>),
}

impl Reach {
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Reach::All => true,
            Reach::Only(names) => names.contains(name),
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Reach::All => vec!["*".to_owned()],
            Reach::Only(names) => names.iter().cloned().collect(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    pub(crate) role: Role,
    /// Where actors, their snapshots and their logs are within reach.
    pub(crate) atespaces: Reach,
    /// Where templates are.
    pub(crate) namespaces: Reach,
}

impl Grant {
    /// A role everywhere.
    pub(crate) fn everywhere(role: Role) -> Grant {
        Grant { role, atespaces: Reach::All, namespaces: Reach::All }
    }

    /// Whether nothing is out of reach because of where it is.
    pub(crate) fn is_everywhere(&self) -> bool {
        !self.role.is_limited() || (self.atespaces == Reach::All && self.namespaces == Reach::All)
    }
}
