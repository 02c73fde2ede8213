//! A node whose workers are the pods it is told of; what it is asked to run, it does at once and without a sandbox.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use ate_agent::*;
use ate_api::{
    Error,
    id::{Activation, Digest, ObjectName, Uid, WorkerId},
};
use ate_control::bench::IdleNode;
use ate_sandbox::{Revocations, SandboxRef, Verification};
use ate_snapshot::manifest::Platform;
use tokio::sync::mpsc;

#[derive(Default)]
struct Known {
    pools: Vec<PoolSpec>,
    pods: Vec<(Pod, ObjectName, bool)>,
    listeners: Vec<mpsc::UnboundedSender<NodeEvent>>,
    activations: usize,
    /// Captures wait while it is set: an actor takes its time to leave.
    slow: bool,
}

#[derive(Clone)]
pub struct PodNode {
    idle: Arc<IdleNode>,
    known: Arc<Mutex<Known>>,
}

impl PodNode {
    pub fn new() -> PodNode {
        PodNode { idle: Arc::new(IdleNode::new(64)), known: Arc::default() }
    }

    /// The pods there are from now on: name and uid, pool, and whether it is being deleted.
    pub fn set_pods(&self, pods: Vec<(Pod, ObjectName, bool)>) {
        let mut known = self.known.lock().unwrap();
        let gone: Vec<_> = known.pods.iter().filter(|o| !pods.iter().any(|n| n.0 == o.0)).map(|o| id(&o.0)).collect();
        let new: Vec<_> = pods.iter().filter(|new| !known.pods.contains(new)).cloned().collect();
        known.pods = pods;
        for id in gone {
            known.tell(NodeEvent::WorkerLost { id, message: "its pod is gone".into() });
        }
        for pod in new {
            let report = known.report(&pod);
            known.tell(NodeEvent::Worker(report));
        }
    }

    pub fn activations(&self) -> usize {
        self.known.lock().unwrap().activations
    }

    pub fn set_slow(&self, slow: bool) {
        self.known.lock().unwrap().slow = slow;
    }
}

fn id(pod: &Pod) -> WorkerId {
    WorkerId(format!("node-1.{}", pod.name))
}

impl Known {
    fn tell(&mut self, event: NodeEvent) {
        self.listeners.retain(|l| l.send(event.clone()).is_ok());
    }

    fn report(&self, (pod, pool, leaving): &(Pod, ObjectName, bool)) -> WorkerReport {
        let spec = self.pools.iter().find(|p| &p.name == pool);
        WorkerReport {
            id: id(pod),
            node: "node-1".to_owned(),
            pod: Some(pod.clone()),
            pool: pool.clone(),
            labels: spec.map(|s| s.labels.clone()).unwrap_or_default(),
            class: spec.map_or_else(|| "gvisor".to_owned(), |s| s.sandbox.class.clone()),
            phase: if spec.is_some() { WorkerPhase::Ready } else { WorkerPhase::Starting },
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            platform: Platform {
                os: "linux".to_owned(),
                arch: ate_sandbox::host::arch().to_owned(),
                cpu_features: Vec::new(),
                kernel_release: "0".to_owned(),
            },
            configs: spec.map(|s| s.sandbox.config_label()).into_iter().collect(),
            prepared: None,
            holds: None,
            leaving: *leaving,
            message: String::new(),
        }
    }
}

#[async_trait]
impl NodeAgent for PodNode {
    fn name(&self) -> &str {
        "node-1"
    }

    fn events(&self) -> NodeEvents {
        let (events, mut told) = mpsc::unbounded_channel();
        let (out, stream) = mpsc::channel(64);
        let mut known = self.known.lock().unwrap();
        for pod in &known.pods {
            let _ = events.send(NodeEvent::Worker(known.report(pod)));
        }
        let _ = events.send(NodeEvent::Listed);
        known.listeners.push(events);
        tokio::spawn(async move {
            while let Some(event) = told.recv().await {
                if out.send(event).await.is_err() {
                    return;
                }
            }
        });
        stream
    }

    async fn set_pool(&self, pool: PoolSpec) -> Result<(), Error> {
        let mut known = self.known.lock().unwrap();
        let name = pool.name.clone();
        known.pools.retain(|p| p.name != name);
        known.pools.push(pool);
        let of_pool: Vec<_> = known.pods.iter().filter(|pod| pod.1 == name).cloned().collect();
        for pod in of_pool {
            let report = known.report(&pod);
            known.tell(NodeEvent::Worker(report));
        }
        Ok(())
    }

    async fn remove_pool(&self, pool: &ObjectName) -> Result<(), Error> {
        self.known.lock().unwrap().pools.retain(|p| p.name != *pool);
        Ok(())
    }

    async fn activate(&self, activate: Activate) -> Result<Activated, Error> {
        self.known.lock().unwrap().activations += 1;
        self.idle.activate(activate).await
    }

    async fn capture(&self, capture: Capture) -> Result<Captured, Error> {
        while self.known.lock().unwrap().slow {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        self.idle.capture(capture).await
    }

    async fn check_signatures(&self, s: &SandboxRef, v: &Verification, fetch: bool) -> Result<(), Error> {
        self.idle.check_signatures(s, v, fetch).await
    }

    async fn probe(&self, sandbox: &SandboxRef) -> Result<Probed, Error> {
        self.idle.probe(sandbox).await
    }

    async fn import_asset(&self, upload: AssetUpload) -> Result<(Digest, u64, String, bool), Error> {
        self.idle.import_asset(upload).await
    }

    async fn assets(&self) -> Result<Vec<AssetReport>, Error> {
        self.idle.assets().await
    }

    async fn delete_asset(&self, asset: &Digest) -> Result<(), Error> {
        self.idle.delete_asset(asset).await
    }

    async fn set_revocations(&self, revocations: Revocations) -> Result<(), Error> {
        self.idle.set_revocations(revocations).await
    }

    async fn resolve_image(&self, reference: &str) -> Result<ResolvedImage, Error> {
        self.idle.resolve_image(reference).await
    }

    async fn prepare(&self, prepare: Prepare) -> Result<(), Error> {
        self.idle.prepare(prepare).await
    }

    async fn thaw(&self, worker: &WorkerId, actor: &Uid, activation: Activation, n: u64) -> Result<(), Error> {
        self.idle.thaw(worker, actor, activation, n).await
    }

    async fn release(&self, worker: &WorkerId, actor: &Uid, activation: Activation) -> Result<(), Error> {
        self.idle.release(worker, actor, activation).await
    }

    async fn manifest(&self, snapshot: &SnapshotRef) -> Result<Vec<u8>, Error> {
        self.idle.manifest(snapshot).await
    }

    async fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<(), Error> {
        self.idle.delete_snapshot(snapshot).await
    }

    async fn collect(&self, live: LiveSet) -> Result<(), Error> {
        self.idle.collect(live).await
    }

    async fn logs(&self, actor: &Uid, container: &str, tail: u32, follow: bool) -> Result<LogTail, Error> {
        self.idle.logs(actor, container, tail, follow).await
    }
}
