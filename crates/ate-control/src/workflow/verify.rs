//! Checks what a capture returned before it is committed (I1, I2).

use ate_agent::Captured;
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, Uid},
};
use serde::Deserialize;

/// The fields of a manifest that say whose snapshot it is.
#[derive(Deserialize)]
struct Owner {
    generation: u64,
    activation: Activation,
    actor: OwnerActor,
    base: Option<OwnerBase>,
}

#[derive(Deserialize)]
struct OwnerBase {
    manifest: Digest,
}

#[derive(Deserialize)]
struct OwnerActor {
    uid: Uid,
}

/// The manifest is the one its digest names, is of exactly this capture, and rests on nothing but what was `offered`.
pub(crate) fn captured(
    captured: &Captured,
    actor: &Uid,
    activation: Activation,
    generation: u64,
    offered: Option<&Digest>,
) -> Result<(), Error> {
    let wrong = |what: &str| Err(Error::new(Reason::ManifestInvalid, format!("the node returned a manifest {what}")));
    if Digest::of(&captured.manifest_json) != captured.manifest {
        return wrong("that does not match its digest");
    }
    let Ok(owner) = serde_json::from_slice::<Owner>(&captured.manifest_json) else {
        return wrong("that cannot be read");
    };
    if owner.actor.uid != *actor || owner.activation != activation || owner.generation != generation {
        return wrong("of another capture");
    }
    match owner.base {
        None if captured.needs_base => wrong("without the base it says it needs"),
        Some(_) if !captured.needs_base => wrong("with a base it says it does not need"),
        Some(base) if Some(&base.manifest) != offered => wrong("that rests on a snapshot that is not kept for it"),
        _ => Ok(()),
    }
}
