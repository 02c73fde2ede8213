//! The store in PostgreSQL, for a control plane of several processes of which one leads.
//!
//! Whoever [`connect`](PostgresStore::connect)s may read. [`lead`](PostgresStore::lead) waits until this process is the
//! one that may write: its commits go through one task that writes them in groups, each checked, in the same
//! statement, to come from the process that leads. So what its watchers are told is all that changes.

mod address;
mod leadership;
mod link;
mod plan;
mod reads;
mod schema;
mod term;
mod trouble;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Changes, OpenError, Result, Store, StoreError, Transaction, Versioned,
    feed::Hub,
    group::{Job, QUEUE},
};
use address::Address;
use link::Link;
use reads::Reads;
use term::Term;
use trouble::Trouble;
use writer::Writer;

pub use leadership::Lease;

/// The [`Store`] in a database. Needs the tokio runtime it was connected in.
pub struct PostgresStore {
    address: Arc<Address>,
    reads: Reads,
    leading: Option<Leading>,
}

struct Leading {
    term: Arc<Term>,
    queue: mpsc::Sender<Job>,
    hub: Arc<Hub>,
}

impl PostgresStore {
    /// Opens the database at a URL as libpq takes it (`postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full&sslrootcert=FILE`)
    /// and makes its tables, or brings them up to date. The store can read; to write, it must [`lead`](PostgresStore::lead).
    ///
    /// # Errors
    /// The address makes no sense, the database cannot be reached, or a newer program was here.
    pub async fn connect(url: &str) -> std::result::Result<PostgresStore, OpenError> {
        let address = Arc::new(Address::parse(url)?);
        let open = async {
            let mut client = address.connect().await.map_err(|e: Trouble| OpenError::Database(e.to_string()))?;
            schema::migrate(&mut client).await
        };
        let late = || OpenError::Database(format!("no connection within {} s", address::CONNECT.as_secs()));
        tokio::time::timeout(address::CONNECT, open).await.unwrap_or_else(|_| Err(late()))?;
        Ok(PostgresStore { reads: Reads::start(&address), address, leading: None })
    }

    /// Waits until no other process leads; then this store can write, for as long as the lease lasts. `holder` is the
    /// name people see in the database.
    ///
    /// # Errors
    /// The database does not let us ask, or was brought to a newer schema meanwhile. That it cannot be reached is none.
    pub async fn lead(self, holder: &str) -> Result<(PostgresStore, Lease)> {
        let (term, lease) = leadership::acquire(Link::new(self.address.clone()), holder).await?;
        let hub = Arc::new(Hub::default());
        let (queue, jobs) = mpsc::channel(QUEUE);
        tokio::spawn(Writer::new(Link::new(self.address.clone()), term.clone(), hub.clone()).run(jobs));
        Ok((PostgresStore { leading: Some(Leading { term, queue, hub }), ..self }, lease))
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn get(&self, key: &str) -> Result<Option<Versioned>> {
        self.reads.get(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<(String, Versioned)>> {
        self.reads.list(prefix, after, limit).await
    }

    async fn commit(&self, tx: Transaction) -> Result<u64> {
        tx.validate()?;
        let Some(leading) = self.leading.as_ref().filter(|l| !l.term.is_over()) else {
            return Err(StoreError::NotLeader);
        };
        let (reply, answer) = oneshot::channel();
        // The queue closes when the term is over.
        leading.queue.send(Job { tx, reply }).await.map_err(|_| StoreError::NotLeader)?;
        answer.await.map_err(|_| StoreError::Unavailable("the writer has ended".to_owned()))?
    }

    fn watch(&self, prefix: &str) -> Changes {
        match &self.leading {
            Some(leading) if !leading.term.is_over() => leading.hub.watch(prefix),
            _ => stream::once(async { Err(StoreError::NotLeader) }).boxed(),
        }
    }
}
