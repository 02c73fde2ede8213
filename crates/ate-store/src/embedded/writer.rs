//! The one thread that writes: takes what waits, checks it in order, one batch, one sync, then answers.
//!
//! A batch is one journal entry with a checksum: after a crash it is there as a whole or not at all. It is synced
//! with `fdatasync`, which also writes the metadata needed to read the data back (size and extents; only
//! timestamps may be older), so an acknowledged commit survives power loss as far as the disk keeps its word.

use std::{collections::HashMap, sync::Arc};

use fjall::{Database, Keyspace, PersistMode};
use tokio::sync::mpsc;

use super::{record::Record, space::SpaceGuard, unavailable};
use crate::{
    Result, StoreError, Transaction,
    feed::Hub,
    group::{GROUP_TRANSACTIONS, Job, gather, publish},
};

/// Versions set aside at once, so that the counter is not written with every group. A restart skips the rest.
const VERSIONS_RESERVED: u64 = 1 << 20;
/// Key in the keyspace `meta`: the first version that is not set aside.
const NEXT_VERSION: &str = "next-version";

pub(super) struct Writer {
    db: Database,
    records: Keyspace,
    meta: Keyspace,
    hub: Arc<Hub>,
    space: SpaceGuard,
    /// The last version given away.
    version: u64,
    /// Versions below are set aside on disk.
    reserved: u64,
    /// Why nothing can be written any more.
    broken: Option<String>,
}

/// Versions of keys written earlier in the same group; `None` is deleted.
type Pending = HashMap<String, Option<u64>>;

impl Writer {
    pub(super) fn new(
        db: Database,
        records: Keyspace,
        meta: Keyspace,
        hub: Arc<Hub>,
        space: SpaceGuard,
    ) -> std::result::Result<Self, fjall::Error> {
        let reserved = match meta.get(NEXT_VERSION)? {
            Some(stored) => Record::version(&stored).map_err(|_| fjall::Error::Unrecoverable)?,
            None => 1,
        };
        Ok(Writer { db, records, meta, hub, space, version: reserved - 1, reserved, broken: None })
    }

    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::with_capacity(GROUP_TRANSACTIONS);
        while let Some(job) = jobs.blocking_recv() {
            gather(job, &mut jobs, &mut group);
            self.write(&mut group);
        }
    }

    /// Commits a group and answers everybody in it. Leaves the group empty.
    fn write(&mut self, group: &mut Vec<Job>) {
        if let Some(why) = &self.broken {
            group.drain(..).for_each(|job| job.answer(Err(StoreError::Unavailable(why.clone()))));
            return;
        }
        let room = self.space.has_room();
        let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
        let mut pending = Pending::new();
        let alone = group.len() == 1;
        let mut results = Vec::with_capacity(group.len());
        for job in group.iter() {
            let result = self.check(&job.tx, &pending).and_then(|()| match () {
                () if job.tx.writes.is_empty() => Ok(0),
                () if !room => Err(StoreError::Full),
                () => Ok(self.next_version(&mut batch)),
            });
            if let Ok(version) = result {
                for (key, value) in &job.tx.writes {
                    match value {
                        Some(value) => batch.insert(&self.records, key.as_str(), Record::encode(version, value)),
                        None => batch.remove(&self.records, key.as_str()),
                    }
                    if !alone {
                        pending.insert(key.clone(), value.as_ref().map(|_| version));
                    }
                }
            }
            results.push(result);
        }

        if !batch.is_empty() {
            if let Err(e) = batch.commit() {
                // Whatever was decided in this group rests on writes that may not have happened.
                let why = describe(&e);
                tracing::error!("the store stops taking writes: {why}");
                group.drain(..).for_each(|job| job.answer(Err(StoreError::Unavailable(why.clone()))));
                self.broken = Some(why);
                return;
            }
            publish(&self.hub, group, &results);
        }
        group.drain(..).zip(results).for_each(|(job, result)| job.answer(result));
    }

    fn check(&self, tx: &Transaction, pending: &Pending) -> Result<()> {
        for (key, expect) in &tx.checks {
            let found = match pending.get(key) {
                Some(found) => *found,
                None => self.stored_version(key)?,
            };
            if !expect.holds(found) {
                return Err(StoreError::Conflict { key: key.clone() });
            }
        }
        Ok(())
    }

    fn stored_version(&self, key: &str) -> Result<Option<u64>> {
        match self.records.get(key).map_err(unavailable)? {
            Some(stored) => Record::version(&stored).map(Some),
            None => Ok(None),
        }
    }

    fn next_version(&mut self, batch: &mut fjall::OwnedWriteBatch) -> u64 {
        self.version += 1;
        if self.version >= self.reserved {
            self.reserved = self.version + VERSIONS_RESERVED;
            batch.insert(&self.meta, NEXT_VERSION, Record::encode(self.reserved, b""));
        }
        self.version
    }
}

impl Drop for Writer {
    /// Also on a panic: a watcher must not wait for a writer that is gone.
    fn drop(&mut self) {
        self.hub.close();
    }
}

fn describe(e: &fjall::Error) -> String {
    let full = matches!(e, fjall::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull);
    match full {
        true => "the disk filled up in the middle of a write; free some space and start again".to_owned(),
        false => format!("a write failed, start again after looking at the disk: {e}"),
    }
}
