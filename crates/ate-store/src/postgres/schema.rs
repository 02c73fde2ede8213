//! The tables, and how an older database becomes one of today.
//!
//! SQL of PostgreSQL 15, without extensions, `LISTEN` or advisory locks: `bytea` keys (compared byte by byte whatever the
//! collation), arrays as parameters, `ON CONFLICT`, and statements with `WITH` that change one table several times, which not
//! all that speak its protocol do. Each change of the store is one statement, so no session ever sits on a lock.
//!
//! A migration runs while an older program may still lead: it may add, but must not change what that one uses.

use tokio_postgres::{Client, error::SqlState};

use super::trouble::describe;
use crate::OpenError;

/// What makes schema `n + 1` of schema `n`. Only ever appended to.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE ate_record (
        key bytea PRIMARY KEY,
        version bigint NOT NULL,
        value bytea NOT NULL
    -- Room for the next version of a record on its page, which then is found without touching the index.
    ) WITH (fillfactor = 80);
    -- One row. Who leads, until when by the clock of this database, and the version of the last commit. Every commit
    -- changes it, which gives commits one order and lets a former leader commit nothing.
    CREATE TABLE ate_state (
        only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
        holder text NOT NULL,
        expires timestamptz NOT NULL,
        epoch bigint NOT NULL,
        -- Counts the connections the leader wrote on: what it sent on an earlier one must not happen late.
        turn bigint NOT NULL,
        version bigint NOT NULL
    );
    INSERT INTO ate_state (holder, expires, epoch, turn, version) VALUES ('', now(), 0, 0, 0);
"];

/// The schema as it is now; another program may have migrated it since it was opened.
pub(super) const VERSION: &str = "SELECT version FROM ate_schema";

/// Two programs may begin with an empty database at once; one of them is told that the table exists already.
const ATTEMPTS: usize = 5;

pub(super) fn known() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Brings the database to the schema of this program.
pub(super) async fn migrate(client: &mut Client) -> Result<(), OpenError> {
    let mut attempt = 1;
    loop {
        match try_migrate(client).await {
            Ok(()) => return Ok(()),
            Err(Attempt::Failed(e)) if attempt < ATTEMPTS && is_race(&e) => attempt += 1,
            Err(Attempt::Failed(e)) => return Err(OpenError::Database(describe(&e))),
            Err(Attempt::Newer(found)) => return Err(OpenError::Schema { found, known: known() }),
        }
    }
}

enum Attempt {
    Failed(tokio_postgres::Error),
    Newer(i32),
}

impl From<tokio_postgres::Error> for Attempt {
    fn from(e: tokio_postgres::Error) -> Self {
        Attempt::Failed(e)
    }
}

async fn try_migrate(client: &mut Client) -> Result<(), Attempt> {
    // Looked at first, so that a user who may not create tables can open what is there.
    if client.query_one("SELECT to_regclass('ate_schema') IS NULL", &[]).await?.get(0) {
        client
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS ate_schema (only_row boolean PRIMARY KEY DEFAULT true, version int NOT NULL);
                 INSERT INTO ate_schema (version) VALUES (0) ON CONFLICT DO NOTHING",
            )
            .await?;
    }
    let tx = client.transaction().await?;
    // Locked: the migrations of two programs happen one after the other.
    let found: i32 = tx.query_one("SELECT version FROM ate_schema FOR UPDATE", &[]).await?.get(0);
    if found > known() {
        return Err(Attempt::Newer(found));
    }
    let missing = usize::try_from(found).ok().and_then(|found| MIGRATIONS.get(found..)).unwrap_or_default();
    for migration in missing {
        tx.batch_execute(migration).await?;
    }
    if !missing.is_empty() {
        tx.execute("UPDATE ate_schema SET version = $1", &[&known()]).await?;
    }
    Ok(tx.commit().await?)
}

fn is_race(e: &tokio_postgres::Error) -> bool {
    let races = [
        SqlState::UNIQUE_VIOLATION,
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::T_R_SERIALIZATION_FAILURE,
    ];
    e.code().is_some_and(|code| races.contains(code))
}
