//! A control plane over the real embedded store, served over loopback TCP, with the scripted node.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_api::{
    Error,
    ateapi::{self, actor::Status as Phase, control_client::ControlClient},
    id::ActorName,
    v1::{self, resources_client::ResourcesClient},
};
use ate_control::{Control, NoTraffic, Options};
use ate_sandbox::{
    AssetRequirement, ClassDescriptor, ConfigField, FieldType, HostNeeds, Isolation, Registry, registry::Herder,
};
use ate_store::EmbeddedStore;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::node::{Script, State};

/// Nothing in these tests takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub control: Control,
    pub node: Script,
    pub api: ControlClient<Channel>,
    pub resources: ResourcesClient<Channel>,
    /// The server lives in a runtime of its own, which can be killed.
    process: Option<tokio::runtime::Runtime>,
    dir: Arc<tempfile::TempDir>,
    options: Options,
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
        World::open(options, Arc::new(tempfile::tempdir().unwrap()), Script::new()).await
    }

    /// A default configuration, a pool, the atespace and the template `counter`, ready.
    pub async fn ready(options: Options, workers: u32) -> World {
        World::ready_with(options, workers, |_| ()).await
    }

    /// As [`World::ready`], with a node that is set up first.
    pub async fn ready_with(options: Options, workers: u32, set_up: impl FnOnce(&mut State)) -> World {
        let w = World::empty(options).await;
        w.node.with(set_up);
        w.apply(sandbox_config("gvisor-default", 'a', true)).await.unwrap();
        w.apply(pool("pool", workers)).await.unwrap();
        w.apply(atespace("default")).await.unwrap();
        w.apply(template("counter")).await.unwrap();
        w.template_ready("counter").await;
        w
    }

    async fn open(options: Options, dir: Arc<tempfile::TempDir>, node: Script) -> World {
        let process = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (path, script, with) = (dir.path().join("store"), Arc::new(node.clone()), options.clone());
        let served = process.spawn(async move {
            let store = Arc::new(EmbeddedStore::open(path).unwrap());
            let control = Control::start(with, store, script, Arc::new(NoTraffic), classes()).await.unwrap();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let routes = control.services().await;
            tokio::spawn(async move {
                let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
                tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming).await.unwrap();
            });
            (control, address)
        });
        let (control, address) = served.await.unwrap();
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let api = ControlClient::new(channel.clone());
        let resources = ResourcesClient::new(channel);
        World { control, node, api, resources, process: Some(process), dir, options }
    }

    /// The whole process dies and starts again: new control plane over the same store, a node without workers.
    pub async fn restart(self) -> World {
        self.restart_after(async |_| ()).await
    }

    /// As [`World::restart`], with something done to the store in between.
    pub async fn restart_after(mut self, change: impl AsyncFnOnce(&EmbeddedStore)) -> World {
        self.process.take().unwrap().shutdown_background();
        let (dir, options, old) = (self.dir.clone(), self.options.clone(), self.node.clone());
        drop(self);
        // The store is free once the last task of the dead process is gone.
        let path = dir.path().join("store");
        eventually("the store is free", async || EmbeddedStore::open(&path).is_ok()).await;
        change(&EmbeddedStore::open(&path).unwrap()).await;
        let node = Script::new();
        let kept = old.with(|s| (s.snapshots.clone(), s.highest.clone(), s.bases.clone()));
        node.with(|s| (s.snapshots, s.highest, s.bases) = kept);
        let able = old.with(|s| (s.capabilities.clone(), s.differences));
        node.with(|s| (s.capabilities, s.differences) = able);
        World::open(options, dir, node).await
    }

    pub async fn apply(&self, object: Value) -> Result<v1::ApplyResponse, Error> {
        let request = v1::ApplyRequest { json: object.to_string().into_bytes(), dry_run: false };
        let answer = self.resources.clone().apply(request).await;
        answer.map(tonic::Response::into_inner).map_err(|s| Error::from(&s))
    }

    pub async fn get(&self, kind: &str, name: &str) -> Result<Value, Error> {
        let namespace = if matches!(kind, "SandboxConfig" | "Atespace") { "" } else { "default" };
        self.get_in(kind, namespace, name).await
    }

    pub async fn get_in(&self, kind: &str, namespace: &str, name: &str) -> Result<Value, Error> {
        let r = v1::ObjectRef { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        let answer = self.resources.clone().get(r).await.map_err(|s| Error::from(&s))?;
        Ok(serde_json::from_slice(&answer.into_inner().json).unwrap())
    }

    pub async fn list(&self, kind: &str) -> Vec<Value> {
        let request = v1::ListRequest { kind: kind.into(), ..Default::default() };
        let objects = self.resources.clone().list(request).await.unwrap().into_inner().objects;
        objects.iter().map(|o| serde_json::from_slice(&o.json).unwrap()).collect()
    }

    pub async fn delete(&self, kind: &str, name: &str) -> Result<(), Error> {
        let namespace = if matches!(kind, "SandboxConfig" | "Atespace") { "" } else { "default" };
        let r = v1::ObjectRef { kind: kind.into(), namespace: namespace.into(), name: name.into() };
        let answer = self.resources.clone().delete(v1::DeleteRequest { r#ref: Some(r) }).await;
        answer.map(drop).map_err(|s| Error::from(&s))
    }

    pub async fn template_ready(&self, name: &str) {
        eventually("template ready", async || {
            self.get("ActorTemplate", name).await.unwrap()["status"]["phase"] == "Ready"
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
        if let Some(process) = self.process.take() {
            process.shutdown_background();
        }
    }
}
