//! A control plane over the real embedded store, served over a unix socket and loopback TCP, with the scripted node.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ate_agent::NodeAgent;
use ate_api::{
    Error,
    ateapi::{self, actor::Status as Phase, control_client::ControlClient},
    id::ActorName,
    resource::Explanation,
    v1::{self, choices_client::ChoicesClient, resources_client::ResourcesClient, tokens_client::TokensClient},
};
use ate_control::{Control, NoTraffic, Options};
use ate_fleet::Fleet;
use ate_sandbox::{
    AssetRequirement, ClassDescriptor, ConfigField, FieldType, HostNeeds, Isolation, Registry, registry::Herder,
};
use ate_store::{EmbeddedStore, PostgresStore, Store};
use serde_json::{Value, json};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::{
    node::{Script, State},
    store::{TroubledStore, Troubles},
};

/// Nothing in these tests takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A node that is away for longer is given up.
pub const NODE_LOSS: Duration = Duration::from_millis(1500);

pub struct World {
    pub control: Control,
    /// The first node, or the only one.
    pub node: Script,
    /// All nodes, if there are many as one.
    fleet: Option<Fleet>,
    /// What the store is going to do wrong.
    pub troubles: Troubles,
    pub api: ControlClient<Face>,
    pub resources: ResourcesClient<Face>,
    pub choices: ChoicesClient<Face>,
    /// For further services.
    pub face: Face,
    /// The same server over TCP, where nobody is known by their user.
    tcp: std::net::SocketAddr,
    channel: Channel,
    /// The server lives in a runtime of its own, which can be killed; or which ends by itself.
    process: Process,
    dir: Arc<tempfile::TempDir>,
    options: Options,
}

/// A connection, and the token that is shown on it.
pub type Face = InterceptedService<Channel, Token>;

#[derive(Clone, Default)]
pub struct Token(Option<String>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        Ok(request)
    }
}

pub fn options() -> Options {
    Options {
        eviction_grace: Duration::from_millis(50),
        resume_timeout: Duration::from_secs(10),
        activate_timeout: Duration::from_millis(400),
        capture_timeout: Duration::from_millis(400),
        release_timeout: Duration::from_millis(300),
        drain: Duration::from_millis(100),
        golden_backoff: Duration::from_millis(50),
        golden_timeout: Duration::from_secs(5),
        tick: Duration::from_millis(20),
        ..Options::default()
    }
}

/// Contract version of the scripted class.
const CONTRACT: u32 = 1;

/// Two classes that differ in nothing but their names, and one that is no sandbox.
pub fn classes() -> Registry {
    let mut open = class("open");
    open.descriptor.required_assets.clear();
    open.descriptor.isolation = Isolation::None;
    Registry::of([class("gvisor"), class("other"), open], CONTRACT).unwrap()
}

fn class(name: &str) -> Herder {
    let descriptor = ClassDescriptor {
        name: name.into(),
        driver_name: "scripted".into(),
        driver_version: "0".into(),
        contract_version: CONTRACT,
        required_assets: vec![AssetRequirement {
            name: "runsc".into(),
            media_types: vec!["application/octet-stream".into()],
            description: "the binary".into(),
            found_on_path_as: String::new(),
        }],
        config: BTreeMap::from([(
            "debug".to_owned(),
            ConfigField { r#type: FieldType::Boolean, default: json!(false), description: "say more".into() },
        )]),
        host_needs: HostNeeds::default(),
        image_format: Default::default(),
        isolation: Default::default(),
    };
    Herder { descriptor, program: format!("/nonexistent/ateom-{name}").into() }
}

/// The object, for another class than the default one.
pub fn of_class(mut object: Value, class: &str) -> Value {
    object["spec"]["sandboxClass"] = class.into();
    object
}

pub fn sandbox_config(name: &str, byte: char, default: bool) -> Value {
    let sha256: String = std::iter::repeat_n(byte, 64).collect();
    json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "SandboxConfig", "metadata": {"name": name},
        "spec": {"sandboxClass": "gvisor", "default": default,
            "assets": {"amd64": {"runsc": {"url": "file:///runsc", "sha256": sha256}}}}
    })
}

pub fn pool(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "ateomImage": "unused"}
    })
}

