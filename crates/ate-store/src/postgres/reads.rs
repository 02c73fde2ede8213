//! Reading: whatever `get`s wait are answered by one statement, as commits are written in groups.
//!
//! Reads change nothing, so after a broken connection they are asked again.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::{Row, Statement, types::ToSql};

use super::{
    address::Address,
    link::{Backoff, Connection, Link},
    trouble::Trouble,
};
use crate::{Result, StoreError, Versioned};

pub(super) const GET: &str = "SELECT key, version, value FROM ate_record WHERE key = ANY($1::bytea[])";
pub(super) const LIST: &str =
    "SELECT key, version, value FROM ate_record WHERE key >= $1 AND key < $2 ORDER BY key LIMIT $3";

/// Longest a read goes on trying: a restart of the server is shorter.
const PATIENCE: Duration = Duration::from_secs(10);
/// Reads that may wait; the next ones wait to be let in.
const QUEUE: usize = 4096;
/// Most keys of one statement.
const GROUP: usize = 256;

struct Wanted {
    key: String,
    reply: oneshot::Sender<Result<Option<Versioned>>>,
}

/// Handle of the task that reads; it ends with the last handle.
pub(super) struct Reads {
    queue: mpsc::Sender<Wanted>,
    lists: Link,
}

impl Reads {
    pub(super) fn start(address: &Arc<Address>) -> Reads {
        let (queue, wanted) = mpsc::channel(QUEUE);
        tokio::spawn(run(Link::new(address.clone()), wanted));
        Reads { queue, lists: Link::new(address.clone()) }
    }

    pub(super) async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        let closed = || StoreError::Unavailable("the reader has ended".to_owned());
        let (reply, answer) = oneshot::channel();
        self.queue.send(Wanted { key: key.to_owned(), reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    pub(super) async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Versioned)>> {
        let from = match after {
            // The next key there can be.
            Some(after) if after >= prefix => [after.as_bytes(), &[0]].concat(),
            _ => prefix.as_bytes().to_vec(),
        };
        let to = end_of(prefix);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = insist(&self.lists, |c| &c.list, &[&from, &to, &limit]).await?;
        rows.iter().map(record).collect()
    }
}

/// The least that is greater than all keys with the prefix. Keys are UTF-8, so no byte of them is 255.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(u8::MAX),
    }
    end
}

async fn run(link: Link, mut wanted: mpsc::Receiver<Wanted>) {
    let mut group = Vec::with_capacity(GROUP);
    while wanted.recv_many(&mut group, GROUP).await > 0 {
        let keys: Vec<&[u8]> = group.iter().map(|w| w.key.as_bytes()).collect();
        let rows = insist(&link, |c| &c.get, &[&keys]).await;
        let found = rows.and_then(|rows| rows.iter().map(record).collect::<Result<HashMap<_, _>>>());
        for w in group.drain(..) {
            // The caller may have gone.
            let _ = w.reply.send(match &found {
                Ok(found) => Ok(found.get(&w.key).cloned()),
                Err(e) => Err(e.clone()),
            });
        }
    }
}

/// Asks until there is an answer, on another connection if need be; gives up after a while.
async fn insist(
    link: &Link,
    statement: fn(&Connection) -> &Statement,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>> {
    let until = Instant::now() + PATIENCE;
    let mut backoff = Backoff::new();
    loop {
        let asked = async {
            let connection = link.get().await?;
            let left = until.saturating_duration_since(Instant::now());
            link.answer(&connection, left, connection.query(statement(&connection), parameters)).await
        };
        match asked.await {
            Ok(rows) => return Ok(rows),
            Err(Trouble::Refused(e)) => return Err(e),
            Err(trouble) if Instant::now() >= until => return Err(StoreError::Unavailable(trouble.to_string())),
            Err(_) => backoff.pause().await,
        }
    }
}

fn record(row: &Row) -> Result<(String, Versioned)> {
    let damaged = |e: &dyn std::fmt::Display| StoreError::Unavailable(format!("the store is damaged: {e}"));
    let key: &[u8] = row.try_get(0).map_err(|e| damaged(&e))?;
    let version: i64 = row.try_get(1).map_err(|e| damaged(&e))?;
    let value: &[u8] = row.try_get(2).map_err(|e| damaged(&e))?;
    let key = std::str::from_utf8(key).map_err(|e| damaged(&e))?.to_owned();
    let version = u64::try_from(version).map_err(|e| damaged(&e))?;
    Ok((key, Versioned { version, value: Bytes::copy_from_slice(value) }))
}
