//! Which objects a command is about: `KIND NAME…`, `KIND/NAME …` and `KIND,KIND`, as with kubectl.

use crate::{
    cli::Spaces,
    failure::{Failure, Outcome, Trying as _},
    kind::{Kind, Scope},
};

/// One object, or every object of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub kind: Kind,
    /// Namespace or atespace; empty for cluster-scoped kinds and for "all of them".
    pub space: String,
    /// `None`: all of the kind.
    pub name: Option<String>,
}

impl Target {
    pub(crate) fn one(kind: Kind, name: &str, spaces: &Spaces) -> Target {
        // `space/name` after the kind wins over the flags: it is how objects are shown.
        let (space, name) = match name.split_once('/') {
            Some((space, name)) if kind.scope() != Scope::Cluster => (space.to_owned(), name),
            _ => (spaces.of(kind), name),
        };
        Target { kind, space, name: Some(name.to_owned()) }
    }

    pub(crate) fn all(kind: Kind, spaces: &Spaces) -> Target {
        Target { kind, space: spaces.of(kind), name: None }
    }
}

/// `actor/default/a`, `sandboxconfig/x`, `actors`.
impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            None => f.write_str(self.kind.plural()),
            Some(name) if self.space.is_empty() => write!(f, "{}/{name}", self.kind),
            Some(name) => write!(f, "{}/{}/{name}", self.kind, self.space),
        }
    }
}

/// Reads the arguments of `get`, `describe` and `delete`.
pub(crate) fn parse(args: &[String], spaces: &Spaces) -> Outcome<Vec<Target>> {
    let Some(first) = args.first() else {
        return Err(Failure::Usage(format!("name a kind: {}", Kind::ALL.map(Kind::plural).join(", "))));
    };
    let kind_of = |word: &str| Kind::parse(word).trying(String::new);
    if first.contains('/') {
        return args
            .iter()
            .map(|arg| match arg.split_once('/') {
                Some((kind, name)) if !name.is_empty() => Ok(Target::one(kind_of(kind)?, name, spaces)),
                _ => Err(Failure::Usage(format!("\"{arg}\" is not KIND/NAME, but the argument before it is"))),
            })
            .collect();
    }
    let kinds = first.split(',').map(kind_of).collect::<Outcome<Vec<Kind>>>()?;
    let names = &args[1..];
    if names.is_empty() {
        return Ok(kinds.into_iter().map(|k| Target::all(k, spaces)).collect());
    }
    if kinds.len() > 1 {
        return Err(Failure::Usage("several kinds cannot be combined with names; write KIND/NAME".to_owned()));
    }
    Ok(names.iter().map(|name| Target::one(kinds[0], name, spaces)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Vec<String> {
        let spaces = Spaces { atespace: Some("team".into()), namespace: Some("prod".into()), all: false };
        let args: Vec<String> = args.iter().map(|s| s.to_string()).collect();
        parse(&args, &spaces).unwrap().iter().map(Target::to_string).collect()
    }

    #[test]
    fn targets_are_written_as_with_kubectl() {
        assert_eq!(parsed(&["actors"]), ["actors"]);
        assert_eq!(parsed(&["actor", "a", "b"]), ["actor/team/a", "actor/team/b"]);
        assert_eq!(parsed(&["actor/a", "pool/p", "sc/x"]), ["actor/team/a", "workerpool/prod/p", "sandboxconfig/x"]);
        assert_eq!(parsed(&["actor", "other/a"]), ["actor/other/a"]);
        assert_eq!(parsed(&["actors,pools"]), ["actors", "workerpools"]);
    }

    #[test]
    fn mixed_forms_are_usage_errors() {
        let spaces = Spaces::default();
        for args in [vec!["actor/a", "b"], vec!["actors,pools", "a"], vec![]] {
            let args: Vec<String> = args.iter().map(|s| s.to_string()).collect();
            assert_eq!(parse(&args, &spaces).unwrap_err().code(), 2);
        }
    }
}
