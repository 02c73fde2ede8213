//! The one error that crosses a process boundary: a stable reason, what failed, on which object, what to do.
//!
//! Inside a crate errors are enums of that crate; they become an [`Error`] at the API. On the wire an
//! [`Error`] is a gRPC status with a `google.rpc.ErrorInfo` detail (domain `ate.dev`).

use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// `ErrorInfo.domain` of every error of this system.
pub const DOMAIN: &str = "ate.dev";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $code:ident,)*) => {
        /// Why something failed. The text form is stable: scripts may compare it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, for documentation and tests.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The stable text, as in `ErrorInfo.reason`.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }

            /// As conditions have it.
            pub fn camel_case(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)* }
            }

            /// The gRPC code this reason travels with.
            pub fn code(self) -> Code {
                match self { $(Reason::$name => Code::$code,)* }
            }
        }

        impl std::str::FromStr for Reason {
            type Err = ();
            fn from_str(s: &str) -> Result<Self, ()> {
                match s { $($text => Ok(Reason::$name),)* _ => Err(()) }
            }
        }
    };
}

reasons! {
    /// A request or object breaks a rule that is the same for everybody.
    Invalid = "INVALID" => InvalidArgument,
    /// An object has a field nobody knows. Refused, so that typing errors are not lost.
    UnknownField = "UNKNOWN_FIELD" => InvalidArgument,
    /// A field may not change after creation.
    Immutable = "IMMUTABLE" => InvalidArgument,
    NotFound = "NOT_FOUND" => NotFound,
    AlreadyExists = "ALREADY_EXISTS" => AlreadyExists,
    /// Somebody else changed the object in between; the caller may try again.
    Conflict = "CONFLICT" => Aborted,
    /// The object is needed by others, which the message lists.
    InUse = "IN_USE" => FailedPrecondition,
    /// Another rollout of the class is not over.
    RolloutUnderWay = "ROLLOUT_UNDER_WAY" => FailedPrecondition,
    /// The actor is in a state that does not allow this.
    WrongState = "WRONG_STATE" => FailedPrecondition,
    /// An activation that is no longer the current one tried to act.
    Fenced = "FENCED" => FailedPrecondition,
    /// Nobody knows who calls: no credentials, or none that count.
    Unauthenticated = "UNAUTHENTICATED" => Unauthenticated,
    /// The caller is known and may not do this.
    PermissionDenied = "PERMISSION_DENIED" => PermissionDenied,

    /// No worker became free before the deadline.
    NoFreeWorker = "NO_FREE_WORKER" => ResourceExhausted,
    /// Workers exist, but none may take this actor, now or later; the message says why.
    NoSuitableWorker = "NO_SUITABLE_WORKER" => FailedPrecondition,
    /// Too many callers wait already.
    QueueFull = "QUEUE_FULL" => ResourceExhausted,
    /// The work took longer than it may.
    DeadlineExceeded = "DEADLINE_EXCEEDED" => DeadlineExceeded,
    /// The actor started but never answered its readiness probe.
    NotReady = "NOT_READY" => DeadlineExceeded,
    /// The actor ended by itself.
    ActorExited = "ACTOR_EXITED" => Aborted,
    /// The worker or its herder went away while working for this actor.
    WorkerLost = "WORKER_LOST" => Unavailable,
    /// The sandbox could not start, save or restore.
    SandboxFailed = "SANDBOX_FAILED" => Internal,
    /// The binaries of this configuration cannot do what the template needs.
    MissingCapability = "MISSING_CAPABILITY" => FailedPrecondition,
    /// The golden snapshot of the template is not there (yet).
    TemplateNotReady = "TEMPLATE_NOT_READY" => FailedPrecondition,
    /// No configuration for this sandbox class, or no default among several.
    NoSandboxConfig = "NO_SANDBOX_CONFIG" => FailedPrecondition,
    /// A class that isolates nothing was to become a default.
    NotASandbox = "NOT_A_SANDBOX" => FailedPrecondition,
    /// The class has no registered driver.
    UnknownSandboxClass = "UNKNOWN_SANDBOX_CLASS" => InvalidArgument,
    /// The snapshot belongs to another class than the worker.
    ClassMismatch = "CLASS_MISMATCH" => FailedPrecondition,
    /// The snapshot was made on another CPU architecture or needs CPU features missing here.
    ArchMismatch = "ARCH_MISMATCH" => FailedPrecondition,

    /// A binary that no SandboxConfig of this installation admits.
    AssetNotAdmitted = "ASSET_NOT_ADMITTED" => PermissionDenied,
    /// A binary that was admitted once and must not run any more.
    AssetRevoked = "ASSET_REVOKED" => PermissionDenied,
    /// Bytes that are not those the digest names.
    AssetDigestMismatch = "ASSET_DIGEST_MISMATCH" => DataLoss,
    /// A configuration names keys, and an asset is not signed by one of them.
    AssetSignatureInvalid = "ASSET_SIGNATURE_INVALID" => PermissionDenied,
    /// The asset cannot be had from its URL.
    AssetUnavailable = "ASSET_UNAVAILABLE" => Unavailable,
    /// Larger than declared or than allowed.
    AssetTooLarge = "ASSET_TOO_LARGE" => InvalidArgument,
    /// An archive that is damaged or tries to leave its directory.
    ArchiveInvalid = "ARCHIVE_INVALID" => InvalidArgument,

    ImageNotFound = "IMAGE_NOT_FOUND" => NotFound,
    /// An image that is damaged, hostile or for another platform.
    ImageInvalid = "IMAGE_INVALID" => InvalidArgument,
    /// A secret that a template's environment names is not there, may not be read, or cannot be a variable.
    SecretUnavailable = "SECRET_UNAVAILABLE" => FailedPrecondition,

    ManifestInvalid = "MANIFEST_INVALID" => InvalidArgument,
    /// A manifest whose bytes are not those recorded at commit.
    ManifestDigestMismatch = "MANIFEST_DIGEST_MISMATCH" => DataLoss,
    /// A format version this build does not know.
    ManifestVersionUnknown = "MANIFEST_VERSION_UNKNOWN" => FailedPrecondition,
    /// A snapshot file is missing, truncated or altered.
    SnapshotCorrupt = "SNAPSHOT_CORRUPT" => DataLoss,
    SnapshotNotFound = "SNAPSHOT_NOT_FOUND" => NotFound,
    /// Object storage does not answer or refuses.
    StorageUnavailable = "STORAGE_UNAVAILABLE" => Unavailable,
    /// The disk of the node is full; nothing was lost.
    DiskFull = "DISK_FULL" => ResourceExhausted,

    Unavailable = "UNAVAILABLE" => Unavailable,
    Unimplemented = "UNIMPLEMENTED" => Unimplemented,
    Internal = "INTERNAL" => Internal,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What failed, on which object, why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    pub reason: Reason,
    /// `kind/name` or `kind/namespace/name`; empty when no single object is concerned.
    pub object: String,
    /// Lower case, no full stop.
    pub message: String,
    /// What the user can do; empty when there is nothing useful to say.
    pub hint: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        write!(f, "{} ({})", self.message, self.reason)
    }
}