pub fn template(name: &str) -> Value {
    json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "ActorTemplate", "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "app", "image": "oci:/images/app"}], "snapshotsConfig": {"location": "default"},
            "idleTimeout": "0"}
    })
}

pub fn atespace(name: &str) -> Value {
    json!({"apiVersion": "ate.dev/v1alpha1", "kind": "Atespace", "metadata": {"name": name}})
}

/// Waits until something holds, or fails the test.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl World {
    /// Nothing applied yet.
    pub async fn empty(options: Options) -> World {
        World::open(options, Arc::new(tempfile::tempdir().unwrap()), Nodes::One(Script::new())).await
    }

    /// As [`World::ready`], with many nodes as one, where workers outlive the control plane.
    pub async fn cluster(options: Options, workers: u32, nodes: Vec<Script>) -> World {
        let w = World::open(options, Arc::new(tempfile::tempdir().unwrap()), Nodes::Many(nodes)).await;
        w.set_up(workers).await;
        w
    }

    /// The control plane is gone, suddenly; another one starts over the same store, and is told of these nodes.
    pub async fn replace_control(self, nodes: Vec<Script>) -> World {
        self.kill();
        let (dir, options) = (self.dir.clone(), self.options.clone());
        drop(self);
        let path = dir.path().join("store");
        eventually("the store is free", async || EmbeddedStore::open(&path).is_ok()).await;
        World::open(options, dir, Nodes::Many(nodes)).await
    }

    /// A node registers.
    pub fn join(&self, node: &Script) {
        self.fleet.as_ref().expect("many nodes").join(Arc::new(node.clone()));
    }

    /// A default configuration, a pool, the atespace and the template `counter`, ready.
    pub async fn ready(options: Options, workers: u32) -> World {
        World::ready_with(options, workers, |_| ()).await
    }

    /// As [`World::ready`], with a node that is set up first.
    pub async fn ready_with(options: Options, workers: u32, set_up: impl FnOnce(&mut State)) -> World {
        let w = World::empty(options).await;
        w.node.with(set_up);
        w.set_up(workers).await;
        w
    }

    pub async fn set_up(&self, workers: u32) {
        self.apply(sandbox_config("gvisor-default", 'a', true)).await.unwrap();
        self.apply(pool("pool", workers)).await.unwrap();
        self.apply(atespace("default")).await.unwrap();
        self.apply(template("counter")).await.unwrap();
        self.template_ready("counter").await;
    }

    async fn open(options: Options, dir: Arc<tempfile::TempDir>, nodes: Nodes) -> World {
        let path = dir.path().join("store");
        let store = async move { Arc::new(EmbeddedStore::open(path).unwrap()) as Arc<dyn Store> };
        World::serve(options, dir, nodes, Process::new(), store).await
    }

    /// One of several control planes over a database: waits until it leads, and ends when it does not any more.
    pub async fn leading(options: Options, url: String, holder: &'static str, node: Script) -> World {
        let process = Process::new();
        let ends = process.clone();
        let store = async move {
            let store = PostgresStore::connect(&url).await.unwrap();
            let (store, lease) = store.lead(holder).await.unwrap();
            let leads = tokio::runtime::Handle::current();
            std::thread::spawn(move || {
                leads.block_on(lease.lost());
                ends.kill();
            });
            Arc::new(store) as Arc<dyn Store>
        };
        World::serve(options, Arc::new(tempfile::tempdir().unwrap()), Nodes::One(node), process, store).await
    }

    async fn serve(
        options: Options,
        dir: Arc<tempfile::TempDir>,
        nodes: Nodes,
        process: Process,
        store: impl Future<Output = Arc<dyn Store>> + Send + 'static,
    ) -> World {
        let troubles = Troubles::default();
        let trouble = troubles.clone();
        let (node, with) = (nodes.first(), options.clone());
        let socket = dir.path().join("api.sock");
        let at = socket.clone();
        let served = process.spawn(async move {
            let store = Arc::new(TroubledStore(store.await, trouble));
            let (agent, fleet) = nodes.agent();
            let control = Control::start(with, store, agent, Arc::new(NoTraffic), classes()).await.unwrap();
            let _ = std::fs::remove_file(&at);
            let unix = tokio::net::UnixListener::bind(at).unwrap();
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = tcp.local_addr().unwrap();
            let server = tonic::transport::Server::builder().add_routes(control.services().await);
            let unix = tokio_stream::wrappers::UnixListenerStream::new(unix);
            let tcp = tokio_stream::wrappers::TcpListenerStream::new(tcp);
            tokio::spawn(server.clone().serve_with_incoming(unix));
            tokio::spawn(server.serve_with_incoming(tcp));
            (control, address, fleet)
        });
        let (control, tcp, fleet) = served.await.unwrap();
        let url = format!("unix:{}", socket.display());
        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        World::over(channel, Token::default(), control, (node, fleet), troubles, tcp, process, dir, options)
    }

    #[expect(clippy::too_many_arguments, reason = "all of them are fields")]
    fn over(
        channel: Channel,
        token: Token,
        control: Control,
        (node, fleet): (Script, Option<Fleet>),
        troubles: Troubles,
        tcp: std::net::SocketAddr,
        process: Process,
        dir: Arc<tempfile::TempDir>,
        options: Options,
    ) -> World {
        let face = InterceptedService::new(channel.clone(), token);
        let (api, resources) = (ControlClient::new(face.clone()), ResourcesClient::new(face.clone()));
        let choices = ChoicesClient::new(face.clone());
        World { control, node, fleet, troubles, api, resources, choices, face, tcp, channel, process, dir, options }
    }

    /// The same world as somebody else sees it: whoever this token makes them.
    pub fn acting(&self, token: &str) -> World {
        self.through(self.channel.clone(), Some(token))
    }

    /// The same over TCP.
    pub async fn over_tcp(&self, token: Option<&str>) -> World {
        let channel = Endpoint::from_shared(format!("http://{}", self.tcp)).unwrap().connect().await.unwrap();
        self.through(channel, token)
    }

    fn through(&self, channel: Channel, token: Option<&str>) -> World {
        let token = Token(token.map(str::to_owned));
        let (control, troubles) = (self.control.clone(), self.troubles.clone());
        World::over(
            channel,
            token,
            control,
            (self.node.clone(), self.fleet.clone()),
            troubles,
            self.tcp,
            Process::none(),
            self.dir.clone(),
            self.options.clone(),
        )
    }

    /// What `ate token create` does: a token of a role, in some atespaces and the namespace `default`.
    pub async fn token(&self, name: &str, role: &str, atespaces: &[&str]) -> Result<String, Error> {
        self.token_for(name, role, atespaces, 0).await
    }

    pub async fn token_for(&self, name: &str, role: &str, spaces: &[&str], ttl: u64) -> Result<String, Error> {
        let request = v1::CreateTokenRequest {
            name: name.into(),
            role: role.into(),
            atespaces: spaces.iter().map(|s| s.to_string()).collect(),
            ttl_seconds: ttl,
            ..Default::default()
        };
        let made = TokensClient::new(self.face.clone()).create(request).await;
        made.map(|t| t.into_inner().secret).map_err(|s| Error::from(&s))
    }

    /// The whole process dies and starts again: new control plane over the same store, a node without workers.
    pub async fn restart(self) -> World {
        self.restart_after(async |_| ()).await
    }

    /// The process dies as by `kill -9`.
    pub fn kill(&self) {
        self.process.kill();
    }

    pub fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// As [`World::restart`], with something done to the store in between.
    pub async fn restart_after(self, change: impl AsyncFnOnce(&EmbeddedStore)) -> World {
        self.kill();
        let (dir, options, old) = (self.dir.clone(), self.options.clone(), self.node.clone());
        drop(self);
        // The store is free once the last task of the dead process is gone.
        let path = dir.path().join("store");
        eventually("the store is free", async || EmbeddedStore::open(&path).is_ok()).await;
        change(&EmbeddedStore::open(&path).unwrap()).await;
        let node = Script::new();
        node.take_storage(&old);
        let revoked = old.with(|s| s.revoked.clone());
        node.with(|s| s.revoked = revoked);
        let able = old.with(|s| (s.capabilities.clone(), s.differences));
        node.with(|s| (s.capabilities, s.differences) = able);
        World::open(options, dir, Nodes::One(node)).await
    }

    pub async fn apply(&self, object: Value) -> Result<v1::ApplyResponse, Error> {
        let request = v1::ApplyRequest { json: object.to_string().into_bytes(), dry_run: false };
        let answer = self.resources.clone().apply(request).await;
        answer.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
    }

    pub async fn get(&self, kind: &str, name: &str) -> Result<Value, Error> {
        let namespace = if matches!(kind, "SandboxConfig" | "Atespace" | "Token") { "" } else { "default" };
        self.get_in(kind, namespace, name).await
    }

    pub async fn get_in(&self, kind: &str, namespace: &str, name: &str) -> Result<Value, Error> {
        let r = v1::ObjectRef { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        let answer = self.resources.clone().get(r).await.map_err(|s| Error::from(&s))?;
        Ok(serde_json::from_slice(&answer.into_inner().json).unwrap())
    }

    pub async fn set_default_class(&self, class: &str, atespace: &str) -> Result<v1::SetDefaultResponse, Error> {
        let request = v1::SetDefaultClassRequest { sandbox_class: class.into(), atespace: atespace.into() };
        let answer = self.choices.clone().set_default_class(request).await;
        answer.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
    }

    pub async fn set_default_config(&self, name: &str) -> Result<v1::SetDefaultResponse, Error> {
        let request = v1::SetDefaultConfigRequest { name: name.into() };
        let answer = self.choices.clone().set_default_config(request).await;
        answer.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
    }

    pub async fn explain(&self, kind: &str, name: &str) -> Result<Explanation, Error> {
        let r = v1::ObjectRef { kind: kind.into(), namespace: "default".into(), name: name.into() };
        let answer = self.choices.clone().explain(r).await.map_err(|s| Error::from(&s))?;
        Ok(serde_json::from_slice(&answer.into_inner().json).unwrap())
    }

    pub async fn list(&self, kind: &str) -> Vec<Value> {
        self.list_in(kind, "").await.unwrap()
    }

    /// All pages, of one object each, so that page tokens are tried too.
    pub async fn list_in(&self, kind: &str, namespace: &str) -> Result<Vec<Value>, Error> {
        let mut found = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListRequest { kind: kind.into(), namespace: namespace.into(), page_size: 1, page_token };
            let page = self.resources.clone().list(request).await.map_err(|s| Error::from(&s))?.into_inner();
            found.extend(page.objects.iter().map(|o| serde_json::from_slice::<Value>(&o.json).unwrap()));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(found);
            }
        }
    }

    pub async fn delete(&self, kind: &str, name: &str) -> Result<(), Error> {
        self.delete_with(kind, name, false).await
    }

    pub async fn delete_with(&self, kind: &str, name: &str, force: bool) -> Result<(), Error> {
        let namespace = if matches!(kind, "SandboxConfig" | "Atespace" | "Asset" | "Token") { "" } else { "default" };
        let r = v1::ObjectRef { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        let answer = self.resources.clone().delete(v1::DeleteRequest { r#ref: Some(r), force }).await;
        answer.map(drop).map_err(|s| Error::from(&s))
    }

    pub async fn template_ready(&self, name: &str) {
        eventually("template ready", async || {
            self.get("ActorTemplate", name).await.unwrap()["status"]["phase"] == "Ready"
        })
        .await;
    }

    /// Its workers take actors under this revision.
    pub async fn pool_runs(&self, revision: &str) {
        eventually("the pool to run the revision", async || {
            let status = self.get("WorkerPool", "pool").await.unwrap()["status"].clone();
            let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
            status["sandboxConfig"] == revision && status["conditions"].as_array().is_some_and(|c| c.iter().any(ready))
        })
        .await;
    }

    pub async fn create(&self, name: &str) -> Result<ateapi::Actor, Error> {
        self.create_from("default", name, "counter").await
    }

    pub async fn create_from(&self, atespace: &str, name: &str, template: &str) -> Result<ateapi::Actor, Error> {
        let request = ateapi::CreateActorRequest {
            actor_ref: reference(atespace, name),
            actor_template_namespace: "default".into(),
            actor_template_name: template.into(),
            worker_selector: None,
        };
        let answer = self.api.clone().create_actor(request).await;
        answer.map(|a| a.into_inner().actor.unwrap()).map_err(|s| Error::from(&s))
    }

    pub async fn resume(&self, name: &str) -> Result<ateapi::Actor, Error> {
        self.resume_in("default", name, false).await
    }

    pub async fn resume_in(&self, atespace: &str, name: &str, boot: bool) -> Result<ateapi::Actor, Error> {
        let request = ateapi::ResumeActorRequest { actor_ref: reference(atespace, name), boot };
        let answer = self.api.clone().resume_actor(request).await;
        answer.map(|a| a.into_inner().actor.unwrap()).map_err(|s| Error::from(&s))
    }

    pub async fn resume_within(&self, name: &str, time: Duration) -> Result<ateapi::Actor, Error> {
        let mut request =
            tonic::Request::new(ateapi::ResumeActorRequest { actor_ref: reference("default", name), boot: false });
        request.set_timeout(time);
        let answer = self.api.clone().resume_actor(request).await;
        answer.map(|a| a.into_inner().actor.unwrap()).map_err(|s| Error::from(&s))
    }

    pub async fn suspend(&self, name: &str) -> Result<ateapi::Actor, Error> {
        let request = ateapi::SuspendActorRequest { actor_ref: reference("default", name) };
        let answer = self.api.clone().suspend_actor(request).await;
        answer.map(|a| a.into_inner().actor.unwrap()).map_err(|s| Error::from(&s))
    }

    pub async fn pause(&self, name: &str) -> Result<ateapi::Actor, Error> {
        let request = ateapi::PauseActorRequest { actor_ref: reference("default", name) };
        let answer = self.api.clone().pause_actor(request).await;
        answer.map(|a| a.into_inner().actor.unwrap()).map_err(|s| Error::from(&s))
    }

    pub async fn remove(&self, name: &str) -> Result<(), Error> {
        let request = ateapi::DeleteActorRequest { actor_ref: reference("default", name) };
        self.api.clone().delete_actor(request).await.map(drop).map_err(|s| Error::from(&s))
    }

    pub async fn actor(&self, name: &str) -> Result<ateapi::Actor, Error> {
        let request = ateapi::GetActorRequest { actor_ref: reference("default", name) };
        let answer = self.api.clone().get_actor(request).await;
        answer.map(|a| a.into_inner().actor.unwrap()).map_err(|s| Error::from(&s))
    }

    pub async fn phase_becomes(&self, name: &str, phase: Phase) {
        eventually("phase", async || self.actor(name).await.unwrap().status() == phase).await;
    }

    /// Every worker is idle again, here and on the node (I3).
    pub async fn all_workers_free(&self) {
        eventually("every worker free", async || {
            let free = self.list("Worker").await.iter().all(|w| w["status"]["phase"] == "Free");
            free && self.node.seated().is_empty()
        })
        .await;
    }
}

pub fn reference(atespace: &str, name: &str) -> Option<ateapi::ActorRef> {
    Some(ateapi::ActorRef { atespace: atespace.into(), name: name.into() })
}

pub fn name(name: &str) -> ActorName {
    ActorName::new("default", name)
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a control plane starts with.
pub enum Nodes {
    One(Script),
    Many(Vec<Script>),
}

impl Nodes {
    fn first(&self) -> Script {
        match self {
            Nodes::One(node) => node.clone(),
            Nodes::Many(nodes) => nodes[0].clone(),
        }
    }

    /// In the process that is to use them.
    fn agent(self) -> (Arc<dyn NodeAgent>, Option<Fleet>) {
        match self {
            Nodes::One(node) => (Arc::new(node), None),
            Nodes::Many(nodes) => {
                let fleet = Fleet::new(NODE_LOSS);
                nodes.into_iter().for_each(|node| fleet.join(Arc::new(node)));
                (Arc::new(fleet.clone()), Some(fleet))
            }
        }
    }
}

/// What stands for the process of a server: all its tasks are gone at once.
#[derive(Clone)]
pub struct Process(Arc<Mutex<Option<tokio::runtime::Runtime>>>);

impl Process {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Process(Arc::new(Mutex::new(Some(runtime))))
    }

    /// The same server through other eyes has none of its own.
    fn none() -> Self {
        Process(Arc::default())
    }

    fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
        self.0.lock().unwrap().as_ref().unwrap().spawn(task)
    }

    fn kill(&self) {
        if let Some(runtime) = self.0.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }

    fn has_ended(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }
}
