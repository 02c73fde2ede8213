//! What a call asks for: a verb, a kind, where, and which object.

use ate_api::{
    id::{ActorName, DEFAULT_SPACE, GOLDEN_ATESPACE},
    resource::Resource,
};

use super::table::{Space, Verb};
use crate::{api::Kind, records::SnapshotRecord};

/// Longest name written to messages and to the audit log; what passes the checks of names is shorter.
const MAX_SHOWN: usize = 253;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) verb: Verb,
    pub(crate) kind: Kind,
    pub(crate) space: Space,
    /// Empty: no single object.
    pub(crate) name: String,
}

impl Ask {
    pub(crate) fn actor(verb: Verb, name: &ActorName) -> Ask {
        Ask { verb, kind: Kind::Actor, space: Space::Atespace(name.atespace.clone()), name: name.name.clone() }
    }

    /// One object by kind, namespace and name, as requests have them.
    pub(crate) fn object(verb: Verb, kind: Kind, namespace: &str, name: &str) -> Ask {
        let namespace = if namespace.is_empty() { DEFAULT_SPACE } else { namespace };
        let space = match kind {
            Kind::Atespace => Space::Atespace(name.to_owned()),
            Kind::Actor => Space::Atespace(namespace.to_owned()),
            Kind::ActorTemplate => Space::Namespace(namespace.to_owned()),
            // Whose it is, its record says; asked again with `snapshot` once that was read.
            Kind::Snapshot => Space::Mine,
            // Seats tell who sits on them.
            Kind::Worker => Space::Every,
            Kind::SandboxConfig | Kind::WorkerPool | Kind::Asset | Kind::Token => Space::Shared,
        };
        // Seen by everybody, but two of one name are two.
        let name = if kind == Kind::WorkerPool { format!("{namespace}/{name}") } else { name.to_owned() };
        Ask { verb, kind, space, name }
    }

    /// Every object of a kind in a space; all the caller may see where none is named.
    pub(crate) fn all(verb: Verb, kind: Kind, namespace: &str) -> Ask {
        let space = match kind {
            Kind::Actor if !namespace.is_empty() => Space::Atespace(namespace.to_owned()),
            Kind::ActorTemplate if !namespace.is_empty() => Space::Namespace(namespace.to_owned()),
            Kind::Actor | Kind::ActorTemplate | Kind::Atespace | Kind::Snapshot => Space::Mine,
            Kind::Worker => Space::Every,
            Kind::SandboxConfig | Kind::WorkerPool | Kind::Asset | Kind::Token => Space::Shared,
        };
        Ask { verb, kind, space, name: String::new() }
    }

    /// All of a kind, whosever they are: for answers that name them.
    pub(crate) fn every(verb: Verb, kind: Kind) -> Ask {
        Ask { verb, kind, space: Space::Every, name: String::new() }
    }

    pub(crate) fn apply(resource: &Resource) -> Ask {
        let (kind, meta) = match resource {
            Resource::Atespace(a) => (Kind::Atespace, &a.metadata),
            Resource::SandboxConfig(c) => (Kind::SandboxConfig, &c.metadata),
            Resource::WorkerPool(p) => (Kind::WorkerPool, &p.metadata),
            Resource::ActorTemplate(t) => (Kind::ActorTemplate, &t.metadata),
        };
        Ask::object(Verb::Apply, kind, &meta.namespace, &meta.name)
    }

    /// A snapshot is where its owner is: an actor in an atespace, or a template in a namespace.
    pub(crate) fn snapshot(verb: Verb, record: &SnapshotRecord) -> Ask {
        let space = match record.actor.atespace.as_str() {
            GOLDEN_ATESPACE => Space::Namespace(record.template.namespace.clone()),
            atespace => Space::Atespace(atespace.to_owned()),
        };
        Ask { verb, kind: Kind::Snapshot, space, name: record.snapshot.manifest.to_string() }
    }

    /// `actor/default/a`, or `actors` where no single one is meant. Names may still be unchecked, so they are cut.
    pub(crate) fn label(&self) -> String {
        let kind = self.kind.word();
        let name: String = self.name.chars().take(MAX_SHOWN).collect();
        let space: String = match &self.space {
            Space::Atespace(s) | Space::Namespace(s) if self.kind != Kind::Atespace && self.kind != Kind::Snapshot => {
                s.chars().take(MAX_SHOWN).collect()
            }
            _ => String::new(),
        };
        match (space.as_str(), name.as_str()) {
            ("", "") => format!("{kind}s"),
            (space, "") => format!("{kind}s in {space}"),
            ("", name) => format!("{kind}/{name}"),
            (space, name) => format!("{kind}/{space}/{name}"),
        }
    }
}
