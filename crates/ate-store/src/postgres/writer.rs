//! The one task that writes: takes what waits, decides in order, sends one statement, then answers.
//!
//! The statement checks, in this order: that we lead (see `leadership`), that nothing was written since our last commit,
//! and what the transactions expect. So it happens as a whole or not at all, and the database answers when it is durable.
//! When an expectation does not hold, nothing has happened; the versions are read and it is decided who has a conflict.
//! Nobody else writes in between, or else the statement finds that we do not lead.
//!
//! When the connection breaks, the last statement may have happened, or may be about to. On a new connection the writer
//! takes the next turn, which no statement of an earlier connection survives, and reads the last version: now it is
//! known whether the statement happened, and if it did not it is sent again. So a restart of the database is a pause.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    link::{Backoff, Connection, Link},
    plan::{Known, Plan},
    term::Term,
    trouble::{Trouble, describe},
};
use crate::{
    Expect, Result, StoreError,
    feed::Hub,
    group::{GROUP_TRANSACTIONS, Job, gather, publish},
};

pub(super) const VERSIONS: &str = "SELECT key, version FROM ate_record WHERE key = ANY($1::bytea[])";

/// Epoch, turn, last version, new last version; keys to delete; keys, versions and values to put; the same of keys that are
/// there; keys that are checked, and in which version: 0 is absent, -1 is any.
pub(super) const WRITE: &str = "
    WITH unexpected AS (
        SELECT 1 FROM unnest($12::bytea[], $13::bigint[]) AS c (key, version) LEFT JOIN ate_record r ON r.key = c.key
        WHERE CASE c.version WHEN -1 THEN r.key IS NULL ELSE coalesce(r.version, 0) <> c.version END
    ), fence AS (
        UPDATE ate_state SET version = $4
        WHERE epoch = $1 AND turn = $2 AND version = $3 AND NOT EXISTS (SELECT 1 FROM unexpected)
        RETURNING version
    ), deleted AS (
        DELETE FROM ate_record USING fence WHERE key = ANY($5::bytea[])
    ), changed AS (
        UPDATE ate_record r SET version = w.version, value = w.value
        FROM fence CROSS JOIN unnest($9::bytea[], $10::bigint[], $11::bytea[]) AS w (key, version, value)
        WHERE r.key = w.key
    ), put AS (
        INSERT INTO ate_record (key, version, value)
        SELECT w.key, w.version, w.value
        FROM fence CROSS JOIN unnest($6::bytea[], $7::bigint[], $8::bytea[]) AS w (key, version, value)
        ON CONFLICT (key) DO UPDATE SET version = excluded.version, value = excluded.value
    )
    SELECT version FROM fence";

const NEXT_TURN: &str = "UPDATE ate_state SET turn = turn + 1 WHERE epoch = $1 RETURNING turn, version";

pub(super) struct Writer {
    link: Link,
    term: Arc<Term>,
    hub: Arc<Hub>,
    on: Option<Turn>,
    /// A group was sent and it is not known whether it happened: its last version.
    sent: Option<i64>,
}

/// A connection that is ours to write on.
struct Turn {
    connection: Arc<Connection>,
    number: i64,
    /// Of the last commit.
    version: i64,
    /// What the last group wrote. Whoever contends for a record is told without asking the database.
    known: Known,
}

/// Why a group was not written.
enum Failed {
    /// Somebody else leads.
    Fenced,
    Trouble(Trouble),
}

impl<T: Into<Trouble>> From<T> for Failed {
    fn from(e: T) -> Self {
        Failed::Trouble(e.into())
    }
}

impl Writer {
    pub(super) fn new(link: Link, term: Arc<Term>, hub: Arc<Hub>) -> Writer {
        Writer { link, term, hub, on: None, sent: None }
    }

    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let term = self.term.clone();
        let mut group = Vec::with_capacity(GROUP_TRANSACTIONS);
        loop {
            let first = tokio::select! {
                biased;
                () = term.over() => break,
                job = jobs.recv() => job,
            };
            let Some(first) = first else { break };
            gather(first, &mut jobs, &mut group);
            let results = tokio::select! {
                results = self.write(&group) => results,
                () = term.over() => None,
            };
            let Some(results) = results else { break };
            group.drain(..).zip(results).for_each(|(job, result)| job.answer(result));
        }
        let end = match self.sent {
            Some(_) => StoreError::Unavailable("the lease was lost in the middle of a write".to_owned()),
            None => StoreError::NotLeader,
        };
        group.drain(..).for_each(|job| job.answer(Err(end.clone())));
        jobs.close();
        while let Ok(job) = jobs.try_recv() {
            job.answer(Err(StoreError::NotLeader));
        }
    }

    /// Commits a group, through whatever happens to the connection. `None`: we do not lead any more.
    async fn write(&mut self, group: &[Job]) -> Option<Vec<Result<u64>>> {
        let mut results = None;
        let mut backoff = Backoff::new();
        loop {
            match self.attempt(group, &mut results).await {
                Ok(()) => {
                    let results = results?;
                    publish(&self.hub, group, &results);
                    return Some(results);
                }
                Err(Failed::Fenced) => return None,
                Err(Failed::Trouble(Trouble::Refused(e))) => {
                    self.sent = None;
                    tracing::warn!("the database refused a write: {e}");
                    return Some(group.iter().map(|_| Err(e.clone())).collect());
                }
                Err(Failed::Trouble(trouble)) => {
                    tracing::warn!("trying again to write: {trouble}");
                    if let (Trouble::Broken(_), Some(turn)) = (&trouble, self.on.take()) {
                        self.link.discard(&turn.connection).await;
                    }
                    backoff.pause().await;
                }
            }
        }
    }

    /// Leaves in `results` what was decided before it is sent, for the next attempt to find out whether it happened.
    async fn attempt(
        &mut self,
        group: &[Job],
        results: &mut Option<Vec<Result<u64>>>,
    ) -> std::result::Result<(), Failed> {
        let turn = match &mut self.on {
            Some(turn) => turn,
            None => {
                let turn = next_turn(&self.link, &self.term).await?;
                let happened = self.sent.take().is_some_and(|last| turn.version >= last);
                let turn = self.on.insert(turn);
                if happened {
                    return Ok(());
                }
                turn
            }
        };
        let mut known = std::mem::take(&mut turn.known);
        // Whether the database said what is decided by. Who was replaced does not know better than it.
        let mut asked = group.iter().all(|job| job.tx.checks.is_empty());
        loop {
            let plan = Plan::of(group, turn.version, &known);
            *results = Some(plan.results.clone());
            let writes = plan.last > turn.version;
            if !writes && asked {
                turn.known = known;
                return Ok(());
            }
            // Where nothing is written, nothing tells afterwards whether it was checked.
            self.sent = writes.then_some(plan.last);
            let happened = send(turn, &self.term, &plan).await?;
            self.sent = None;
            if happened {
                turn.version = plan.last;
                turn.known = plan.written();
                return Ok(());
            }
            if plan.supposed.is_empty() {
                return Err(Failed::Fenced);
            }
            known = versions(&turn.connection, group).await?;
            asked = true;
        }
    }
}

