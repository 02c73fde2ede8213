//! Timestamps: RFC 3339 in UTC, as Kubernetes writes them.

pub use jiff::Timestamp;

/// Now, without fractions of a second below the millisecond.
pub fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or(Timestamp::UNIX_EPOCH)
}
