//! The state store: its contract, its two implementations, and the suite every implementation must pass.
#![forbid(unsafe_code)]

#[cfg(feature = "conformance")]
pub mod conformance;
mod embedded;
mod feed;
mod group;
mod open;
mod postgres;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

pub use embedded::EmbeddedStore;
pub use open::OpenError;
pub use postgres::{Lease, PostgresStore};

/// Longest key in bytes. Keys are built from checked names and uids; this only stops a bug from growing.
pub const MAX_KEY: usize = 1024;
/// Largest value in bytes: a resource of 1 MiB with its bookkeeping.
pub const MAX_VALUE: usize = 2 << 20;
/// Most checks and writes in one transaction, each.
pub const MAX_OPERATIONS: usize = 128;

/// A value and the commit that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// Number of the commit that wrote this value. Grows over the whole store, is never used twice.
    pub version: u64,
    pub value: Bytes,
}

/// What must hold of a key for a transaction to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Absent,
    /// Present, in whatever version.
    Present,
    /// Unchanged since it was read.
    Version(u64),
}

impl Expect {
    /// Whether it holds of a key that is there in this version, or not at all.
    pub fn holds(self, found: Option<u64>) -> bool {
        match self {
            Expect::Absent => found.is_none(),
            Expect::Present => found.is_some(),
            Expect::Version(version) => found == Some(version),
        }
    }
}

impl From<Option<u64>> for Expect {
    /// As it was read: of a version, or not there.
    fn from(read: Option<u64>) -> Self {
        read.map_or(Expect::Absent, Expect::Version)
    }
}

/// All or nothing: either every check holds and every write happens, or nothing does.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub checks: Vec<(String, Expect)>,
    /// `None` deletes. A key may be written once and is not empty; deleting an absent key is no error.
    pub writes: Vec<(String, Option<Bytes>)>,
}

impl Transaction {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn check(mut self, key: impl Into<String>, expect: Expect) -> Self {
        self.checks.push((key.into(), expect));
        self
    }

    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.writes.push((key.into(), Some(value.into())));
        self
    }

    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.writes.push((key.into(), None));
        self
    }
}

/// One committed write, as a watcher sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub key: String,
    pub version: u64,
    /// `None`: deleted.
    pub value: Option<Bytes>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A check did not hold; nothing was written. Read again and decide anew.
    #[error("{key} was changed by somebody else")]
    Conflict { key: String },
    /// Key, value or transaction over the limit; nothing was written.
    #[error("{what} is larger than the store allows")]
    TooLarge { what: String },
    /// The transaction itself is malformed: an empty key, or one key written twice. Nothing was written.
    #[error("invalid transaction: {what}")]
    Invalid { what: String },
    /// A watcher fell so far behind that changes were dropped; it must list anew.
    #[error("the watcher fell behind and must start again")]
    Lagged,
    /// The disk is full; nothing was written and nothing was lost.
    #[error("the disk of the store is full")]
    Full,
    /// The store cannot be reached or cannot write. Whether a commit happened is unknown; it may even be going to. A later
    /// commit that checks what it would have changed settles that.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Another process may write, or this one was not made to. Nothing was written, and nothing will be by this handle.
    #[error("this process does not lead and writes nothing")]
    NotLeader,
}

impl Transaction {
    /// Refuses what no store may take, before anything is asked of it.
    pub fn validate(&self) -> Result<()> {
        let too_large = |what: &str, n: usize, max: usize| {
            Err(StoreError::TooLarge { what: format!("{what} ({n}, at most {max})") })
        };
        if self.checks.len() > MAX_OPERATIONS {
            return too_large("the number of checks of a transaction", self.checks.len(), MAX_OPERATIONS);
        }
        if self.writes.len() > MAX_OPERATIONS {
            return too_large("the number of writes of a transaction", self.writes.len(), MAX_OPERATIONS);
        }
        for key in self.checks.iter().map(|(key, _)| key).chain(self.writes.iter().map(|(key, _)| key)) {
            if key.is_empty() {
                return Err(StoreError::Invalid { what: "a key is empty".to_owned() });
            }
            if key.len() > MAX_KEY {
                return too_large("a key", key.len(), MAX_KEY);
            }
        }
        for (i, (key, value)) in self.writes.iter().enumerate() {
            let size = value.as_ref().map_or(0, Bytes::len);
            if size > MAX_VALUE {
                return too_large(&format!("the value of {key}"), size, MAX_VALUE);
            }
            if self.writes[..i].iter().any(|(earlier, _)| earlier == key) {
                return Err(StoreError::Invalid { what: format!("{key} is written twice") });
            }
        }
        Ok(())
    }
}

pub type Result<T> = std::result::Result<T, StoreError>;
pub type Changes = BoxStream<'static, Result<Change>>;

/// Ordered keys with versions, transactions with checks, and a change feed.
///
/// What every implementation promises:
///
/// 1. **Atomic**: a transaction happens as a whole or not at all, also across a crash. Who has read one of its writes reads all
///    of them from then on, or newer ones.
/// 2. **Durable**: when `commit` returns `Ok`, the writes survive `kill -9` and power loss.
/// 3. **Serializable**: commits have one order, that of their versions; checks are evaluated in it.
/// 4. **Read your writes**: a `get` or `list` that begins after a commit returned sees it or something newer.
/// 5. **Feed**: `watch` delivers every later change of the prefix once, in commit order, and only durable ones;
///    or ends with [`StoreError::Lagged`]. Where a store has one writer of many processes, only that one's handle has a
///    feed; elsewhere it ends with [`StoreError::NotLeader`].
/// 6. **Cancel-safe**: dropping a `commit` future never tears a transaction; it may or may not have happened.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn get(&self, key: &str) -> Result<Option<Versioned>>;

    /// Keys that start with `prefix` and are greater than `after`, in byte order, at most `limit` of them.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Versioned)>>;

    /// Returns the version given to every key written. An empty transaction only checks and returns 0.
    async fn commit(&self, tx: Transaction) -> Result<u64>;

    /// Changes that are committed after this call. The stream ends when the store closes.
    fn watch(&self, prefix: &str) -> Changes;
}