impl Drop for Writer {
    /// Also on a panic: who cannot write does not lead, and a watcher must not wait for a writer that is gone.
    fn drop(&mut self) {
        self.term.end();
        self.hub.close();
    }
}

/// Whether it happened: `false` if we do not lead, or if something is not as it was supposed.
async fn send(turn: &Turn, term: &Term, plan: &Plan<'_>) -> std::result::Result<bool, Trouble> {
    let mut deleted: Vec<&[u8]> = Vec::new();
    let (mut put, mut changed) = (Columns::default(), Columns::default());
    for (key, (version, value)) in &plan.writes {
        match value {
            Some(value) if plan.is_there(key) => changed.push(key, *version, value),
            Some(value) => put.push(key, *version, value),
            None => deleted.push(key.as_bytes()),
        }
    }
    let (checked, expected): (Vec<&[u8]>, Vec<i64>) = plan
        .supposed
        .iter()
        .map(|(key, expect)| {
            let version = match expect {
                Expect::Absent => 0,
                Expect::Present => -1,
                Expect::Version(version) => version.cast_signed(),
            };
            (key.as_bytes(), version)
        })
        .unzip();
    let c = &turn.connection;
    let happened = c
        .query_opt(
            &c.write,
            &[
                &term.epoch,
                &turn.number,
                &turn.version,
                &plan.last,
                &deleted,
                &put.keys,
                &put.versions,
                &put.values,
                &changed.keys,
                &changed.versions,
                &changed.values,
                &checked,
                &expected,
            ],
        )
        .await?;
    Ok(happened.is_some())
}

/// Rows, as parameters of a statement take them.
#[derive(Default)]
struct Columns<'a> {
    keys: Vec<&'a [u8]>,
    versions: Vec<i64>,
    values: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, key: &'a str, version: i64, value: &'a [u8]) {
        self.keys.push(key.as_bytes());
        self.versions.push(version);
        self.values.push(value);
    }
}

/// A new connection, on which nothing of the former ones can happen any more.
async fn next_turn(link: &Link, term: &Term) -> std::result::Result<Turn, Failed> {
    // A refusal too, here as below: whether the last group happened must be known before anything else is.
    let unknown = |trouble: Trouble| Failed::Trouble(Trouble::Broken(trouble.to_string()));
    let connection = link.get().await.map_err(unknown)?;
    match connection.query_opt(NEXT_TURN, &[&term.epoch]).await {
        Ok(Some(row)) => Ok(Turn { connection, number: row.get(0), version: row.get(1), known: Known::new() }),
        Ok(None) => Err(Failed::Fenced),
        Err(e) => {
            link.discard(&connection).await;
            Err(Failed::Trouble(Trouble::Broken(describe(&e))))
        }
    }
}

/// The versions of all keys that are checked by anybody in the group.
async fn versions(connection: &Connection, group: &[Job]) -> std::result::Result<Known, Trouble> {
    let mut keys: Vec<&[u8]> =
        group.iter().flat_map(|job| job.tx.checks.iter().map(|(key, _)| key.as_bytes())).collect();
    keys.sort_unstable();
    keys.dedup();
    let damaged = |what: &str| Trouble::Refused(StoreError::Unavailable(format!("the store is damaged: {what}")));
    let mut known: Known =
        group.iter().flat_map(|job| job.tx.checks.iter().map(|(key, _)| (key.clone(), None))).collect();
    for row in connection.query(&connection.versions, &[&keys]).await? {
        let key = std::str::from_utf8(row.get(0)).map_err(|_| damaged("a key is not text"))?.to_owned();
        let version = u64::try_from(row.get::<_, i64>(1)).map_err(|_| damaged("a version is negative"))?;
        known.insert(key, Some(version));
    }
    Ok(known)
}
