//! Declarative resources: what is checked when one is written, what follows from it, and what protects it.

pub(crate) mod admission;
pub(crate) mod atespaces;
pub(crate) mod configs;
pub(crate) mod defaults;
mod force;
pub(crate) mod in_use;
pub(crate) mod pools;
pub(crate) mod templates;

use ate_api::{Error, Reason, id::Uid, resource::ObjectMeta};
use serde::de::DeserializeOwned;

use crate::{
    catalog::{Entry, Table},
    core::Core,
};

/// What an apply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    Created,
    Configured,
    Unchanged,
}

/// Tries of a read-check-write while others write the same object.
pub(crate) const ATTEMPTS: usize = 16;

impl Core {
    /// The object as it is in the store now, also in memory.
    pub(crate) async fn reload<K: Ord + Clone, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        name: &K,
        key: &str,
    ) -> Result<Option<Entry<V>>, Error> {
        let known = table.get(name);
        match self.db.get_json::<V>(key).await? {
            Some(found) => table.set(name.clone(), found.version, found.value),
            // Deleted by a commit whose answer was lost. Whoever made it anew meanwhile did so by a later one than the next.
            None => known.into_iter().for_each(|known| table.remove(name.clone(), known.version + 1)),
        }
        Ok(table.get(name))
    }
}

/// Metadata the server owns, for a new object. One that is declared elsewhere has it from there; a user cannot say any.
pub(crate) fn stamp_new(meta: &mut ObjectMeta) {
    meta.uid.get_or_insert_with(Uid::generate);
    meta.generation = meta.generation.max(1);
    meta.creation_timestamp.get_or_insert_with(ate_api::time::now);
}

/// Metadata the server owns, for a changed object.
pub(crate) fn stamp_changed(meta: &mut ObjectMeta, old: &ObjectMeta, spec_changed: bool) {
    meta.uid.clone_from(&old.uid);
    meta.generation = match meta.generation {
        0 => old.generation + u64::from(spec_changed),
        declared => declared,
    };
    meta.creation_timestamp = old.creation_timestamp;
}

pub(crate) fn too_many_conflicts(object: String) -> Error {
    Error::new(Reason::Conflict, "the object is being changed by somebody else all the time").on(object)
}

pub(crate) fn not_found(kind: &str, name: &str) -> Error {
    Error::new(Reason::NotFound, format!("there is no such {kind}")).on(format!("{kind}/{name}"))
}
