//! A whole cluster for tests, on one machine: a real API server with its etcd, a real PostgreSQL, two control planes, an agent
//! for each node, and real herders in pods; all of them in containers of their images, by a real runtime, with the
//! rights that the manifests give. What Kubernetes' own controllers, kubelets and proxies would do is played: see
//! [`kubelet`] and [`service`].

mod container;
mod images;
mod install;
mod kubelet;
mod machine;
mod objects;
mod pods;
mod runtime;
mod service;
mod system;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_kube::crd;
use ate_kube_harness::{ADMIN, Cluster as ApiServer, MASTERS, PlayedNode, free_address, play_node};
use k8s_openapi::api::{
    core::v1::{Namespace, Pod},
    rbac::v1::{ClusterRoleBinding, RoleBinding},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use postgres_harness::{Server as Postgres, Tuning};
use serde_json::{Value, json};

use self::{
    container::Container,
    install::{apply_certificates, certificates, control_pod, install},
    kubelet::Kubelet,
    machine::{Machine, Shared},
    objects::{config, pool, template},
    pods::SecretVolume,
    service::Service,
    system::System,
};
use crate::{
    binary, http,
    user::{ANSWER, counted, host},
};

/// Where the control plane is installed.
const SYSTEM: &str = "ate-system";
/// Where users' objects are.
pub const SPACE: &str = "default";
/// Where binaries are that had to be made, below the directory of a cluster.
const ASSETS: &str = "assets";
/// Replicas of the control plane.
const REPLICAS: usize = 2;
/// The machine may be busy with other tests, and a leader that was killed is missed for ten seconds.
pub const LONG: Duration = Duration::from_secs(120);

pub struct Cluster {
    // Ends before what it looks at.
    _kubelet: Kubelet,
    _played: Vec<PlayedNode>,
    controls: Vec<Container>,
    nodes: Vec<Container>,
    _shared: Vec<Shared>,
    secrets: Vec<SecretVolume>,
    pub api_server: ApiServer,
    pub postgres: Postgres,
    pub client: Client,
    kubeconfig: PathBuf,
    api: Arc<Service>,
    router: Arc<Service>,
    token: String,
    dir: tempfile::TempDir,
}

/// What the counter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    pub count: u64,
    /// Another one: another process.
    pub boot: String,
}

impl Cluster {
    /// With a default configuration of gVisor, a pool of `workers` spread over the `nodes`, the template `counter` and the
    /// atespace `default`. None: there is no API server to be had here, and why is told.
    pub async fn start(nodes: usize, workers: u32) -> Option<Cluster> {
        let cluster = Cluster::install(nodes, &["gvisor"]).await?;
        cluster.set_up(workers).await;
        Some(cluster)
    }

    /// With nothing but a default configuration of each of these classes.
    pub async fn install(nodes: usize, classes: &[&str]) -> Option<Cluster> {
        let api_server = ApiServer::start().await?;
        let client = api_server.admin();
        let kubeconfig = api_server.kubeconfig(ADMIN, &[MASTERS]).unwrap();
        let postgres = tokio::task::spawn_blocking(|| Postgres::start(Tuning::Test)).await.unwrap();
        // Short: the address of a socket has 108 bytes.
        let dir = tempfile::Builder::new().prefix("atek").tempdir().unwrap();
        install(&client, &kubeconfig, dir.path(), &postgres.database()).await;
        let boss = install::boss(&client).await;

        let ports: Vec<[SocketAddr; 2]> = (0..REPLICAS).map(|_| [(); 2].map(|()| free_address().unwrap())).collect();
        let of = |n: usize| ports.iter().map(|p| p[n]).collect::<Vec<_>>();
        let (api, router) = (Service::start(of(0)).await, Service::start(of(1)).await);
        let (machines, shared): (Vec<_>, Vec<_>) = (0..nodes).map(|n| Machine::new(dir.path(), n)).unzip();
        let mut played = Vec::new();
        for machine in &machines {
            played.push(play_node(&client, &machine.name).await);
        }
        let system = System { api_server: &api_server, client: client.clone(), dir: dir.path() };
        let (mut controls, mut nodes, mut secrets) = (Vec::new(), Vec::new(), Vec::new());
        for (n, ports) in ports.into_iter().enumerate() {
            let started = system.control(&control_pod(n), &machines[0].name, ports).await;
            controls.push(started.container);
            secrets.extend(started.secrets);
        }
        for machine in &machines {
            let started = system.node(machine, api.address()).await;
            nodes.push(started.container);
            secrets.extend(started.secrets);
        }
        let services = vec![api.clone(), router.clone()];
        let kubelet = Kubelet::start(client.clone(), dir.path().to_owned(), machines, services);
        let cluster = Cluster {
            _kubelet: kubelet,
            _played: played,
            controls,
            nodes,
            _shared: shared,
            secrets,
            api_server,
            postgres,
            client,
            kubeconfig,
            api,
            router,
            token: boss,
            dir,
        };
        for class in classes {
            let config = tokio::task::block_in_place(|| config(class, &cluster.dir.path().join(ASSETS)));
            let name = config["metadata"]["name"].as_str().unwrap().to_owned();
            cluster.apply(config).await;
            let ready = async || cluster.is_ready(&name).await;
            cluster.eventually(&format!("the binaries of {name} are ready"), ready).await;
        }
        Some(cluster)
    }

