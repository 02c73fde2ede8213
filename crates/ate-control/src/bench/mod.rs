//! How fast the control plane alone is: gRPC over a unix socket, the durable embedded store, a node agent that does
//! nothing. Says nothing about sandboxes, and is built only with the feature `bench`.

mod load;
mod node;
mod preload;
mod usage;

pub use node::IdleNode;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_api::{
    Error, Reason,
    id::Digest,
    v1::{self, resources_client::ResourcesClient},
};
use ate_sandbox::{AssetRequirement, ClassDescriptor, HostNeeds, Registry, host::arch, registry::Herder};
use ate_store::Store;
use serde::Serialize;
use serde_json::json;
use tonic::transport::{Channel, Endpoint};

use crate::{Control, NoTraffic, Options};

/// What is measured.
#[derive(Debug, Clone)]
pub struct Load {
    /// Actors in the store, each suspended with a snapshot of its own.
    pub actors: usize,
    /// Callers at once, each resuming and suspending one actor after the other.
    pub concurrency: usize,
    pub warm_up: Duration,
    pub duration: Duration,
}

#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    pub actors: usize,
    pub concurrency: usize,
    pub cycles: usize,
    pub cycles_per_s: f64,
    pub resume_p50_ms: f64,
    pub resume_p95_ms: f64,
    pub suspend_p50_ms: f64,
    pub suspend_p95_ms: f64,
    pub preload_s: f64,
}

const CLASS: &str = "bench";
const ASSET: &str = "binary";
const CONTRACT: u32 = 1;

/// A control plane over an empty store, served in `dir`, with a pool and a template that is ready.
struct Served {
    control: Control,
    url: String,
    template: ate_api::id::ObjectName,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Served {
    async fn start(workers: usize, store: Arc<dyn Store>, dir: &Path) -> Result<Served, Error> {
        let options =
            Options { tick: Duration::from_secs(1), collect_interval: Duration::from_secs(3600), ..Options::default() };
        let node = Arc::new(node::IdleNode::new(workers));
        let control = Control::start(options, store, node, Arc::new(NoTraffic), registry()?).await?;
        let socket = dir.join("bench.sock");
        let listener = tokio::net::UnixListener::bind(&socket).map_err(|e| broken(&e))?;
        let routes = control.services().await;
        let server = tokio::spawn(async move {
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming).await
        });
        let url = format!("unix:{}", socket.display());
        let template = set_up(&url, workers).await?;
        Ok(Served { control, url, template, server })
    }

    fn stop(self) {
        self.control.stop();
        self.server.abort();
    }
}

/// Runs one load against an empty store. The socket of the server is made in `dir`.
///
/// # Errors
/// Whatever the control plane answers that is not a success.
pub async fn run(load: &Load, store: Arc<dyn Store>, dir: &Path) -> Result<Figures, Error> {
    let served = Served::start(load.concurrency * 2, store, dir).await?;
    let started = Instant::now();
    preload::actors(&served.control.core, &served.template, load.actors).await?;
    let preload_s = started.elapsed().as_secs_f64();
    let figures = load::run(load, &served.url, preload_s).await;
    served.stop();
    figures
}

/// Asks `samples` times who uses a binary that `actors` suspended actors need, and says how long each answer took.
///
/// # Errors
/// Whatever the control plane answers that is not a success, or not the truth.
pub async fn usage(actors: usize, samples: usize, store: Arc<dyn Store>, dir: &Path) -> Result<Vec<Duration>, Error> {
    let served = Served::start(2, store, dir).await?;
    preload::actors(&served.control.core, &served.template, actors).await?;
    let times = usage::run(&served.url, actors, samples).await;
    served.stop();
    times
}

fn registry() -> Result<Registry, Error> {
    let descriptor = ClassDescriptor {
        name: CLASS.to_owned(),
        driver_name: "none".to_owned(),
        driver_version: "0".to_owned(),
        contract_version: CONTRACT,
        required_assets: vec![AssetRequirement {
            name: ASSET.to_owned(),
            media_types: vec![ate_sandbox::asset::PLAIN.to_owned()],
            description: "nothing".to_owned(),
            found_on_path_as: String::new(),
        }],
        config: Default::default(),
        host_needs: HostNeeds::default(),
        image_format: Default::default(),
        isolation: Default::default(),
    };
    Registry::of([Herder { descriptor, program: "none".into() }], CONTRACT).map_err(|e| broken(&e))
}

/// What all actors run under.
fn binary() -> Digest {
    Digest::of(ASSET.as_bytes())
}

/// Configuration, pool, atespace and template, until the template is ready.
async fn set_up(url: &str, workers: usize) -> Result<ate_api::id::ObjectName, Error> {
    let channel = connect(url).await?;
    let mut resources = ResourcesClient::new(channel);
    let head =
        |kind: &str, name: &str| json!({"apiVersion": "ate.dev/v1alpha1", "kind": kind, "metadata": {"name": name}});
    let with = |mut object: serde_json::Value, spec: serde_json::Value| {
        object["spec"] = spec;
        object
    };
    let objects = [
        with(
            head("SandboxConfig", CLASS),
            json!({"sandboxClass": CLASS, "default": true,
            "assets": {arch(): {ASSET: {"url": "file:///none", "sha256": binary()}}}}),
        ),
        with(head("WorkerPool", "pool"), json!({"replicas": workers, "ateomImage": "none", "sandboxClass": CLASS})),
        with(head("Atespace", "bench"), json!({})),
        with(
            head("ActorTemplate", "bench"),
            json!({"containers": [{"name": "app", "image": "oci:/none"}], "snapshotsConfig": {"location": "default"},
                "sandboxClass": CLASS, "idleTimeout": "0"}),
        ),
    ];
    for object in objects {
        let request = v1::ApplyRequest { json: object.to_string().into_bytes(), dry_run: false };
        resources.apply(request).await.map_err(|s| Error::from(&s))?;
    }
    let reference = v1::ObjectRef { kind: "ActorTemplate".into(), namespace: "default".into(), name: "bench".into() };
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let object = resources.get(reference.clone()).await.map_err(|s| Error::from(&s))?.into_inner();
        let object: serde_json::Value = serde_json::from_slice(&object.json).map_err(|e| broken(&e))?;
        if object["status"]["phase"] == "Ready" {
            return Ok(ate_api::id::ObjectName::new("default", "bench"));
        }
        if Instant::now() > end {
            return Err(Error::new(Reason::TemplateNotReady, object["status"].to_string()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn connect(url: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::try_from(url.to_owned()).map_err(|e| broken(&e))?;
    endpoint.connect().await.map_err(|e| broken(&e))
}

fn broken(e: &dyn std::fmt::Display) -> Error {
    Error::new(Reason::Internal, e.to_string())
}
