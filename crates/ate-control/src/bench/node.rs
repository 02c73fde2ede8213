//! A node agent that does nothing and answers at once.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Mutex,
};

use async_trait::async_trait;
use ate_agent::*;
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, ObjectName, Uid, WorkerId},
};
use ate_sandbox::{Revocations, SandboxRef, Verification, capability};
use ate_snapshot::manifest::Platform;
use tokio::sync::mpsc;

/// Has as many workers as its pools ask for, and no machine.
pub struct IdleNode {
    room: usize,
    subscribers: Mutex<Vec<mpsc::Sender<NodeEvent>>>,
}

impl IdleNode {
    /// `workers`: how many there may be, for the size of its queues.
    pub fn new(workers: usize) -> Self {
        IdleNode { room: workers * 4, subscribers: Mutex::default() }
    }
}

fn not_here<T>() -> Result<T, Error> {
    Err(Error::new(Reason::Unimplemented, "this node does nothing"))
}

#[async_trait]
impl NodeAgent for IdleNode {
    fn name(&self) -> &str {
        "idle"
    }

    fn events(&self) -> NodeEvents {
        let (sender, receiver) = mpsc::channel(self.room);
        let _ = sender.try_send(NodeEvent::Listed);
        if let Ok(mut all) = self.subscribers.lock() {
            all.push(sender);
        }
        receiver
    }

    async fn set_pool(&self, pool: PoolSpec) -> Result<(), Error> {
        let subscribers = self.subscribers.lock().map(|s| s.clone()).unwrap_or_default();
        for n in 0..pool.replicas {
            let report = WorkerReport {
                id: WorkerId(format!("{}-{n}", pool.name.name)),
                node: "idle".to_owned(),
                pod: None,
                pool: pool.name.clone(),
                labels: pool.labels.clone(),
                class: pool.sandbox.class.clone(),
                phase: WorkerPhase::Ready,
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                platform: Platform {
                    os: "linux".to_owned(),
                    arch: ate_sandbox::host::arch().to_owned(),
                    cpu_features: (0..150).map(|i| format!("feature{i:03}")).collect(),
                    kernel_release: "0".to_owned(),
                },
                configs: vec![pool.sandbox.config_label()],
                prepared: None,
                holds: None,
                leaving: false,
                message: String::new(),
            };
            for s in &subscribers {
                let _ = s.send(NodeEvent::Worker(report.clone())).await;
            }
        }
        Ok(())
    }

    async fn remove_pool(&self, _: &ObjectName) -> Result<(), Error> {
        Ok(())
    }

    async fn check_signatures(&self, _: &SandboxRef, _: &Verification, _: bool) -> Result<(), Error> {
        not_here()
    }

    async fn probe(&self, _: &SandboxRef) -> Result<Probed, Error> {
        Ok(Probed { capabilities: vec![capability::SNAPSHOT_FULL.to_owned()], versions: BTreeMap::new() })
    }

    async fn import_asset(&self, _: AssetUpload) -> Result<(Digest, u64, String, bool), Error> {
        not_here()
    }

    async fn assets(&self) -> Result<Vec<AssetReport>, Error> {
        Ok(Vec::new())
    }

    async fn delete_asset(&self, _: &Digest) -> Result<(), Error> {
        Ok(())
    }

    async fn set_revocations(&self, _: Revocations) -> Result<(), Error> {
        Ok(())
    }

    async fn resolve_image(&self, reference: &str) -> Result<ResolvedImage, Error> {
        Ok(ResolvedImage { digest: Digest::of(reference.as_bytes()), exposed_ports: Vec::new() })
    }

    async fn prepare(&self, _: Prepare) -> Result<(), Error> {
        Ok(())
    }

    async fn activate(&self, _: Activate) -> Result<Activated, Error> {
        Ok(Activated { address: IpAddr::V4(Ipv4Addr::LOCALHOST), prepared: false, steps_us: BTreeMap::new() })
    }

    async fn capture(&self, c: Capture) -> Result<Captured, Error> {
        let manifest = serde_json::json!({
            "generation": c.generation,
            "activation": c.activation,
            "actor": {"uid": c.actor.uid},
        });
        let manifest_json = manifest.to_string().into_bytes();
        let prefix = format!("default/actors/{}/{:08}-{}", c.actor.uid, c.generation, c.activation);
        Ok(Captured {
            manifest: Digest::of(&manifest_json),
            manifest_json,
            size: 0,
            location: SnapshotLocation::External { prefix },
            needs_base: false,
        })
    }

    async fn thaw(&self, _: &WorkerId, _: &Uid, _: Activation, _: u64) -> Result<(), Error> {
        Ok(())
    }

    async fn release(&self, _: &WorkerId, _: &Uid, _: Activation) -> Result<(), Error> {
        Ok(())
    }

    async fn manifest(&self, _: &SnapshotRef) -> Result<Vec<u8>, Error> {
        not_here()
    }

    async fn delete_snapshot(&self, _: &SnapshotRef) -> Result<(), Error> {
        Ok(())
    }

    async fn collect(&self, _: LiveSet) -> Result<(), Error> {
        Ok(())
    }

    async fn logs(&self, _: &Uid, _: &str, _: u32, _: bool) -> Result<LogTail, Error> {
        not_here()
    }
}
