//! What went wrong between us and the database, by what it means for the statement that was sent.

use tokio_postgres::{
    Error,
    error::{Severity, SqlState},
};

use crate::StoreError;

#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection is of no use any more. Whether the statement happened is unknown.
    Broken(String),
    /// The statement did not happen and may be sent again: it met another one.
    Again,
    /// The statement did not happen.
    Refused(StoreError),
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        let why = describe(&e);
        let Some(db) = e.as_db_error() else { return Trouble::Broken(why) };
        if db.parsed_severity() != Some(Severity::Error) {
            return Trouble::Broken(why);
        }
        match db.code() {
            // It says itself that it does not know; or it is a standby, and the writable one is elsewhere by now.
            &SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN
            | &SqlState::TRANSACTION_RESOLUTION_UNKNOWN
            | &SqlState::READ_ONLY_SQL_TRANSACTION => Trouble::Broken(why),
            &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => Trouble::Again,
            &SqlState::DISK_FULL => Trouble::Refused(StoreError::Full),
            _ => Trouble::Refused(StoreError::Unavailable(why)),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Broken(why) => f.write_str(why),
            Trouble::Again => f.write_str("it met another transaction"),
            Trouble::Refused(e) => e.fmt(f),
        }
    }
}

/// The error with its cause, which is where the library puts what the server said.
pub(super) fn describe(e: &Error) -> String {
    match (e.as_db_error(), std::error::Error::source(e)) {
        (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
        (None, Some(cause)) => format!("{e}: {cause}"),
        (None, None) => e.to_string(),
    }
}
