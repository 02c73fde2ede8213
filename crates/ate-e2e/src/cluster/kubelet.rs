//! What Kubernetes' controllers and the kubelets do for worker pods, played: a Deployment becomes pods, a pod becomes the real
//! herder in a network namespace with an address, its status says so, and what is deleted is asked to end and is gone
//! once it has ended and nobody holds it. There is no container around the herder: it sees the machine's files, so the
//! directory that pods share with the node is put in place of the path they name.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use ateom_harness::pod::Pod as Herder;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{SYSTEM, control_pod, service::Service};
use crate::binary;

const POOL: &str = "ate.dev/worker-pool";
/// Where pods say that they share a directory with the node.
const SHARED: &str = "/var/lib/ate";
const TURN: Duration = Duration::from_millis(100);

/// Plays until it is dropped; then its pods are gone.
pub(super) struct Kubelet(tokio::task::JoinHandle<()>);

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct State {
    client: Client,
    nodes: Vec<Machine>,
    running: HashMap<String, Running>,
}

/// A node, and the directory on it that pods share with its agent.
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
}

struct Running {
    herder: Herder,
    /// When it was asked to end, and how long it may take.
    ending: Option<(Instant, Duration)>,
}

impl Kubelet {
    pub(super) fn start(client: Client, nodes: Vec<Machine>, services: Vec<Arc<Service>>) -> Kubelet {
        let mut state = State { client, nodes, running: HashMap::new() };
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
                (true, false) => {
                    let running = self.running.get_mut(&uid).unwrap();
                    if running.herder.ended().is_some() {
                        running.herder.start_herder(); // restartPolicy Always
                    }
                }
                (true, true) if !self.end(pod, &uid) => {}
                (_, true) => self.gone(pod, &uid).await?,
            }
        }
        Ok(())
    }

    async fn begin(&mut self, pod: &Pod, uid: String) -> kube::Result<()> {
        let spec = pod.spec.as_ref().unwrap();
        let container = &spec.containers[0];
        check(container.args.as_deref().unwrap_or_default());
        let image = container.image.clone().unwrap();
        let program = binary(image.split(':').next().unwrap());
        let node = self.nodes.iter().find(|n| Some(&n.name) == spec.node_name.as_ref()).expect("one of the nodes");
        std::fs::create_dir_all(&node.data_dir).unwrap();
        let (data_dir, of) = (node.data_dir.canonicalize().unwrap(), uid.clone());
        let herder = tokio::task::spawn_blocking(move || Herder::start(&program, &data_dir, &of)).await.unwrap();
        let status = json!({"status": {
            "phase": "Running", "podIP": herder.address.to_string(), "podIPs": [{"ip": herder.address.to_string()}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        self.running.insert(uid, Running { herder, ending: None });
        self.pods(pod).patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await.map(drop)
    }

    /// Whether nothing runs in it any more.
    fn end(&mut self, pod: &Pod, uid: &str) -> bool {
        let running = self.running.get_mut(uid).unwrap();
        let grace = pod.metadata.deletion_grace_period_seconds.filter(|s| *s > 0);
        let grace = grace.or(pod.spec.as_ref().unwrap().termination_grace_period_seconds).unwrap_or(30);
        let (since, grace) = *running.ending.get_or_insert_with(|| {
            if running.herder.ended().is_none() {
                running.herder.ask_to_end();
            }
            (Instant::now(), Duration::from_secs(grace.unsigned_abs()))
        });
        if since.elapsed() > grace {
            running.herder.kill_herder();
            return true;
        }
        running.herder.ended().is_some()
    }

    async fn gone(&mut self, pod: &Pod, uid: &str) -> kube::Result<()> {
        self.running.remove(uid);
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

/// The harness starts the herder with these very arguments.
fn check(args: &[String]) {
    let own = Path::new(SHARED).join("workers/$(POD_UID)");
    let (socket, work) = (own.join("driver.sock").display().to_string(), own.join("work").display().to_string());
    assert_eq!(args, ["serve", "--pod", "--socket", &socket, "--work-dir", &work]);
}
