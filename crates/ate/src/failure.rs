//! How the command fails: one shape of message, and exit codes that scripts may rely on.

use std::{io::Write as _, process::ExitCode};

use ate_api::{Error, Reason};
use tonic::{Code, Status};

/// The codes, as `ate help` and docs/cli.md list them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: the sandbox, the server or this machine could not do it
  2  usage: wrong arguments, or an object that breaks a rule
  3  not found
  4  conflict: it exists already, is in use, or its state does not allow this
  5  refused: not permitted, not admitted, or the bytes are not those the digest names
  6  not now: unavailable, timed out or nothing free; trying again later may help";

/// Why the command ends with something else than 0.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something could not be done.
    Error {
        /// What was tried, for example `cannot resume actor/default/a`.
        what: String,
        error: Box<Error>,
    },
    /// The arguments make no sense together; clap did not see it.
    Usage(String),
    /// Everything was said already.
    Silent(u8),
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(what: impl Into<String>, error: Error) -> Self {
        Failure::Error { what: what.into(), error: Box::new(error) }
    }

    /// Prints the failure to stderr and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if let Some(text) = self.text() {
            // Nobody is left to hear it if stderr is closed.
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        ExitCode::from(self.code())
    }

    fn text(&self) -> Option<String> {
        match self {
            Failure::Silent(_) => None,
            Failure::Usage(message) => Some(format!("error: {message}\n  hint:   see `ate help`\n")),
            Failure::Error { what, error } => {
                let mut text = match what.as_str() {
                    "" => format!("error: {}\n", error.message),
                    _ => format!("error: {what}: {}\n", error.message),
                };
                // The object is often part of what was tried; then it need not be said twice.
                if !error.object.is_empty() && !what.ends_with(&error.object) {
                    text += &format!("  object: {}\n", error.object);
                }
                text += &format!("  reason: {}\n", error.reason);
                if !error.hint.is_empty() {
                    text += &format!("  hint:   {}\n", error.hint);
                }
                Some(text)
            }
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Silent(code) => *code,
            Failure::Usage(_) => 2,
            Failure::Error { error, .. } => code(error),
        }
    }

    pub(crate) fn reason(&self) -> Option<Reason> {
        match self {
            Failure::Error { error, .. } => Some(error.reason),
            _ => None,
        }
    }

    /// Adds advice unless the error brought its own.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        match &self {
            Failure::Error { error, .. } if error.hint.is_empty() => self.advise(hint),
            _ => self,
        }
    }

    /// Replaces the advice by a better one.
    pub(crate) fn advise(mut self, hint: impl Into<String>) -> Self {
        if let Failure::Error { error, .. } = &mut self {
            error.hint = hint.into();
        }
        self
    }
}

/// What is wrong matters more than whether it may pass; so an object that is refused for its digest is 5 even
/// where trying again is possible.
fn code(error: &Error) -> u8 {
    match error.reason.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::DataLoss => 5,
        _ if error.is_retryable() => 6,
        Code::InvalidArgument => 2,
        Code::NotFound => 3,
        Code::AlreadyExists | Code::FailedPrecondition => 4,
        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted => 6,
        _ => 1,
    }
}

/// Says what was tried when a step fails.
pub(crate) trait Trying<T> {
    fn trying(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T> Trying<T> for Result<T, Error> {
    fn trying(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|e| Failure::new(what(), e))
    }
}

impl<T> Trying<T> for Result<T, Status> {
    fn trying(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|status| Failure::new(what(), Error::from(&status)))
    }
}

/// For files and other local things.
impl<T> Trying<T> for std::io::Result<T> {
    fn trying(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|e| {
            use std::io::ErrorKind as K;
            let reason = match e.kind() {
                K::NotFound => Reason::NotFound,
                K::PermissionDenied => Reason::PermissionDenied,
                K::InvalidData | K::InvalidInput => Reason::Invalid,
                K::StorageFull => Reason::DiskFull,
                _ => Reason::Internal,
            };
            Failure::new(what(), Error::new(reason, e.to_string().to_lowercase()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_failed_on_which_object_why_and_what_to_do() {
        let error = Error::new(Reason::InUse, "2 pools use it").on("sandboxconfig/old").hint("delete the pools first");
        assert_eq!(
            Failure::new("cannot apply new.yaml", error.clone()).text().unwrap(),
            "error: cannot apply new.yaml: 2 pools use it\n  object: sandboxconfig/old\n  reason: IN_USE\n  hint:   \
             delete the pools first\n"
        );
        assert!(!Failure::new("cannot delete sandboxconfig/old", error).text().unwrap().contains("object:"));
    }

    #[test]
    fn every_reason_has_the_documented_exit_code() {
        let of = |reason| Failure::new("", Error::new(reason, "")).code();
        for (reason, expected) in [
            (Reason::Internal, 1),
            (Reason::SandboxFailed, 1),
            (Reason::UnknownField, 2),
            (Reason::NotFound, 3),
            (Reason::InUse, 4),
            (Reason::MissingCapability, 4),
            (Reason::ManifestDigestMismatch, 5),
            (Reason::AssetNotAdmitted, 5),
            (Reason::NoFreeWorker, 6),
            (Reason::Conflict, 6),
            (Reason::NotReady, 6),
        ] {
            assert_eq!(of(reason), expected, "{reason}");
        }
        for &reason in Reason::ALL {
            assert!((1..=6).contains(&of(reason)), "{reason}");
        }
    }
}
