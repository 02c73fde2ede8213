//! What Kubernetes' controllers and the kubelets do for worker pods, played: a Deployment becomes pods, a pod becomes a
//! container of its image with the rights its spec gives, in a network namespace with an address; its status says so, and
//! what is deleted is asked to end and is gone once it has ended and nobody holds it.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ateom_harness::pod::Network;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    SYSTEM, container::Container, control_pod, images::image, machine::Machine, pods::environment, runtime,
    service::Service,
};

const POOL: &str = "ate.dev/worker-pool";
const TURN: Duration = Duration::from_millis(100);

/// Plays until it is dropped; then its pods are gone.
pub(super) struct Kubelet(tokio::task::JoinHandle<()>);

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
        // What it holds is gone when it is.
        let end = Instant::now() + Duration::from_secs(30);
        while !self.0.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

struct State {
    client: Client,
    dir: PathBuf,
    nodes: Vec<Machine>,
    running: HashMap<String, Running>,
}

struct Running {
    container: Container,
    /// When it was asked to end, and how long it may take.
    ending: Option<(Instant, Duration)>,
    _network: Network,
}

impl Kubelet {
    /// `dir` is where images and containers are.
    pub(super) fn start(client: Client, dir: PathBuf, nodes: Vec<Machine>, services: Vec<Arc<Service>>) -> Kubelet {
        let mut state = State { client, dir, nodes, running: HashMap::new() };
        Kubelet(tokio::spawn(async move {
            loop {
                // The API server may be away: what runs goes on.
                if let Err(e) = state.turn(&services).await {
                    eprintln!("the kubelet of the test cannot go on now: {e}");
                }
                tokio::time::sleep(TURN).await;
            }
        }))
    }
}

impl State {
    async fn turn(&mut self, services: &[Arc<Service>]) -> kube::Result<()> {
        self.play_services(services).await?;
        let nodes: Vec<_> = self.nodes.iter().map(|n| n.name.as_str()).collect();
        ate_kube_harness::play_deployments(&self.client, None, POOL, &nodes).await?;
        self.play_kubelet().await
    }

    async fn play_services(&self, services: &[Arc<Service>]) -> kube::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), SYSTEM);
        let leaders = pods.list(&ListParams::default().labels("app=ate-control,ate.dev/leader=true")).await?;
        let target = match leaders.items.as_slice() {
            [one] => (0..super::REPLICAS).find(|n| control_pod(*n) == one.name_any()),
            _ => None,
        };
        services.iter().for_each(|service| service.select(target));
        Ok(())
    }

    async fn play_kubelet(&mut self) -> kube::Result<()> {
        let all: Api<Pod> = Api::all(self.client.clone());
        let found = all.list(&ListParams::default().labels(POOL)).await?.items;
        self.running.retain(|uid, _| found.iter().any(|p| p.uid().as_ref() == Some(uid)));
        for pod in &found {
            let uid = pod.uid().unwrap();
            match (self.running.contains_key(&uid), pod.metadata.deletion_timestamp.is_some()) {
                (false, false) => self.begin(pod, uid).await?,
                (true, false) => {} // it starts again by itself when it ends
                (true, true) if !self.end(pod, &uid) => {}
                (_, true) => self.gone(pod, &uid).await?,
            }
        }
        Ok(())
    }

    async fn begin(&mut self, pod: &Pod, uid: String) -> kube::Result<()> {
        let spec = pod.spec.as_ref().unwrap();
        let container = &spec.containers[0];
        let node = self.nodes.iter().find(|n| Some(&n.name) == spec.node_name.as_ref()).expect("one of the nodes");
        let volumes = spec.volumes.iter().flatten().map(|v| {
            let path = v.host_path.as_ref().map(|h| h.path.as_str());
            assert_eq!(path, Some(Machine::PATH), "volume {} is not played", v.name);
            (v.name.clone(), node.data_dir.clone())
        });
        let env = environment(&self.client, pod, container).await;
        let image = image(&self.dir, container.image.as_deref().unwrap());
        let network = tokio::task::spawn_blocking(Network::start).await.unwrap();
        let given = runtime::Given {
            program: image.entrypoint,
            env,
            volumes: volumes.collect(),
            seen: Vec::new(),
            network: Some(PathBuf::from("/run/netns").join(&network.namespace)),
            cgroup: format!("/ate-e2e-{uid}"),
        };
        let config = runtime::config(spec, container, given);
        let started = Container::start(&self.dir, &uid, &image.root, config);
        let address = network.address.to_string();
        self.running.insert(uid, Running { container: started, ending: None, _network: network });
        let status = json!({"status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        self.pods(pod).patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await.map(drop)
    }

    /// Whether nothing runs in it any more.
    fn end(&mut self, pod: &Pod, uid: &str) -> bool {
        let running = self.running.get_mut(uid).unwrap();
        let grace = pod.metadata.deletion_grace_period_seconds.filter(|s| *s > 0);
        let grace = grace.or(pod.spec.as_ref().unwrap().termination_grace_period_seconds).unwrap_or(30);
        let (since, grace) = *running.ending.get_or_insert_with(|| {
            if !running.container.has_ended() {
                running.container.ask_to_end();
            }
            (Instant::now(), Duration::from_secs(grace.unsigned_abs()))
        });
        if since.elapsed() > grace {
            running.container.kill();
        }
        running.container.has_ended()
    }

    async fn gone(&mut self, pod: &Pod, uid: &str) -> kube::Result<()> {
        if let Some(ended) = self.running.remove(uid) {
            tokio::task::block_in_place(|| drop(ended));
        }
        let status: Value = json!({"status": {"phase": "Succeeded"}});
        let pods = self.pods(pod);
        let patched = pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await;
        let deleted = pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await.map(drop);
        match patched.map(drop).and(deleted) {
            Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
            done => done,
        }
    }

    /// Those beside this one.
    fn pods(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap())
    }
}
