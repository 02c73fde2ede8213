//! Rollout: existing actors of a class come to a new revision of its binaries.
//!
//! The golden snapshots come first: each is made under the new revision and restored once before new actors begin with
//! it, and before any actor is moved ([`goldens`]). Then the rollout *replaces* every revision of the class that was
//! there when it was started: whoever starts without memory (files only, or a boot) starts under the new one
//! ([`Successor`]). Memory is restored under nothing but what it was saved under; by policy those at rest are booted
//! anew ([`actors`]).
//!
//! The record in the store leads and [`run`] follows it; every step finds out whether it was done before.

mod actors;
pub(crate) mod admin;
mod goldens;
pub(crate) mod progress;
pub(crate) mod run;
mod sweep;

use std::sync::Arc;

use crate::{
    core::Core,
    records::{Revision, Rollout, TemplateRecord},
};

/// What starts without memory is started under.
#[derive(Debug, Clone)]
pub(crate) struct Successor {
    rollout: Arc<Rollout>,
    pub(crate) revision: Arc<Revision>,
}

impl Successor {
    pub(crate) fn replaces(&self, revision: &Revision) -> bool {
        self.rollout.replaces(revision)
    }
}

impl Core {
    /// What the rollout of its class brings actors of a template to, if its golden snapshot is there already.
    pub(crate) fn successor(&self, template: &TemplateRecord) -> Option<Successor> {
        let rollout = self.catalog.rollouts.get(&template.class).map(|r| r.value).filter(|r| r.moves_actors())?;
        let successor = Successor { revision: self.trusted_revision(&rollout.to).ok()?, rollout };
        (!self.is_behind(&successor.rollout, template)).then_some(successor)
    }

    /// Whether the golden snapshot of a template was made under something the rollout replaces.
    fn is_behind(&self, rollout: &Rollout, template: &TemplateRecord) -> bool {
        let golden = template.golden.as_ref().and_then(|g| self.catalog.revisions.get(&g.sandbox));
        golden.is_some_and(|r| rollout.replaces(&r.value))
    }
}
