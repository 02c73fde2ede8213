//! Which sandbox configurations have all their binaries on this node, verified; and the way to these for whoever runs them.

use std::{collections::BTreeMap, sync::Arc};

use ate_api::{Error, canonical, id::Digest};
use ate_sandbox::SandboxRef;
use ateom::driver as pb;
use serde_json::Value;
use tokio::sync::watch;

use crate::{assets::AssetCache, revoked::Revoked};

/// Class and `name@revision` → digests of its binaries.
type Known = BTreeMap<(String, String), Vec<Digest>>;

#[derive(Clone)]
pub(crate) struct Verified {
    assets: AssetCache,
    revoked: Revoked,
    known: Arc<watch::Sender<Known>>,
}

impl Verified {
    pub(crate) fn new(assets: AssetCache, revoked: Revoked) -> Self {
        Verified { assets, revoked, known: Arc::new(watch::Sender::new(Known::new())) }
    }

    pub(crate) fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// Makes sure of every binary and says it as the driver needs it. Only `stat` calls when all are there.
    /// `ASSET_REVOKED` if one must not run any more.
    pub(crate) async fn ensure(&self, sandbox: &SandboxRef) -> Result<pb::Sandbox, Error> {
        self.revoked.check(sandbox)?;
        let mut message = pb::Sandbox {
            config_name: sandbox.config.name.clone(),
            config_revision: sandbox.config.revision,
            config_digest: sandbox.config.digest.to_string(),
            config_json: canonical::to_vec(&Value::Object(sandbox.config.values.clone())),
            ..Default::default()
        };
        for asset in &sandbox.assets {
            let path = self.assets.ensure(asset).await?;
            message.asset_paths.insert(asset.name.clone(), path.to_string_lossy().into_owned());
            message.asset_digests.insert(asset.name.clone(), asset.sha256.to_string());
        }
        let key = (sandbox.class.clone(), sandbox.config_label());
        if !self.known.borrow().contains_key(&key) {
            let digests = sandbox.assets.iter().map(|a| a.sha256.clone()).collect();
            self.known.send_modify(|known| drop(known.insert(key, digests)));
        }
        Ok(message)
    }

    /// Labels of the configurations of a class.
    pub(crate) fn labels(&self, class: &str) -> Vec<String> {
        self.known.borrow().keys().filter(|(c, _)| c == class).map(|(_, label)| label.clone()).collect()
    }

    /// These binaries are no longer here.
    pub(crate) fn forget(&self, removed: &[Digest]) {
        self.known.send_if_modified(|known| {
            let before = known.len();
            known.retain(|_, digests| !digests.iter().any(|d| removed.contains(d)));
            known.len() != before
        });
    }

    /// Wakes up when the set changes.
    pub(crate) fn changes(&self) -> Changes {
        Changes(self.known.subscribe())
    }
}

pub(crate) struct Changes(watch::Receiver<Known>);

impl Changes {
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}
