//! The decision: which role may do what with which kind, and where.

use ate_api::role::Role;

use super::Grant;
use crate::api::Kind;

/// What can be done with objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    /// Declare the whole object: creates or changes it.
    Apply,
    Create,
    /// Change one thing of an object by a call of its own.
    Update,
    Delete,
    Resume,
    Pause,
    Suspend,
    /// Read what an actor's containers wrote.
    Logs,
    /// Bring in a sandbox binary.
    Import,
    /// Delete everything at once.
    Clear,
}

impl Verb {
    #[cfg(test)]
    pub(crate) const ALL: [Verb; 13] = [
        Verb::Get,
        Verb::List,
        Verb::Watch,
        Verb::Apply,
        Verb::Create,
        Verb::Update,
        Verb::Delete,
        Verb::Resume,
        Verb::Pause,
        Verb::Suspend,
        Verb::Logs,
        Verb::Import,
        Verb::Clear,
    ];

    /// As in messages and in the audit log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Apply => "apply",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Delete => "delete",
            Verb::Resume => "resume",
            Verb::Pause => "pause",
            Verb::Suspend => "suspend",
            Verb::Logs => "read the logs of",
            Verb::Import => "import",
            Verb::Clear => "clear",
        }
    }

    /// Whether it sees objects and nothing else.
    pub(crate) fn is_view(self) -> bool {
        matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }

    /// Whether something may be another thing afterwards.
    pub(crate) fn is_write(self) -> bool {
        !self.is_view() && self != Verb::Logs
    }
}

/// Where the objects are that a call is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Space {
    /// Nowhere in particular: one installation has one set of them.
    Shared,
    Atespace(String),
    Namespace(String),
    /// Whatever of it the caller may see; the answer holds nothing else.
    Mine,
    /// All of it, whosever it is.
    Every,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Allowed,
    /// The role may not do this with this kind.
    NotThisRole,
    /// The role may, but not there.
    NotThere,
}

/// The one place where it is decided. What no rule allows is denied.
pub(crate) fn allowed(grant: &Grant, verb: Verb, kind: Kind, space: &Space) -> Decision {
    if !role_may(grant.role, verb, kind) {
        return Decision::NotThisRole;
    }
    let within = match space {
        _ if grant.is_everywhere() => true,
        Space::Shared => is_shared(kind),
        Space::Mine => verb.is_view(),
        Space::Atespace(name) => grant.atespaces.has(name),
        Space::Namespace(name) => grant.namespaces.has(name),
        Space::Every => false,
    };
    if within { Decision::Allowed } else { Decision::NotThere }
}

pub(crate) fn role_may(role: Role, verb: Verb, kind: Kind) -> bool {
    let views = verb.is_view() && kind != Kind::Token;
    let uses_actors = kind == Kind::Actor
        && matches!(
            verb,
            Verb::Create | Verb::Update | Verb::Delete | Verb::Resume | Verb::Pause | Verb::Suspend | Verb::Logs
        );
    let writes_templates = kind == Kind::ActorTemplate && matches!(verb, Verb::Apply | Verb::Delete);
    match role {
        Role::Viewer => views,
        Role::ActorUser => views || uses_actors,
        Role::TemplateAuthor => views || uses_actors || writes_templates,
        Role::SandboxAdmin => views || administers_sandboxes(verb, kind),
        Role::Admin => true,
    }
}

fn administers_sandboxes(verb: Verb, kind: Kind) -> bool {
    match kind {
        Kind::SandboxConfig => matches!(verb, Verb::Apply | Verb::Update | Verb::Delete),
        Kind::Asset => matches!(verb, Verb::Import | Verb::Update | Verb::Delete),
        // Which class is the default in it; an atespace as a whole is applied by administrators.
        Kind::Atespace => verb == Verb::Update,
        _ => false,
    }
}

