//! Timestamps: RFC 3339 in UTC, as Kubernetes writes them.

pub use jiff::Timestamp;

/// Now, without fractions of a second below the millisecond.
pub fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// What a [`Timestamp`] is in a JSON schema.
#[cfg(feature = "schema")]
pub struct DateTime;

#[cfg(feature = "schema")]
impl schemars::JsonSchema for DateTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DateTime".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time"})
    }
}
