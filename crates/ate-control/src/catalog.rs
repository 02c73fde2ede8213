//! The few objects every request needs (templates, pools, configurations, atespaces), kept in memory.
//!
//! The store is the truth. Entries carry the version they were written with and only move forward, so it does not
//! matter in which order two writers get to update the memory after their commits.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use ate_api::id::{Digest, ObjectName, Uid};
use ate_snapshot::manifest::Platform;
use tokio::sync::watch;

use crate::records::{
    AtespaceRecord, ConfigKey, ConfigRecord, DefaultClass, PoolRecord, Revision, Rollout, TemplateRecord,
};

#[derive(Debug)]
pub(crate) struct Entry<V> {
    pub(crate) version: u64,
    pub(crate) value: Arc<V>,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Entry { version: self.version, value: self.value.clone() }
    }
}

/// Version and object by name; no object: deleted.
type Entries<K, V> = BTreeMap<K, (u64, Option<Arc<V>>)>;

/// Objects of one kind. A deleted one stays as a tombstone, so that an older write cannot bring it back.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    entries: RwLock<Entries<K, V>>,
    changed: watch::Sender<u64>,
}

impl<K: Ord + Clone, V> Table<K, V> {
    fn new() -> Self {
        Table { entries: RwLock::default(), changed: watch::channel(0).0 }
    }

    pub(crate) fn get(&self, key: &K) -> Option<Entry<V>> {
        let entries = self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (version, value) = entries.get(key)?;
        Some(Entry { version: *version, value: value.clone()? })
    }

    pub(crate) fn all(&self) -> Vec<(K, Entry<V>)> {
        let entries = self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let live = entries.iter().filter_map(|(k, (version, v))| Some((k.clone(), *version, v.clone()?)));
        live.map(|(k, version, value)| (k, Entry { version, value })).collect()
    }

    pub(crate) fn set(&self, key: K, version: u64, value: V) {
        self.set_all(version, [(key, value)]);
    }

    /// Several that one commit wrote: nobody sees one without the others.
    pub(crate) fn set_all(&self, version: u64, new: impl IntoIterator<Item = (K, V)>) {
        self.write(version, new.into_iter().map(|(key, value)| (key, Some(Arc::new(value)))));
    }

    pub(crate) fn remove(&self, key: K, version: u64) {
        self.write(version, [(key, None)]);
    }

    fn write(&self, version: u64, new: impl IntoIterator<Item = (K, Option<Arc<V>>)>) {
        let mut entries = self.entries.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut changed = false;
        for (key, value) in new {
            if entries.get(&key).is_none_or(|(old, _)| *old < version) {
                entries.insert(key, (version, value));
                changed = true;
            }
        }
        drop(entries);
        if changed {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Wakes after every change of the table.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[derive(Debug)]
pub(crate) struct Catalog {
    pub(crate) atespaces: Table<String, AtespaceRecord>,
    pub(crate) configs: Table<String, ConfigRecord>,
    pub(crate) default_class: Table<(), DefaultClass>,
    pub(crate) revisions: Table<ConfigKey, Revision>,
    /// By class.
    pub(crate) rollouts: Table<String, Rollout>,
    pub(crate) pools: Table<ObjectName, PoolRecord>,
    pub(crate) templates: Table<ObjectName, TemplateRecord>,
    pub(crate) platforms: Table<Digest, Platform>,
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Catalog {
            atespaces: Table::new(),
            configs: Table::new(),
            default_class: Table::new(),
            revisions: Table::new(),
            rollouts: Table::new(),
            pools: Table::new(),
            templates: Table::new(),
            platforms: Table::new(),
        }
    }

    /// The template an actor was made from; not another one of the same name.
    pub(crate) fn template(&self, name: &ObjectName, uid: &Uid) -> Option<Entry<TemplateRecord>> {
        self.templates.get(name).filter(|t| t.value.uid() == uid)
    }
}
