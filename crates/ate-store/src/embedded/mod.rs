//! The embedded store: a log-structured tree on the local disk, one writer thread, group commit.
//!
//! Reads go straight to the tree on the caller's thread: a `get` takes microseconds. Commits go through a bounded
//! queue to one thread, which takes whatever is waiting, evaluates the checks in order, writes one batch to the
//! journal and syncs it once. The longer the disk takes, the larger the groups get; nobody waits on purpose.

mod record;
mod space;
mod torn;
mod writer;

use std::{path::Path, thread::JoinHandle};

use async_trait::async_trait;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Readable};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Changes, OpenError, Result, Store, StoreError, Transaction, Versioned,
    feed::Hub,
    group::{Job, QUEUE},
};
use record::Record;
use space::SpaceGuard;
use writer::Writer;

/// Blocks kept in memory. Bounds memory, not the size of the store: a million actors are about 500 MiB on disk.
const CACHE_BYTES: u64 = 256 << 20;
/// Recent writes kept in memory before they are sorted into a table. Also bounds what is replayed at open.
const MEMTABLE_BYTES: u64 = 64 << 20;
/// Threads that flush and compact. One per core of the smallest machine would starve the callers.
const BACKGROUND_THREADS: usize = 1;
/// A longer list leaves the caller's thread, so that it does not hold up the async runtime.
const INLINE_LIST: usize = 256;

/// The embedded [`Store`]. Dropping it waits for the commit in progress and closes the files.
pub struct EmbeddedStore {
    db: Database,
    records: Keyspace,
    hub: std::sync::Arc<Hub>,
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl EmbeddedStore {
    /// Opens or creates the store in a directory of its own. Blocks: a second or two with a million records.
    pub fn open(path: impl AsRef<Path>) -> std::result::Result<Self, OpenError> {
        let path = path.as_ref();
        let explain = |e| open_error(path, e);
        let db = open_database(path).map_err(explain)?;
        let options =
            || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES).manual_journal_persist(true);
        let records = db.keyspace("records", options).map_err(explain)?;
        let meta = db.keyspace("meta", KeyspaceCreateOptions::default).map_err(explain)?;

        let hub = std::sync::Arc::new(Hub::default());
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer =
            Writer::new(db.clone(), records.clone(), meta, hub.clone(), SpaceGuard::new(path)).map_err(explain)?;
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(jobs))
            .map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
        Ok(EmbeddedStore { db, records, hub, queue: Some(queue), writer: Some(writer) })
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has already failed every commit; there is nothing left to do for it.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        // A snapshot: without one, what a batch has put into memory so far would be seen, and not yet the rest.
        match self.db.snapshot().get(&self.records, key).map_err(unavailable)? {
            Some(stored) => Ok(Some(Record::decode(stored)?)),
            None => Ok(None),
        }
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Versioned)>> {
        if limit <= INLINE_LIST {
            return list(&self.db, &self.records, prefix, after, limit);
        }
        let (db, records) = (self.db.clone(), self.records.clone());
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        tokio::task::spawn_blocking(move || list(&db, &records, &prefix, after.as_deref(), limit))
            .await
            .map_err(|e| StoreError::Unavailable(format!("listing was cut short: {e}")))?
    }

    async fn commit(&self, tx: Transaction) -> Result<u64> {
        tx.validate()?;
        let closed = || StoreError::Unavailable("the writer has ended".to_owned());
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue.send(Job { tx, reply }).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    fn watch(&self, prefix: &str) -> Changes {
        self.hub.watch(prefix)
    }
}

fn list(
    db: &Database,
    records: &Keyspace,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<(String, Versioned)>> {
    use std::ops::Bound;
    let from = match after {
        Some(after) if after >= prefix => Bound::Excluded(after.as_bytes()),
        _ => Bound::Included(prefix.as_bytes()),
    };
    // A snapshot, so that the list shows each transaction as a whole.
    let mut found = Vec::new();
    for entry in db.snapshot().range::<&[u8], _>(records, (from, Bound::Unbounded)).take(limit) {
        let (key, stored) = entry.into_inner().map_err(unavailable)?;
        if !key.starts_with(prefix.as_bytes()) {
            break;
        }
        let key = String::from_utf8(key.to_vec())
            .map_err(|_| StoreError::Unavailable("the store is damaged: a key is not text".to_owned()))?;
        found.push((key, Record::decode(stored)?));
    }
    Ok(found)
}

fn open_database(path: &Path) -> std::result::Result<Database, fjall::Error> {
    let open = || {
        Database::builder(path)
            .cache_size(CACHE_BYTES)
            .worker_threads(BACKGROUND_THREADS)
            .manual_journal_persist(true)
            // The journal is checked by compressing again, which another version of the compressor may do differently.
            .journal_compression(fjall::CompressionType::None)
            .open()
    };
    let damaged = match open() {
        Err(e @ fjall::Error::JournalRecovery(_)) => e,
        opened => return opened,
    };
    let Some(cut) = torn::cut_last_group(path)? else { return Err(damaged) };
    match open() {
        Ok(db) => {
            tracing::warn!("the last {} bytes of the journal were torn, as by a power cut, and are dropped", cut.len());
            Ok(db)
        }
        Err(_) => {
            cut.undo()?;
            Err(damaged)
        }
    }
}

fn unavailable(e: fjall::Error) -> StoreError {
    StoreError::Unavailable(e.to_string())
}

fn open_error(path: &Path, e: fjall::Error) -> OpenError {
    let path = path.to_owned();
    match e {
        fjall::Error::Locked => OpenError::InUse { path },
        fjall::Error::Io(source) => OpenError::Io { path, source },
        fjall::Error::Storage(fjall::LsmError::Io(source)) => OpenError::Io { path, source },
        other => OpenError::Damaged { path, message: other.to_string() },
    }
}
