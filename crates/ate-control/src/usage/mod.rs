//! What runs where: which actors, golden snapshots and snapshots need which revision of a configuration.
//!
//! Who runs is in the scheduler's memory and goldens are in the catalog. For the many at rest there are two indexes in
//! the store, written in the transaction of whatever changes them: snapshots by revision, and actors by the revision of
//! their current snapshot. Their sizes are kept in memory ([`counts`]), names are read a page at a time ([`page`]).

pub(crate) mod counts;
pub(crate) mod page;
mod refusal;

use std::collections::BTreeMap;

use ate_api::{
    Error,
    id::{ActorName, Digest, GOLDEN_ATESPACE},
};
use ate_store::Transaction;

pub(crate) use counts::Counts;

use crate::{
    core::Core,
    records::{ConfigKey, Snapshot, keys},
};

/// How long a caller waits for a count that is under way after a start.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Notes which revision an actor needs, when its current snapshot changes.
pub(crate) fn note(
    mut tx: Transaction,
    actor: &ActorName,
    before: Option<&Snapshot>,
    after: Option<&Snapshot>,
) -> Transaction {
    let (before, after) = (before.map(|s| &s.sandbox), after.map(|s| &s.sandbox));
    if actor.atespace == GOLDEN_ATESPACE || before == after {
        return tx;
    }
    if let Some(before) = before {
        tx = tx.delete(keys::needed_by(before, actor));
    }
    if let Some(after) = after {
        tx = tx.put(keys::needed_by(after, actor), &b""[..]);
    }
    tx
}

/// Which revisions are asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) config: Option<String>,
    pub(crate) revision: Option<u64>,
    pub(crate) digest: Option<Digest>,
}

/// How much needs one revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) running: u64,
    pub(crate) suspended: u64,
    pub(crate) goldens: u64,
    pub(crate) snapshots: u64,
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Usage>>(all: I) -> Usage {
        all.fold(Usage::default(), |sum, one| Usage {
            running: sum.running + one.running,
            suspended: sum.suspended + one.suspended,
            goldens: sum.goldens + one.goldens,
            snapshots: sum.snapshots + one.snapshots,
        })
    }
}

impl Core {
    /// Revisions that fit, in order: those there are.
    pub(crate) fn revisions(&self, filter: &Filter) -> Vec<ConfigKey> {
        let all = self.catalog.revisions.all().into_iter();
        let fits = all.filter(|(key, revision)| {
            filter.config.as_ref().is_none_or(|name| *name == key.name)
                && filter.revision.is_none_or(|n| n == key.revision)
                && filter.digest.as_ref().is_none_or(|d| revision.value.reference.assets.iter().any(|a| a.sha256 == *d))
        });
        fits.map(|(key, _)| key).collect()
    }

    /// Counts for these revisions. No scan: it takes as long with a million actors as with none.
    pub(crate) async fn usage(&self, revisions: &[ConfigKey]) -> Result<BTreeMap<ConfigKey, Usage>, Error> {
        let counts = self.db.counts.all(PATIENCE).await?;
        let mut usage: BTreeMap<ConfigKey, Usage> = revisions
            .iter()
            .map(|key| {
                let count = counts.get(key).copied().unwrap_or_default();
                let usage = Usage { snapshots: count.snapshots, suspended: count.actors, ..Usage::default() };
                (key.clone(), usage)
            })
            .collect();
        for (_, holder) in self.scheduler.holders() {
            if let Some(usage) = usage.get_mut(&holder.sandbox) {
                usage.running += 1;
            }
            // Its snapshot is of an actor at rest no more.
            let own = self.load(&holder.actor).await.ok().and_then(|a| a.value.snapshot.map(|s| s.sandbox));
            if holder.actor.atespace != GOLDEN_ATESPACE
                && let Some(usage) = own.and_then(|own| usage.get_mut(&own))
            {
                usage.suspended = usage.suspended.saturating_sub(1);
            }
        }
        for (_, template) in self.catalog.templates.all() {
            for golden in template.value.goldens() {
                if let Some(usage) = usage.get_mut(&golden.sandbox) {
                    usage.goldens += 1;
                }
            }
        }
        Ok(usage)
    }
}
