//! Revocation: from the moment it is acknowledged nothing new begins under a binary, here or on the node.
//!
//! The list is durable first, then in force here, then on the node, then acknowledged. A start that passed the check
//! before had claimed its worker by then ([`Core::check_trust`] comes after the claim), so it is among those who run.

pub(crate) mod conditions;
pub(crate) mod keep;
pub(crate) mod stop;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ate_api::{Error, Reason, id::Digest};
use ate_sandbox::{Revocation, Revocations};
use tokio::sync::MutexGuard;

use crate::{
    core::Core,
    records::{ConfigKey, keys},
    scheduler::Holder,
};

/// Time for the node to write its list and to end what it had started ahead.
const CONFIRM: Duration = Duration::from_secs(20);

/// Whose turn it is to change the list or to hand it on.
pub(crate) type Turn = tokio::sync::Mutex<()>;

impl Core {
    /// The list in force.
    pub(crate) fn revocations(&self) -> Arc<Revocations> {
        self.revoked.borrow().clone()
    }

    /// At the start, before anybody asks what may run.
    pub(crate) async fn load_revocations(&self) -> Result<(), Error> {
        if let Some(stored) = self.db.get_json::<Revocations>(keys::REVOCATIONS).await? {
            self.revoked.send_replace(Arc::new(stored.value));
        }
        Ok(())
    }

    /// When this returns without an error, nothing new begins under any of these.
    pub(crate) async fn revoke(&self, digests: &BTreeSet<Digest>, reason: &str) -> Result<(), Error> {
        let turn = self.revoking.lock().await;
        self.change_revocations(&turn, |list| {
            for digest in digests {
                let at = list.digests.get(digest).map_or_else(ate_api::time::now, |earlier| earlier.at);
                list.digests.insert(digest.clone(), Revocation { reason: reason.to_owned(), at });
            }
        })
        .await?;
        self.confirm_revocations(&turn).await
    }

    pub(crate) async fn unrevoke(&self, digest: &Digest) -> Result<(), Error> {
        let turn = self.revoking.lock().await;
        let mut found = false;
        // Also one whose answer was lost, which is in the store and not here yet.
        self.change_revocations(&turn, |list| found = list.digests.remove(digest).is_some()).await?;
        if !found {
            return Err(Error::new(Reason::NotFound, "this binary is not revoked")
                .on(format!("asset/{digest}"))
                .hint("`ate sandbox revocations` lists what is"));
        }
        self.confirm_revocations(&turn).await
    }

    /// Durable, then in force here. Nothing is written when nothing changes.
    async fn change_revocations(
        &self,
        _turn: &MutexGuard<'_, ()>,
        change: impl FnOnce(&mut Revocations),
    ) -> Result<(), Error> {
        // From the store: after an error nobody knows what is in it.
        let stored = self.db.get_json::<Revocations>(keys::REVOCATIONS).await?;
        let (version, before) = stored.map_or((None, Revocations::default()), |s| (Some(s.version), s.value));
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            after.version += 1;
            after.validate()?;
            self.db.put_json(keys::REVOCATIONS, version, &after).await?;
        }
        if *self.revocations() != after {
            // In force before anybody is woken by it.
            self.revoked.send_if_modified(|list| {
                *list = Arc::new(after);
                false
            });
            self.rebuild_admitted();
            self.revoked.send_modify(|_| {});
        }
        Ok(())
    }

    /// Returns when the node has the list in force, and nothing started ahead that it forbids.
    pub(crate) async fn confirm_revocations(&self, _turn: &MutexGuard<'_, ()>) -> Result<(), Error> {
        let list = (*self.revocations()).clone();
        let told = tokio::time::timeout(CONFIRM, self.node.set_revocations(list)).await;
        let late = |_| Err(Error::new(Reason::DeadlineExceeded, format!("no answer within {CONFIRM:?}")));
        told.unwrap_or_else(late).map_err(|e| {
            // Of many nodes the error names the one.
            let node = e.object.strip_prefix("node/").unwrap_or(self.node.name());
            let message = format!("it is recorded, but node {node} has not confirmed it: {}", e.message);
            Error::new(Reason::Unavailable, message)
                .on(format!("node/{node}"))
                .hint("the node is told again by itself; repeat the command to be sure that it is in force")
        })
    }

    /// Configurations that name any of these, in order.
    pub(crate) fn naming(&self, digests: &BTreeSet<Digest>) -> Vec<ConfigKey> {
        let revisions = self.catalog.revisions.all().into_iter();
        let naming = revisions.filter(|(_, r)| r.value.reference.assets.iter().any(|a| digests.contains(&a.sha256)));
        naming.map(|(key, _)| key).collect()
    }

    /// Who is on a worker under any of these, or on the way there.
    pub(crate) fn running_on(&self, digests: &BTreeSet<Digest>) -> Vec<Holder> {
        let revisions = self.naming(digests);
        let holders = self.scheduler.holders().into_iter().map(|(_, holder)| holder);
        let mut found: Vec<Holder> = holders.filter(|h| revisions.contains(&h.sandbox)).collect();
        found.sort_by(|a, b| a.actor.cmp(&b.actor));
        found
    }
}