/// Kinds that every known caller may see: one needs them to understand where one's actors run.
fn is_shared(kind: Kind) -> bool {
    matches!(kind, Kind::SandboxConfig | Kind::WorkerPool | Kind::Asset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Reach;

    fn grant(role: Role) -> Grant {
        let only = |name: &str| Reach::Only([name.to_owned()].into());
        match role.is_limited() {
            true => Grant { role, atespaces: only("team-a"), namespaces: only("ns-a") },
            false => Grant::everywhere(role),
        }
    }

    /// Where an object of the kind is that the limited grants of these tests reach.
    fn within(kind: Kind, verb: Verb) -> Space {
        match kind {
            Kind::Actor | Kind::Atespace | Kind::Snapshot => Space::Atespace("team-a".into()),
            Kind::ActorTemplate => Space::Namespace("ns-a".into()),
            Kind::Worker if verb.is_view() => Space::Mine,
            _ => Space::Shared,
        }
    }

    /// Who may, one letter for each role: v(iewer), u(ser of actors), t(emplate author), s(andbox admin), a(dmin).
    /// The columns are the verbs in the order of `Verb::ALL`.
    #[rustfmt::skip]
    const TABLE: [(Kind, [&str; 13]); 9] = [
        //                      get      list     watch    apply create update delete resume pause  suspend logs import clear
        (Kind::Atespace,      ["vutsa", "vutsa", "vutsa", "a",  "a",   "sa",  "a",   "a",   "a",   "a",   "a",   "a",  "a"]),
        (Kind::SandboxConfig, ["vutsa", "vutsa", "vutsa", "sa", "a",   "sa",  "sa",  "a",   "a",   "a",   "a",   "a",  "a"]),
        (Kind::WorkerPool,    ["vutsa", "vutsa", "vutsa", "a",  "a",   "a",   "a",   "a",   "a",   "a",   "a",   "a",  "a"]),
        (Kind::ActorTemplate, ["vutsa", "vutsa", "vutsa", "ta", "a",   "a",   "ta",  "a",   "a",   "a",   "a",   "a",  "a"]),
        (Kind::Actor,         ["vutsa", "vutsa", "vutsa", "a",  "uta", "uta", "uta", "uta", "uta", "uta", "uta", "a",  "a"]),
        (Kind::Worker,        ["vutsa", "vutsa", "vutsa", "a",  "a",   "a",   "a",   "a",   "a",   "a",   "a",   "a",  "a"]),
        (Kind::Snapshot,      ["vutsa", "vutsa", "vutsa", "a",  "a",   "a",   "a",   "a",   "a",   "a",   "a",   "a",  "a"]),
        (Kind::Asset,         ["vutsa", "vutsa", "vutsa", "a",  "a",   "sa",  "sa",  "a",   "a",   "a",   "a",   "sa", "a"]),
        (Kind::Token,         ["a",     "a",     "a",     "a",  "a",   "a",   "a",   "a",   "a",   "a",   "a",   "a",  "a"]),
    ];

    #[test]
    fn each_role_may_do_with_each_kind_exactly_what_the_table_says() {
        assert_eq!(TABLE.map(|(kind, _)| kind), Kind::ALL);
        for (kind, row) in TABLE {
            for (verb, who) in Verb::ALL.into_iter().zip(row) {
                for (role, letter) in Role::ALL.into_iter().zip(['v', 'u', 't', 's', 'a']) {
                    let decision = allowed(&grant(role), verb, kind, &within(kind, verb));
                    let expected = if who.contains(letter) { Decision::Allowed } else { Decision::NotThisRole };
                    assert_eq!(decision, expected, "{role} {verb:?} {kind:?}");
                }
            }
        }
    }

    #[test]
    fn what_a_limited_role_may_it_may_in_its_own_spaces_only() {
        let elsewhere = [
            Space::Atespace("team-b".into()),
            Space::Namespace("ns-b".into()),
            Space::Atespace("ns-a".into()),
            Space::Every,
        ];
        for role in Role::ALL {
            for kind in Kind::ALL {
                for verb in Verb::ALL.into_iter().filter(|v| role_may(role, *v, kind)) {
                    for space in &elsewhere {
                        let decision = allowed(&grant(role), verb, kind, space);
                        let expected = if role.is_limited() { Decision::NotThere } else { Decision::Allowed };
                        assert_eq!(decision, expected, "{role} {verb:?} {kind:?} {space:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_write_hides_behind_a_space_that_only_filters_what_is_seen() {
        for role in Role::ALL.into_iter().filter(|r| r.is_limited()) {
            for kind in Kind::ALL {
                for verb in Verb::ALL.into_iter().filter(|v| !v.is_view()) {
                    assert_ne!(allowed(&grant(role), verb, kind, &Space::Mine), Decision::Allowed, "{role} {verb:?}");
                    assert_ne!(allowed(&grant(role), verb, kind, &Space::Shared), Decision::Allowed, "{role} {verb:?}");
                }
            }
        }
    }
}
