//! What the tests of this crate share.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod node;
pub mod pods;
pub mod table;
pub mod world;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ate_control::{Control, NoTraffic, Options, bench::IdleNode};
use ate_kube::{crd, policy};
use ate_sandbox::Registry;
use ate_store::EmbeddedStore;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The classes whose herders lie beside the tests, as cargo builds them.
pub fn classes() -> Registry {
    let exe = std::env::current_exe().unwrap();
    let programs: PathBuf = exe.ancestors().nth(2).unwrap().into();
    let (classes, errors) = Registry::discover(&[programs], ateom::CONTRACT_VERSION);
    let found: Vec<_> = classes.classes().map(|h| h.descriptor.name.as_str()).collect();
    assert!(found.contains(&"gvisor") && found.contains(&"microvm"), "build the herders first: {found:?} {errors:?}");
    classes
}

/// Those that are part of the product; beside them may lie the herder of an example.
pub fn own_classes(classes: &Registry) -> impl Iterator<Item = &ate_sandbox::ClassDescriptor> {
    ["gvisor", "microvm"].into_iter().map(|name| &classes.get(name).unwrap().descriptor)
}

/// A control plane over an empty store and a node without a machine.
pub async fn control(dir: &Path) -> Control {
    let store = Arc::new(EmbeddedStore::open(dir.join("store")).unwrap());
    let node = Arc::new(IdleNode::new(16));
    Control::start(Options::default(), store, node, Arc::new(NoTraffic), classes()).await.unwrap()
}

/// The API of a control plane, on a socket in this directory.
pub async fn serve(control: &Control, dir: &Path) -> Channel {
    let socket = dir.join("api.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let routes = control.services().await;
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    tokio::spawn(tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming));
    Endpoint::from_shared(format!("unix:{}", socket.display())).unwrap().connect().await.unwrap()
}

/// The documents of a kind in a file of the installation.
pub fn manifests<T: DeserializeOwned>(file: &str, kind: &str) -> Vec<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let documents = text.split("\n---\n").map(|d| serde_saphyr::from_str::<Value>(d).unwrap());
    documents.filter(|d| d["kind"] == kind).map(|d| T::deserialize(d).unwrap()).collect()
}

/// Applies CRDs and policies, and returns once both are in force.
pub async fn install(client: &Client) {
    let mut objects: Vec<Value> = crd::Kind::ALL.map(crd::Kind::definition).into();
    objects.extend(policy::all(own_classes(&classes())));
    for object in objects {
        apply(client, object).await;
    }
    for kind in crd::Kind::ALL {
        let objects: Api<DynamicObject> = Api::all_with(client.clone(), &kind.api());
        eventually("the kinds are served", async || objects.list(&Default::default()).await.is_ok()).await;
    }
    // A policy comes into force some time after it was written.
    let mut refused = table::config();
    refused["metadata"]["name"] = "refused-by-policy".into();
    refused["spec"]["assets"] = serde_json::json!({});
    eventually("the policies are in force", async || create(client, &refused, true).await.is_err()).await;
}

pub async fn apply(client: &Client, object: Value) -> DynamicObject {
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let name = object.metadata.name.clone().unwrap();
    let api = api_of(client, &object);
    let params = PatchParams::apply("test").force();
    api.patch(&name, &params, &Patch::Apply(&object)).await.unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn api_of(client: &Client, object: &DynamicObject) -> Api<DynamicObject> {
    let types = object.types.clone().unwrap();
    let gvk = GroupVersionKind::try_from(&types).unwrap();
    let resource = ApiResource::from_gvk(&gvk);
    match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

fn path_of(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap();
    let api = crd::Kind::ALL.into_iter().find(|k| k.name() == kind).unwrap().api();
    let space = object["metadata"]["namespace"].as_str().map_or(String::new(), |ns| format!("/namespaces/{ns}"));
    format!("/apis/{}/{}{space}/{}", crd::GROUP, crd::VERSION, api.plural)
}

/// As `kubectl create` does: unknown fields are errors.
pub async fn create(client: &Client, object: &Value, dry_run: bool) -> Result<Value, kube::Error> {
    let dry_run = if dry_run { "&dryRun=All" } else { "" };
    let request = http::Request::post(format!("{}?fieldValidation=Strict{dry_run}", path_of(object)))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    client.request(request).await
}

pub async fn replace(client: &Client, object: &Value, dry_run: bool) -> Result<Value, kube::Error> {
    let dry_run = if dry_run { "&dryRun=All" } else { "" };
    let name = object["metadata"]["name"].as_str().unwrap();
    let request = http::Request::put(format!("{}/{name}?fieldValidation=Strict{dry_run}", path_of(object)))
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    client.request(request).await
}

/// Waits until something holds, or fails the test.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = std::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(std::time::Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