    async fn is_ready(&self, config: &str) -> bool {
        let found = self.object(crd::Kind::SandboxConfig, config).await;
        let conditions = found["status"]["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    }

    async fn set_up(&self, workers: u32) {
        self.apply(pool(workers)).await;
        self.eventually("the atespace is there", async || self.ate(&["create", "atespace", "default"]).await.is_ok())
            .await;
        self.eventually("the workers are ready", async || {
            let found = self.object(crd::Kind::WorkerPool, "pool").await;
            found["status"]["readyReplicas"] == workers
        })
        .await;
        let applied = Instant::now();
        self.apply(template()).await;
        self.eventually("the template is ready", async || {
            let found = self.object(crd::Kind::ActorTemplate, "counter").await;
            found["status"]["phase"] == "Ready"
        })
        .await;
        println!("kube.template_ready_s {:.1} (an image nobody has used yet)", applied.elapsed().as_secs_f64());
    }

    /// Of somebody who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What is still there under names that begin like this: namespaces that are not being deleted, and bindings.
    pub async fn left_of(&self, prefix: &str) -> Vec<String> {
        let spaces = names(Api::<Namespace>::all(self.client.clone())).await;
        let bindings = names(Api::<RoleBinding>::all(self.client.clone())).await;
        let of_cluster = names(Api::<ClusterRoleBinding>::all(self.client.clone())).await;
        [spaces, bindings, of_cluster].concat().into_iter().filter(|name| name.starts_with(prefix)).collect()
    }

    /// Applies one object, as `kubectl apply` does.
    pub async fn apply(&self, object: Value) {
        let kind = crd::Kind::ALL.into_iter().find(|k| object["kind"] == k.name()).expect("a kind of ours");
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let params = PatchParams::apply("user").force();
        self.kind(kind).patch(&name, &params, &Patch::Apply(&object)).await.unwrap();
    }

    pub async fn scale(&self, replicas: u32) {
        let change = json!({"spec": {"replicas": replicas}});
        self.kind(crd::Kind::WorkerPool).patch("pool", &Default::default(), &Patch::Merge(&change)).await.unwrap();
    }

    /// The pool's pods may run in one more place, which makes them other pods.
    pub async fn edit_pods(&self) {
        let change = json!({"spec": {"template": {"tolerations": [{"key": "spare", "operator": "Exists"}]}}});
        self.kind(crd::Kind::WorkerPool).patch("pool", &Default::default(), &Patch::Merge(&change)).await.unwrap();
    }

    /// A template as the cluster has it.
    pub async fn template(&self, name: &str) -> Value {
        self.object(crd::Kind::ActorTemplate, name).await
    }

    async fn object(&self, kind: crd::Kind, name: &str) -> Value {
        serde_json::to_value(self.kind(kind).get(name).await.unwrap()).unwrap()
    }

    fn kind(&self, kind: crd::Kind) -> Api<DynamicObject> {
        match kind.is_namespaced() {
            true => Api::namespaced_with(self.client.clone(), SPACE, &kind.api()),
            false => Api::all_with(self.client.clone(), &kind.api()),
        }
    }

    /// The command line, as somebody with all rights.
    pub async fn ate(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = tokio::process::Command::new(binary("ate"));
        command.args(arguments).env("ATE_SERVER", format!("https://{}", self.api.address()));
        command.env("ATE_TOKEN", &self.token).env("ATE_CA_FILE", self.dir.path().join("certs/control/ca.crt"));
        let output = command.env_remove("KUBECONFIG").stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The actor as the API shows it.
    pub async fn actor(&self, name: &str) -> Value {
        let mut shown = Value::Null;
        self.eventually("the API answers", async || match self.ate(&["get", "actor", name, "-o", "json"]).await {
            Ok(text) => {
                shown = serde_json::from_str(&text).unwrap();
                true
            }
            Err(_) => false,
        })
        .await;
        shown
    }

    /// Asked again while nobody leads, or a node is away.
    pub async fn suspend(&self, actor: &str) {
        self.eventually(&format!("{actor} is suspended"), async || {
            self.ate(&["suspend", "actor", actor]).await.is_ok()
        })
        .await;
    }

    /// One request to an actor through the router, whichever replica leads. Tried again while nobody answers it.
    pub async fn count(&self, actor: &str) -> Count {
        let mut found = None;
        self.eventually(&format!("{actor} answers"), async || {
            found = self.try_count(actor).await;
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// What an actor answers through the router. Tried again while nobody answers it.
    pub async fn ask(&self, actor: &str, path: &'static str) -> String {
        let (host, address) = (host(actor), self.router.address());
        let mut said = String::new();
        self.eventually(&format!("{actor} answers"), async || {
            let host = host.clone();
            let asked = tokio::task::spawn_blocking(move || http::get(address, &host, path, ANSWER)).await.unwrap();
            let answer = asked.ok().filter(|a| a.status == 200);
            answer.map(|a| said = a.body).is_some()
        })
        .await;
        said
    }

    async fn try_count(&self, actor: &str) -> Option<Count> {
        self.count_at(self.router.address(), actor).await
    }

    /// One request to whoever is there, past the router.
    pub async fn count_at(&self, address: SocketAddr, actor: &str) -> Option<Count> {
        let host = host(actor);
        let asked = tokio::task::spawn_blocking(move || http::get(address, &host, "/", ANSWER)).await.unwrap();
        let answer = asked.ok().filter(|a| a.status == 200)?;
        let boot = answer.body.split_whitespace().find_map(|w| w.strip_prefix("boot="))?.to_owned();
        Some(Count { count: counted(&answer.body)?, boot })
    }

    /// Worker pods that are not being deleted.
    pub async fn worker_pods(&self) -> Vec<Pod> {
        let pods = self.pods().list(&ListParams::default().labels("ate.dev/worker-pool=pool")).await.unwrap();
        pods.items.into_iter().filter(|p| p.metadata.deletion_timestamp.is_none()).collect()
    }

    /// As an eviction does.
    pub async fn delete_pod(&self, name: &str) {
        self.pods().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The pod an actor is in.
    pub async fn pod_of(&self, actor: &str) -> Pod {
        let worker = self.actor(actor).await["status"]["worker"].as_str().expect("it runs").to_owned();
        let pods = self.worker_pods().await;
        pods.into_iter().find(|p| worker.contains(&p.uid().unwrap())).expect("the pod of the worker")
    }

    /// The worker of a pod, as the API shows it.
    pub async fn worker_in(&self, pod: &Pod) -> Option<Value> {
        let listed: Value = serde_json::from_str(&self.ate(&["get", "workers", "-o", "json"]).await.ok()?).ok()?;
        let of_pod = |w: &&Value| w["metadata"]["name"].as_str().is_some_and(|n| n.contains(&pod.uid().unwrap()));
        listed["items"].as_array()?.iter().find(of_pod).cloned()
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), SPACE)
    }

    /// The replica that leads.
    pub async fn leader(&self) -> usize {
        let mut leader = None;
        self.eventually("somebody leads", async || {
            leader = self.api.target();
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    pub fn control(&mut self, n: usize) -> &mut Container {
        &mut self.controls[n]
    }

    /// The agent of a node.
    pub fn node(&mut self, name: &str) -> &mut Container {
        let n: usize = name.strip_prefix("node-").and_then(|n| n.parse().ok()).expect("a node");
        &mut self.nodes[n]
    }

    /// New certificates for everybody, of a new authority: after the last step nobody believes the ones before. Nobody is told.
    pub async fn rotate(&self) {
        for _step in ["the new one is believed too", "it signs", "the old one is not believed any more"] {
            certificates(self.dir.path(), &["--replace-ca"]);
            tokio::task::block_in_place(|| apply_certificates(&self.kubeconfig, self.dir.path()));
            for secret in &self.secrets {
                secret.refresh(&self.client, SYSTEM).await;
            }
        }
    }

    /// Waits until something holds; fails with what the servers said last.
    pub async fn eventually(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + LONG;
        while !holds().await {
            if Instant::now() > end {
                panic!("not within {LONG:?}: {what}\n{}", self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the servers said last.
    pub fn last_words(&self) -> String {
        let logs = self.controls.iter().chain(&self.nodes).map(Container::last_words);
        logs.collect::<Vec<_>>().join("\n")
    }
}

async fn names<K>(api: Api<K>) -> Vec<String>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + Resource,
{
    let found = api.list(&ListParams::default()).await.unwrap().items;
    found.iter().filter(|o| o.meta().deletion_timestamp.is_none()).map(ResourceExt::name_any).collect()
}
