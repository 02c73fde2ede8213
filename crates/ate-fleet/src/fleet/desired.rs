//! What every node is to know, in the order in which it has to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ate_agent::{NodeAgent, PoolSpec};
use ate_api::{Error, id::ObjectName};
use ate_sandbox::{Revocations, SandboxRef};

#[derive(Debug, Clone, Default)]
pub(super) struct Desired {
    /// Grows with every change.
    pub(super) version: u64,
    /// None: nobody has said yet, and the node's own list is in force there.
    pub(super) revocations: Option<Revocations>,
    pub(super) pools: BTreeMap<ObjectName, PoolSpec>,
    /// Pools there were: a node that was away may still have them.
    pub(super) removed: BTreeSet<ObjectName>,
    /// Binaries that were found to work, by the label of their configuration: somebody may resume under them.
    pub(super) sandboxes: BTreeMap<String, SandboxRef>,
}

impl Desired {
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Desired) -> T) -> T {
        self.version += 1;
        change(self)
    }

    /// Tells a node, the `n`-th of `of`. What must not run comes first. Binaries are fetched behind the scenes.
    pub(super) async fn tell(&self, node: &Arc<dyn NodeAgent>, n: usize, of: usize) -> Result<(), Error> {
        if let Some(list) = &self.revocations {
            node.set_revocations(list.clone()).await?;
        }
        self.tell_pools(node, n, of).await?;
        for sandbox in self.sandboxes.values() {
            let (node, sandbox) = (node.clone(), sandbox.clone());
            tokio::spawn(async move {
                if let Err(e) = node.probe(&sandbox).await {
                    tracing::warn!(
                        node = node.name(),
                        config = sandbox.config_label(),
                        "binaries are not there yet: {e}"
                    );
                }
            });
        }
        Ok(())
    }

    pub(super) async fn tell_pools(&self, node: &Arc<dyn NodeAgent>, n: usize, of: usize) -> Result<(), Error> {
        for pool in &self.removed {
            node.remove_pool(pool).await?;
        }
        for pool in self.pools.values() {
            node.set_pool(share(pool, n, of)).await?;
        }
        Ok(())
    }

    pub(super) fn set_pool(&mut self, pool: PoolSpec) {
        self.removed.remove(&pool.name);
        self.pools.insert(pool.name.clone(), pool);
    }

    pub(super) fn remove_pool(&mut self, pool: &ObjectName) {
        self.pools.remove(pool);
        self.removed.insert(pool.clone());
    }
}

/// What the `n`-th of some nodes has of a pool. Where workers are pods, nodes do not go by the number.
pub(super) fn share(pool: &PoolSpec, n: usize, of: usize) -> PoolSpec {
    let (of, n) = (u32::try_from(of).unwrap_or(u32::MAX).max(1), u32::try_from(n).unwrap_or(u32::MAX));
    let replicas = pool.replicas / of + u32::from(n < pool.replicas % of);
    PoolSpec { replicas, ..pool.clone() }
}

#[cfg(test)]
mod tests {
    use ate_sandbox::ConfigRef;

    use super::*;

    #[test]
    fn the_shares_of_a_pool_are_the_pool() {
        let config = ConfigRef {
            name: "c".into(),
            revision: 1,
            digest: ate_api::id::Digest::of(b"c"),
            values: Default::default(),
        };
        let sandbox = SandboxRef { class: "gvisor".into(), config, assets: Vec::new() };
        let pool = |replicas| PoolSpec {
            name: ObjectName::new("default", "p"),
            labels: BTreeMap::new(),
            replicas,
            sandbox: sandbox.clone(),
        };
        for (replicas, nodes) in [(0, 1), (1, 3), (7, 3), (6, 3), (5, 1)] {
            let shares: Vec<u32> = (0..nodes).map(|n| share(&pool(replicas), n, nodes).replicas).collect();
            assert_eq!(shares.iter().sum::<u32>(), replicas, "{shares:?}");
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
        }
    }
}
