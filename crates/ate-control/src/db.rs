//! Typed access to the store.

use std::sync::Arc;

use ate_api::{Error, Reason, id::ActorName};
use ate_store::{Expect, Store, StoreError, Transaction};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    records::{ActorRecord, from_json, keys, pack, to_json, unpack},
    usage::Counts,
};

/// Page of an internal scan: large enough to be quick, small enough not to hold memory.
pub(crate) const SCAN_PAGE: usize = 512;

#[derive(Clone)]
pub(crate) struct Db {
    /// For reading and watching; writes go by [`Db::commit`].
    pub(crate) store: Arc<dyn Store>,
    /// Every commit goes by it.
    pub(crate) counts: Arc<Counts>,
}

/// An actor and the commit that wrote it.
#[derive(Debug, Clone)]
pub(crate) struct Stored<T> {
    pub(crate) version: u64,
    pub(crate) value: T,
}

impl Db {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Db { store, counts: Arc::default() }
    }

    pub(crate) async fn actor(&self, name: &ActorName) -> Result<Stored<ActorRecord>, Error> {
        self.find_actor(name).await?.ok_or_else(|| no_actor(name))
    }

    pub(crate) async fn find_actor(&self, name: &ActorName) -> Result<Option<Stored<ActorRecord>>, Error> {
        let key = keys::actor(name);
        match self.store.get(&key).await.map_err(store_error)? {
            Some(v) => Ok(Some(Stored { version: v.version, value: unpack(&key, &v.value)? })),
            None => Ok(None),
        }
    }

    /// Writes the actor if nobody else did since it was read, together with what else `tx` holds.
    pub(crate) async fn put_actor(
        &self,
        name: &ActorName,
        read: u64,
        record: ActorRecord,
        tx: Transaction,
    ) -> Result<Stored<ActorRecord>, Error> {
        let key = keys::actor(name);
        let tx = tx.check(key.clone(), Expect::Version(read)).put(key, pack(&record)?);
        Ok(Stored { version: self.commit(tx).await?, value: record })
    }

    pub(crate) async fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Stored<T>>, Error> {
        match self.store.get(key).await.map_err(store_error)? {
            Some(v) => Ok(Some(Stored { version: v.version, value: from_json(key, &v.value)? })),
            None => Ok(None),
        }
    }

    pub(crate) async fn get_packed<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let found = self.store.get(key).await.map_err(store_error)?;
        found.map(|v| unpack(key, &v.value)).transpose()
    }

    /// Replaces a JSON object if it is still as it was read; `None`: only if it is not there.
    pub(crate) async fn put_json<T: Serialize>(&self, key: &str, read: Option<u64>, value: &T) -> Result<u64, Error> {
        let expect = Expect::from(read);
        self.commit(Transaction::new().check(key, expect).put(key, to_json(value)?)).await
    }

    pub(crate) async fn commit(&self, tx: Transaction) -> Result<u64, Error> {
        let counted = self.counts.begin(&tx).await;
        let done = self.store.commit(tx).await;
        counted.end(done.as_ref().err());
        done.map_err(store_error)
    }

    /// At most `limit` keys below a prefix, without the prefix. For lists of users in messages.
    pub(crate) async fn first_keys(&self, prefix: &str, limit: usize) -> Result<Vec<String>, Error> {
        let found = self.store.list(prefix, None, limit).await.map_err(store_error)?;
        Ok(found.into_iter().map(|(k, _)| k[prefix.len()..].to_owned()).collect())
    }

    /// One page of raw entries after a key.
    pub(crate) async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, ate_store::Versioned)>, Error> {
        self.store.list(prefix, after, limit).await.map_err(store_error)
    }

    /// Everything below a prefix, page by page. For start-up and background work.
    pub(crate) async fn scan(
        &self,
        prefix: &str,
        mut visit: impl FnMut(String, ate_store::Versioned) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        let mut after: Option<String> = None;
        loop {
            let page = self.page(prefix, after.as_deref(), SCAN_PAGE).await?;
            let last = page.len() < SCAN_PAGE;
            for (key, v) in page {
                after = Some(key.clone());
                visit(key, v)?;
            }
            if last {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) fn no_actor(name: &ActorName) -> Error {
    Error::new(Reason::NotFound, "there is no such actor")
        .on(format!("actor/{name}"))
        .hint(format!("ate create actor {} -a {} --template NAME", name.name, name.atespace))
}

pub(crate) fn store_error(e: StoreError) -> Error {
    let reason = match &e {
        StoreError::Conflict { .. } => Reason::Conflict,
        StoreError::TooLarge { .. } | StoreError::Invalid { .. } => Reason::Invalid,
        StoreError::Full => Reason::DiskFull,
        StoreError::Lagged | StoreError::Unavailable(_) | StoreError::NotLeader => Reason::Unavailable,
    };
    Error::new(reason, e.to_string())
}
