//! A cluster as a test sees it: a real API server with our kinds, a real control plane with the controller beside it, and
//! played pods.

use std::{sync::Arc, time::Duration};

use ate_api::{
    ateapi::{self, control_client::ControlClient},
    v1::{self, resources_client::ResourcesClient},
};
use ate_control::{Control, NoTraffic, Options};
use ate_kube::{controller::Controller, crd::Kind};
use ate_kube_harness::Cluster;
use ate_store::EmbeddedStore;
use k8s_openapi::api::{core::v1::Pod, events::v1::Event};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{eventually, node::PodNode, pods, table};

pub const NAMESPACE: &str = "default";

pub struct World {
    pub cluster: Cluster,
    pub client: Client,
    pub control: Control,
    pub node: PodNode,
    pub api: ControlClient<Channel>,
    pub resources: ResourcesClient<Channel>,
    controller: Option<(CancellationToken, JoinHandle<()>)>,
    _kubelet: pods::Kubelet,
    _dir: tempfile::TempDir,
}

impl World {
    /// Nothing declared yet. `None`: there is no API server to be had here.
    pub async fn start() -> Option<World> {
        let cluster = Cluster::start().await?;
        let client = cluster.admin();
        super::install(&client).await;
        let dir = tempfile::tempdir().unwrap();
        let node = PodNode::new();
        let store = Arc::new(EmbeddedStore::open(dir.path().join("store")).unwrap());
        let options = Options { tick: Duration::from_millis(100), ..Options::default() };
        let agent = Arc::new(node.clone());
        let control = Control::start(options, store, agent, Arc::new(NoTraffic), super::classes()).await.unwrap();
        let channel = super::serve(&control, dir.path()).await;
        let kubelet = pods::play(client.clone(), NAMESPACE, node.clone());
        let mut world = World {
            cluster,
            client,
            control,
            node,
            api: ControlClient::new(channel.clone()),
            resources: ResourcesClient::new(channel),
            controller: None,
            _kubelet: kubelet,
            _dir: dir,
        };
        world.start_controller();
        Some(world)
    }

    /// With a configuration, a pool with so many workers, and a template that is ready.
    pub async fn ready(workers: u32) -> Option<World> {
        let world = World::start().await?;
        super::apply(&world.client, config("gvisor-default")).await;
        super::apply(&world.client, pool("pool", workers)).await;
        super::apply(&world.client, template("counter")).await;
        world.template_ready("counter").await;
        let space = v1::ApplyRequest {
            json: json!({"apiVersion": "ate.dev/v1alpha1", "kind": "Atespace", "metadata": {"name": "space"}})
                .to_string()
                .into_bytes(),
            dry_run: false,
        };
        world.resources.clone().apply(space).await.unwrap();
        Some(world)
    }

    pub fn start_controller(&mut self) {
        let stop = CancellationToken::new();
        self.controller = Some((stop.clone(), self.another_controller(stop)));
    }

    pub fn another_controller(&self, stop: CancellationToken) -> JoinHandle<()> {
        let (client, control) = (self.client.clone(), self.control.clone());
        tokio::spawn(async move { Controller::run(client, &control, "ate-control-0", stop).await })
    }

    pub async fn stop_controller(&mut self) {
        let (stop, task) = self.controller.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    fn objects(&self, kind: Kind) -> Api<DynamicObject> {
        match kind.is_namespaced() {
            true => Api::namespaced_with(self.client.clone(), NAMESPACE, &kind.api()),
            false => Api::all_with(self.client.clone(), &kind.api()),
        }
    }

    pub async fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        let found = self.objects(kind).get_opt(name).await.unwrap();
        found.map(|o| serde_json::to_value(o).unwrap())
    }

