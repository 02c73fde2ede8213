//! Explains where in an object something does not fit its type.

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use crate::{
    Reason,
    resource::{Violation, violation::quoted},
};

/// Longest message taken over from serde, in characters.
const MAX_MESSAGE: usize = 200;
/// Words by which people try to name a sandbox's binary where it does not belong.
const BINARY_WORDS: [&str; 14] = [
    "asset",
    "assets",
    "binaries",
    "binary",
    "runsc",
    "runscpath",
    "runtime",
    "runtimeassets",
    "sandbox",
    "sandboxassets",
    "sandboxbinary",
    "sandboxconfig",
    "sandboxconfigname",
    "sandboxpath",
];

/// The first thing serde did not like.
pub(super) struct Problem {
    /// Of the object that holds the field.
    parent: Vec<Step>,
    what: What,
}

enum Step {
    Key(String),
    Index(usize),
}

enum What {
    Unknown(String),
    Missing(String),
    /// Of the place itself.
    IllTyped(String),
}

impl From<&serde_path_to_error::Error<serde_json::Error>> for Problem {
    fn from(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        let mut parent = steps(error.path());
        let message = error.inner().to_string();
        let field = |prefix| message.strip_prefix(prefix)?.split('`').next().map(str::to_owned);
        let what = if let Some(name) = field("unknown field `") {
            // The path ends with the unknown key itself, which also has the whole of a name that holds a backtick.
            match parent.pop() {
                Some(Step::Key(key)) => What::Unknown(key),
                _ => What::IllTyped(format!("unknown field {}", quoted(&name))),
            }
        } else if let Some(name) = field("missing field `") {
            What::Missing(name)
        } else {
            What::IllTyped(cut(message))
        };
        Problem { parent, what }
    }
}

impl Problem {
    pub(super) fn violation(&self, kind: &str) -> Violation {
        let parent = path(&self.parent);
        match &self.what {
            What::Unknown(name) => unknown(kind, &parent, name),
            What::Missing(name) => Violation::invalid(join(&parent, name), "missing"),
            What::IllTyped(message) => Violation::invalid(parent, message.clone()),
        }
    }

    /// Takes an unknown field out, so that the next reading sees what comes after it.
    pub(super) fn remove_from(&self, value: &mut Value) -> bool {
        let What::Unknown(name) = &self.what else { return false };
        let holder = self.parent.iter().try_fold(value, |at, step| match step {
            Step::Key(key) => at.get_mut(key),
            Step::Index(i) => at.get_mut(i),
        });
        holder.and_then(Value::as_object_mut).and_then(|map| map.remove(name)).is_some()
    }
}

/// A field nobody knows; a template that wants to name a binary is told where binaries live.
pub(super) fn unknown(kind: &str, parent: &str, name: &str) -> Violation {
    let field = join(parent, name);
    let word: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let message = if kind == "ActorTemplate" && BINARY_WORDS.contains(&word.as_str()) {
        format!(
            "a template cannot name the sandbox's binaries or their configuration ({}): they live in a SandboxConfig, \
             which sandbox administrators own; a template says at most its sandboxClass",
            quoted(name)
        )
    } else {
        format!("unknown field {}", quoted(name))
    };
    Violation::new(field, Reason::UnknownField, message)
}

fn steps(path: &Path) -> Vec<Step> {
    let step = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { variant } => Some(Step::Key(variant.clone())),
        Segment::Unknown => None,
    };
    path.iter().filter_map(step).collect()
}

fn path(steps: &[Step]) -> String {
    steps.iter().fold(String::new(), |at, step| match step {
        Step::Key(key) => join(&at, key),
        Step::Index(i) => format!("{at}[{i}]"),
    })
}

/// Messages of serde repeat the user's text in full.
fn cut(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    message
}

/// Keys are the user's text: a long or strange one is quoted and cut.
fn join(parent: &str, key: &str) -> String {
    let plain =
        key.len() <= 63 && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    match (parent.is_empty(), plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{parent}.{key}"),
        (_, false) => format!("{parent}[{}]", quoted(key)),
    }
}
