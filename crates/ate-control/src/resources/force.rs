//! Deleting what is used, with force: its binaries are revoked, and the object stays and says so.

use std::collections::BTreeSet;

use ate_api::{Error, Reason, id::Digest};

use super::not_found;
use crate::{core::Core, records::ConfigKey, usage::Filter};

impl Core {
    /// Revokes the binaries of a configuration that no other one names. Where one of its revisions has none of its own,
    /// that would not stop it, and stopping the others with it is not what was asked for.
    pub(super) async fn revoke_config(&self, name: &str) -> Result<(), Error> {
        let object = format!("sandboxconfig/{name}");
        let (mut mine, mut others) = (BTreeSet::<Digest>::new(), BTreeSet::new());
        let revisions = self.catalog.revisions.all();
        for (key, revision) in &revisions {
            let set = if key.name == name { &mut mine } else { &mut others };
            set.extend(revision.value.reference.assets.iter().map(|a| a.sha256.clone()));
        }
        // Of other architectures there is what the configurations say now.
        for (other, config) in self.catalog.configs.all() {
            let set = if other == name { &mut mine } else { &mut others };
            let assets = config.value.resource.spec.assets.values().flat_map(|assets| assets.values());
            set.extend(assets.map(|a| a.sha256.clone()));
        }
        let own: BTreeSet<Digest> = mine.difference(&others).cloned().collect();
        let stopped = |assets: &[ate_sandbox::PinnedAsset]| assets.iter().any(|a| own.contains(&a.sha256));
        let left = revisions.iter().find(|(key, r)| key.name == name && !stopped(&r.value.reference.assets));
        if let Some((key, _)) = left {
            let message = format!("{key} has no binary that is not also another configuration's");
            return Err(Error::new(Reason::InUse, message)
                .on(object)
                .hint("revoke a binary with all that run it: ate sandbox revoke DIGEST --reason TEXT"));
        }
        // What is revoked already keeps its reason.
        let revoked = self.revocations();
        let new: BTreeSet<Digest> = own.into_iter().filter(|d| !revoked.digests.contains_key(d)).collect();
        self.revoke(&new, &format!("{object} was deleted with --force")).await.map_err(|e| e.on(object))
    }

    /// Removes a binary from the node, if no configuration names it.
    pub(crate) async fn delete_asset(&self, digest: &Digest, force: bool) -> Result<(), Error> {
        let object = format!("asset/{digest}");
        let naming = self.revisions(&Filter { digest: Some(digest.clone()), ..Filter::default() });
        if naming.is_empty() {
            if !self.node.assets().await?.iter().any(|a| a.sha256 == *digest) {
                return Err(not_found("asset", digest.as_str()));
            }
            return self.node.delete_asset(digest).await.map_err(|e| e.on(object));
        }
        if force {
            let reason = "the asset was deleted with --force";
            return self.revoke(&BTreeSet::from([digest.clone()]), reason).await.map_err(|e| e.on(object));
        }
        let configs: Vec<String> = naming.iter().map(ConfigKey::to_string).collect();
        let named = format!("{} name{} it", configs.join(", "), if configs.len() == 1 { "s" } else { "" });
        let refusal = match self.in_use(&object, Vec::new(), &naming).await? {
            Some(users) => Error { message: format!("{named}; {}", users.message), ..users },
            None => Error::new(Reason::InUse, named).on(object),
        };
        Err(refusal.hint("delete those first, or revoke it: --force"))
    }
}
