//! The kinds of objects, and the words people use for them.

use std::fmt;

use ate_api::{Error, Reason};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Atespace,
    SandboxConfig,
    WorkerPool,
    ActorTemplate,
    Actor,
    Worker,
    Snapshot,
    Asset,
    Token,
}

/// What an object's name is unique in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Cluster,
    Namespace,
    Atespace,
}

impl Kind {
    /// In the order they must be applied: what is needed comes before what needs it.
    pub(crate) const ALL: [Kind; 9] = [
        Kind::Atespace,
        Kind::SandboxConfig,
        Kind::WorkerPool,
        Kind::ActorTemplate,
        Kind::Actor,
        Kind::Worker,
        Kind::Snapshot,
        Kind::Asset,
        Kind::Token,
    ];

    /// As in the `kind` field of an object.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Atespace => "Atespace",
            Kind::SandboxConfig => "SandboxConfig",
            Kind::WorkerPool => "WorkerPool",
            Kind::ActorTemplate => "ActorTemplate",
            Kind::Actor => "Actor",
            Kind::Worker => "Worker",
            Kind::Snapshot => "Snapshot",
            Kind::Asset => "Asset",
            Kind::Token => "Token",
        }
    }

    /// Words for one kind; the first is the singular that messages use, the second the plural.
    fn words(self) -> &'static [&'static str] {
        match self {
            Kind::Atespace => &["atespace", "atespaces"],
            Kind::SandboxConfig => &["sandboxconfig", "sandboxconfigs", "sc"],
            Kind::WorkerPool => &["workerpool", "workerpools", "pool", "pools", "wp"],
            Kind::ActorTemplate => &["actortemplate", "actortemplates", "template", "templates", "at"],
            Kind::Actor => &["actor", "actors"],
            Kind::Worker => &["worker", "workers"],
            Kind::Snapshot => &["snapshot", "snapshots", "snap"],
            Kind::Asset => &["asset", "assets"],
            Kind::Token => &["token", "tokens"],
        }
    }

    pub(crate) fn plural(self) -> &'static str {
        self.words()[1]
    }

    pub(crate) fn scope(self) -> Scope {
        match self {
            Kind::Atespace | Kind::SandboxConfig | Kind::Asset | Kind::Snapshot | Kind::Worker | Kind::Token => {
                Scope::Cluster
            }
            Kind::WorkerPool | Kind::ActorTemplate => Scope::Namespace,
            Kind::Actor => Scope::Atespace,
        }
    }

    /// Whether users may write it. The others only report.
    pub(crate) fn is_applicable(self) -> bool {
        matches!(self, Kind::Atespace | Kind::SandboxConfig | Kind::WorkerPool | Kind::ActorTemplate)
    }

    pub(crate) fn parse(word: &str) -> Result<Kind, Error> {
        let lower = word.to_ascii_lowercase();
        if let Some(kind) = Kind::ALL.into_iter().find(|k| k.words().contains(&lower.as_str())) {
            return Ok(kind);
        }
        let all = Kind::ALL.map(Kind::plural).join(", ");
        let error = Error::new(Reason::Invalid, format!("there is no kind \"{word}\""));
        let words = Kind::ALL.into_iter().flat_map(|k| k.words().iter().copied());
        Err(match closest(&lower, words) {
            Some(word) => error.hint(format!("did you mean \"{word}\"? kinds are {all}")),
            None => error.hint(format!("kinds are {all}")),
        })
    }
}

/// The singular, as in `actor/default/a`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words()[0])
    }
}

/// The candidate that was probably meant, if one is near enough.
pub(crate) fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this two words have little in common.
    const NEAR: f64 = 0.8;
    candidates
        .map(|c| (strsim::jaro_winkler(word, c), c))
        .filter(|(near, _)| *near >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_singular_plural_and_short_form() {
        for (word, kind) in [
            ("actors", Kind::Actor),
            ("pool", Kind::WorkerPool),
            ("sc", Kind::SandboxConfig),
            ("ActorTemplate", Kind::ActorTemplate),
            ("templates", Kind::ActorTemplate),
        ] {
            assert_eq!(Kind::parse(word).unwrap(), kind);
        }
    }

    #[test]
    fn a_mistyped_kind_gets_a_suggestion() {
        assert!(Kind::parse("acotrs").unwrap_err().hint.contains("\"actors\""));
        assert!(!Kind::parse("xyz").unwrap_err().hint.contains("did you mean"));
    }
}