    /// Its condition of a type as (status, reason), once the object has one.
    pub async fn condition(&self, kind: Kind, name: &str, r#type: &str) -> Option<Value> {
        let object = self.get(kind, name).await?;
        let conditions = object["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|c| c["type"] == r#type)
    }

    pub async fn becomes(&self, kind: Kind, name: &str, r#type: &str, status: &str, reason: &str) -> Value {
        let what = format!("{type} of {name} is {status} because of {reason}");
        let mut last = None;
        let end = std::time::Instant::now() + super::PATIENCE;
        loop {
            let now = self.condition(kind, name, r#type).await;
            match &now {
                Some(c) if c["status"] == status && c["reason"] == reason => return now.unwrap(),
                _ => last = now.or(last),
            }
            assert!(std::time::Instant::now() < end, "not: {what}; it is {last:?}");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    pub async fn template_ready(&self, name: &str) {
        self.becomes(Kind::ActorTemplate, name, "Ready", "True", "GoldenSnapshotReady").await;
    }

    pub async fn patch(&self, kind: Kind, name: &str, change: Value) -> Result<DynamicObject, kube::Error> {
        self.objects(kind).patch(name, &PatchParams::default(), &Patch::Merge(&change)).await
    }

    pub async fn delete(&self, kind: Kind, name: &str) {
        self.objects(kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn is_gone(&self, kind: Kind, name: &str) {
        eventually(&format!("{name} is gone"), async || self.get(kind, name).await.is_none()).await;
    }

    pub fn pod_api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The worker pods of a pool.
    pub async fn pods(&self, pool: &str) -> Vec<Pod> {
        let of_pool = ListParams::default().labels(&format!("ate.dev/worker-pool={pool}"));
        self.pod_api().list(&of_pool).await.unwrap().items
    }

    /// An event on an object gives this reason.
    pub async fn tells(&self, name: &str, reason: &str) {
        let events: Api<Event> = Api::all(self.client.clone());
        eventually(&format!("an event of {name} says {reason}"), async || {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            let of_it = |e: &&Event| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name);
            all.iter().filter(of_it).any(|e| e.reason.as_deref() == Some(reason))
        })
        .await;
    }

    pub async fn is_served(&self) -> bool {
        self.objects(Kind::ActorTemplate).list(&ListParams::default()).await.is_ok()
    }

    pub async fn create(&self, actor: &str) {
        let request = ateapi::CreateActorRequest {
            actor_ref: reference(actor),
            actor_template_namespace: NAMESPACE.into(),
            actor_template_name: "counter".into(),
            worker_selector: None,
        };
        self.api.clone().create_actor(request).await.unwrap();
    }

    pub async fn resume(&self, actor: &str) -> ateapi::Actor {
        let request = ateapi::ResumeActorRequest { actor_ref: reference(actor), boot: false };
        self.api.clone().resume_actor(request).await.unwrap().into_inner().actor.unwrap()
    }

    pub async fn suspend(&self, actor: &str) {
        let request = ateapi::SuspendActorRequest { actor_ref: reference(actor) };
        self.api.clone().suspend_actor(request).await.unwrap();
    }

    pub async fn remove(&self, actor: &str) {
        let request = ateapi::DeleteActorRequest { actor_ref: reference(actor) };
        self.api.clone().delete_actor(request).await.unwrap();
    }

    pub async fn status(&self, actor: &str) -> ateapi::actor::Status {
        let request = ateapi::GetActorRequest { actor_ref: reference(actor) };
        self.api.clone().get_actor(request).await.unwrap().into_inner().actor.unwrap().status()
    }

    /// The object as the control plane's own API shows it.
    pub async fn here(&self, kind: Kind, name: &str) -> Option<Value> {
        let namespace = if kind.is_namespaced() { NAMESPACE } else { "" };
        let r = v1::ObjectRef { kind: kind.name().into(), namespace: namespace.into(), name: name.into() };
        let found = self.resources.clone().get(r).await.ok()?;
        serde_json::from_slice(&found.into_inner().json).ok()
    }

    /// Versions of all our objects: what changes with every write.
    pub async fn versions(&self) -> Vec<Option<String>> {
        let mut versions = Vec::new();
        for kind in Kind::ALL {
            let all = self.objects(kind).list(&ListParams::default()).await.unwrap();
            versions.extend(all.items.iter().map(ResourceExt::resource_version));
        }
        versions
    }
}

fn reference(actor: &str) -> Option<ateapi::ActorRef> {
    Some(ateapi::ActorRef { atespace: "space".into(), name: actor.into() })
}

fn named(mut object: Value, name: &str) -> Value {
    object["metadata"]["name"] = name.into();
    object
}

pub fn config(name: &str) -> Value {
    named(table::config(), name)
}

pub fn pool(name: &str, replicas: u32) -> Value {
    let mut pool = named(table::pool(), name);
    pool["spec"]["replicas"] = replicas.into();
    pool
}

pub fn template(name: &str) -> Value {
    let mut template = named(table::template(), name);
    template["spec"]["idleTimeout"] = "0".into();
    template["spec"]["snapshotsConfig"] = json!({"location": "default"});
    // What the node here cannot do, or the pool has not.
    let without = |object: &mut Value, field: &str| drop(object.as_object_mut().unwrap().remove(field));
    without(&mut template["spec"], "workerSelector");
    without(&mut template["spec"], "volumes");
    without(&mut template["spec"]["containers"][0], "volumeMounts");
    without(&mut template["spec"]["containers"][0], "env");
    template
}