impl Error {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Error { reason, object: String::new(), message: message.into(), hint: String::new() }
    }

    /// Names the object concerned; keeps an object already named, which is closer to the cause.
    #[must_use]
    pub fn on(mut self, object: impl Into<String>) -> Self {
        if self.object.is_empty() {
            self.object = object.into();
        }
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        use Reason as R;
        matches!(
            self.reason,
            R::Conflict
                | R::NoFreeWorker
                | R::QueueFull
                | R::DeadlineExceeded
                | R::WorkerLost
                | R::AssetUnavailable
                | R::StorageUnavailable
                | R::Unavailable
                | R::TemplateNotReady
        )
    }
}

impl ate_failpoint::Injected for Error {
    fn injected(point: &str) -> Self {
        Error::new(Reason::Unavailable, format!("a fault was injected at {point}"))
    }
}

impl From<Error> for Status {
    fn from(e: Error) -> Status {
        let mut details = ErrorDetails::new();
        let meta = [("object".to_owned(), e.object.clone()), ("hint".to_owned(), e.hint.clone())];
        details.set_error_info(
            e.reason.as_str(),
            DOMAIN,
            meta.into_iter().filter(|(_, v)| !v.is_empty()).collect::<std::collections::HashMap<_, _>>(),
        );
        Status::with_error_details(e.reason.code(), e.message, details)
    }
}

impl Error {
    /// What [`From<Error> for Status`] wrote. `None`: the status is of somebody else, of the connection perhaps.
    pub fn told_by(s: &Status) -> Option<Error> {
        let details = s.get_error_details();
        let info = details.error_info().filter(|i| i.domain == DOMAIN)?;
        let get = |k: &str| info.metadata.get(k).cloned().unwrap_or_default();
        let reason = info.reason.parse().ok()?;
        Some(Error { reason, object: get("object"), message: s.message().to_owned(), hint: get("hint") })
    }
}

impl From<&Status> for Error {
    /// Reads back what [`From<Error> for Status`] wrote; a foreign status becomes the nearest reason.
    fn from(s: &Status) -> Error {
        if let Some(e) = Error::told_by(s) {
            return e;
        }
        let reason = match s.code() {
            Code::InvalidArgument | Code::OutOfRange => Reason::Invalid,
            Code::NotFound => Reason::NotFound,
            Code::AlreadyExists => Reason::AlreadyExists,
            Code::Unauthenticated => Reason::Unauthenticated,
            Code::PermissionDenied => Reason::PermissionDenied,
            Code::FailedPrecondition => Reason::WrongState,
            Code::Aborted => Reason::Conflict,
            Code::DeadlineExceeded | Code::Cancelled => Reason::DeadlineExceeded,
            Code::Unavailable => Reason::Unavailable,
            Code::Unimplemented => Reason::Unimplemented,
            _ => Reason::Internal,
        };
        Error::new(reason, s.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire_with_reason_object_and_hint() {
        for &reason in Reason::ALL {
            let e = Error::new(reason, "it broke").on("actor/default/a").hint("mend it");
            assert_eq!(Error::from(&Status::from(e.clone())), e);
        }
    }

    #[test]
    fn reasons_read_back_from_their_text() {
        for &r in Reason::ALL {
            assert_eq!(r.as_str().parse(), Ok(r));
        }
    }
}
