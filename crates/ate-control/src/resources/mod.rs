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

/// What an apply did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    Created,
    Configured,
    Unchanged,
}

/// Tries of a read-check-write while others write the same object.
pub(crate) const ATTEMPTS: usize = 16;

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
