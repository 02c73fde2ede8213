//! What is wrong with an object: every broken rule at once, each with its field.

use std::fmt;

use crate::{Error, Reason};

/// Violations told in one message; the rest is counted. Keeps the message within an HTTP/2 header.
const MAX_TOLD: usize = 20;
/// Longest piece of the user's own text in a message, in characters.
const MAX_QUOTED: usize = 120;

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, for example `spec.containers[0].image`.
    pub field: String,
    pub reason: Reason,
    pub message: String,
}

impl Violation {
    pub fn new(field: impl Into<String>, reason: Reason, message: impl Into<String>) -> Self {
        Violation { field: field.into(), reason, message: message.into() }
    }

    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Violation::new(field, Reason::Invalid, message)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.field, self.message) }
    }
}

/// An object with at least one violation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// `kind/name` or `kind/namespace/name`, as far as known.
    pub object: String,
    pub violations: Vec<Violation>,
}

impl Invalid {
    /// `Ok` when there is no violation.
    pub fn check(object: impl Into<String>, violations: Vec<Violation>) -> Result<(), Self> {
        if violations.is_empty() { Ok(()) } else { Err(Invalid { object: object.into(), violations }) }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, v) in self.violations.iter().take(MAX_TOLD).enumerate() {
            write!(f, "{}{v}", if i > 0 { "; " } else { "" })?;
        }
        match self.violations.len().saturating_sub(MAX_TOLD) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for Invalid {}

impl From<Invalid> for Error {
    /// The reason is that of the first violation.
    fn from(invalid: Invalid) -> Error {
        let reason = invalid.violations.first().map_or(Reason::Invalid, |v| v.reason);
        let error = Error::new(reason, invalid.to_string()).on(invalid.object);
        match reason {
            Reason::Immutable => error.hint("delete it and create it anew, or create one with another name"),
            _ => error,
        }
    }
}

/// The user's text in a message: quoted, control characters escaped, cut when long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
