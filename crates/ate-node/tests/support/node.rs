//! A real node with the real herder and the real runsc, in a directory of its own.
#![allow(dead_code, unreachable_pub)] // each test binary uses a part

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use ate_agent::*;
use ate_api::{
    Error, canonical,
    id::{Activation, ActorName, Digest, ObjectName, Uid, WorkerId},
    resource::template::{ActorTemplateSpec, Scope},
};
use ate_node::{Node, Options, network::Cidr};
use ate_sandbox::{PinnedAsset, SandboxRef, reference::ConfigRef};

/// The machine may be busy with other tests.
pub const LONG: Duration = Duration::from_secs(90);

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

pub fn runsc() -> PathBuf {
    let path = repository().join(".cache/runsc/20240729-bookworm/runsc");
    assert!(path.is_file(), "{} is missing: run script/setup", path.display());
    path.canonicalize().unwrap()
}

/// Where cargo puts the programs of the workspace: two levels above a test's own.
pub fn programs() -> PathBuf {
    let dir = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
    assert!(dir.join("ateom-gvisor").is_file(), "no ateom-gvisor in {}: build the workspace first", dir.display());
    dir
}

/// The example actor's image.
pub fn image() -> &'static str {
    static IMAGE: OnceLock<String> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let output = Command::new(repository().join("script/example-image")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    })
}

pub struct Machine {
    pub dir: tempfile::TempDir,
    pub node: Arc<Node>,
    pub sandbox: SandboxRef,
    pub template: Template,
    pub events: NodeEvents,
    pub workers: BTreeMap<WorkerId, WorkerReport>,
}

impl Machine {
    /// A node with a pool of so many workers, all of them ready.
    pub async fn with_workers(replicas: u32) -> Machine {
        Machine::start(tempfile::tempdir().unwrap()).await.workers_ready(replicas).await
    }

    pub async fn workers_ready(mut self, replicas: u32) -> Machine {
        self.node.set_pool(self.pool(replicas)).await.unwrap();
        self.until(|m| m.ready().len() == replicas as usize).await;
        self
    }

    pub async fn start(dir: tempfile::TempDir) -> Machine {
        let options = options(dir.path());
        Machine::start_with(dir, options, serde_json::json!([])).await
    }

    /// `env`: of the template's container.
    pub async fn start_with(dir: tempfile::TempDir, options: Options, env: serde_json::Value) -> Machine {
        let node = Node::start(options).await.unwrap();
        let sandbox = sandbox(&runsc());
        let template = template(&node, env).await;
        let events = node.events();
        Machine { dir, node, sandbox, template, events, workers: BTreeMap::new() }
    }

    pub fn pool(&self, replicas: u32) -> PoolSpec {
        let name = ObjectName::new("default", "pool");
        PoolSpec { name, labels: BTreeMap::new(), replicas, sandbox: self.sandbox.clone() }
    }

    /// The worker is to be ready for whoever boots from the template.
    pub fn prepare(&self, worker: &WorkerId) -> Prepare {
        Prepare {
            worker: worker.clone(),
            template: self.template.clone(),
            sandbox: self.sandbox.clone(),
            snapshot: None,
            standby: false,
        }
    }

    pub fn ready(&self) -> Vec<WorkerId> {
        self.workers.values().filter(|w| w.phase == WorkerPhase::Ready).map(|w| w.id.clone()).collect()
    }

    /// Takes events in until something holds.
    pub async fn until(&mut self, holds: impl Fn(&Machine) -> bool) {
        let deadline = tokio::time::Instant::now() + LONG;
        while !holds(self) {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await;
            match event.unwrap_or_else(|_| panic!("not in time; workers: {:?}", self.states())) {
                Some(NodeEvent::Worker(report)) => drop(self.workers.insert(report.id.clone(), report)),
                Some(NodeEvent::WorkerLost { id, .. }) => drop(self.workers.remove(&id)),
                Some(_) => (),
                None => panic!("the node's events ended"),
            }
        }
    }

    pub async fn until_event(&mut self, wanted: impl Fn(&NodeEvent) -> bool) -> NodeEvent {
        let deadline = tokio::time::Instant::now() + LONG;
        loop {
            let event = tokio::time::timeout_at(deadline, self.events.recv()).await.expect("event in time").unwrap();
            if wanted(&event) {
                return event;
            }
        }
    }

    fn states(&self) -> Vec<(WorkerPhase, &str)> {
        self.workers.values().map(|w| (w.phase, w.message.as_str())).collect()
    }

    pub fn activate(&self, worker: &WorkerId, actor: &ActorIdentity, activation: u64, source: Source) -> Activate {
        Activate {
            worker: worker.clone(),
            actor: actor.clone(),
            activation: Activation(activation),
            template: self.template.clone(),
            sandbox: self.sandbox.clone(),
            source,
            timeout: LONG,
        }
    }

    pub async fn boot(&self, worker: &WorkerId, actor: &ActorIdentity, activation: u64) -> Activated {
        self.node.activate(self.activate(worker, actor, activation, Source::Boot)).await.unwrap()
    }

    pub async fn release(&self, worker: &WorkerId, actor: &ActorIdentity, activation: u64) {
        self.node.release(worker, &actor.uid, Activation(activation)).await.unwrap();
    }
}

pub fn options(dir: &Path) -> Options {
    Options {
        name: "test".into(),
        data_dir: dir.to_owned(),
        herder_dir: programs(),
        objects_dir: dir.join("objects"),
        cidr: Cidr::DEFAULT,
        egress: false,
        workers: ate_node::Source::Processes,
        secrets: None,
    }
}

pub fn sandbox(runsc: &Path) -> SandboxRef {
    let described = Command::new(programs().join("ateom-gvisor")).arg("describe").output().unwrap().stdout;
    let class: ate_sandbox::ClassDescriptor = serde_json::from_slice(&described).unwrap();
    let values: serde_json::Map<_, _> = class.config.into_iter().map(|(key, field)| (key, field.default)).collect();
    let sha256 = Digest::of(&std::fs::read(runsc).unwrap());
    SandboxRef {
        class: class.name,
        config: ConfigRef {
            name: "gvisor-default".into(),
            revision: 1,
            digest: canonical::digest(&serde_json::Value::Object(values.clone())),
            values,
        },
        assets: vec![PinnedAsset {
            name: "runsc".into(),
            sha256,
            size: None,
            media_type: "application/octet-stream".into(),
            urls: vec![format!("file://{}", runsc.display())],
        }],
    }
}

/// The counter, with more variables.
pub async fn template(node: &Node, env: serde_json::Value) -> Template {
    let spec: ActorTemplateSpec = serde_json::from_value(serde_json::json!({
        "containers": [{"name": "app", "image": image(), "env": env, "readyz": {"httpGet": {"port": 80}}}],
        "snapshotsConfig": {"location": "default"},
    }))
    .unwrap();
    let resolved = node.resolve_image(image()).await.unwrap();
    Template {
        name: ObjectName::new("default", "counter"),
        uid: Uid::generate(),
        spec_digest: canonical::digest_of(&spec),
        images: BTreeMap::from([(image().to_owned(), resolved.digest)]),
        spec,
    }
}

pub fn actor(name: &str) -> ActorIdentity {
    ActorIdentity { name: ActorName::new("default", name), uid: Uid::generate() }
}

pub fn capture(worker: &WorkerId, actor: &ActorIdentity, activation: u64, target: CaptureTarget) -> Capture {
    Capture {
        worker: worker.clone(),
        actor: actor.clone(),
        activation: Activation(activation),
        generation: 1,
        scope: Scope::Full,
        parent: None,
        base: None,
        target,
        timeout: LONG,
    }
}

pub fn external() -> CaptureTarget {
    CaptureTarget::External { location: "default".into() }
}

pub fn restored(captured: &Captured) -> Source {
    Source::Snapshot { snapshot: reference(captured), base: None }
}

pub fn reference(captured: &Captured) -> SnapshotRef {
    SnapshotRef { manifest: captured.manifest.clone(), scope: Scope::Full, location: captured.location.clone() }
}

/// One request on a connection of its own: the body.
pub fn get(address: IpAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, 80), Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).ok_or_else(|| std::io::Error::other(answer.clone()))
}

/// What the counter says: how often it was asked, and since which start of its process.
pub fn count(address: IpAddr) -> (u64, String) {
    let body = get(address, "/").unwrap();
    let field = |name: &str| {
        let found = body.split_whitespace().find_map(|w| w.strip_prefix(&format!("{name}="))).map(str::to_owned);
        found.unwrap_or_else(|| panic!("no {name} in `{body}`"))
    };
    (field("count").parse().unwrap(), field("boot"))
}

/// What a node has put on the machine: processes, links and mounts that name its directory, and its files.
pub fn traces(dir: &Path) -> Vec<String> {
    let dir = dir.canonicalize().unwrap();
    let text = dir.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        if pid.bytes().all(|b| b.is_ascii_digit()) && command.contains(&text) {
            found.push(format!("process {pid} {command}"));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|l| l.contains(&text)).map(|l| format!("mount {l}")));
    let workers = std::fs::read_dir(dir.join("node/workers")).unwrap();
    found.extend(workers.flatten().map(|e| format!("directory {}", e.path().display())));
    found.extend(links(&dir).into_iter().map(|l| format!("link {l}")));
    found
}

/// The node's links are in the link group its directory gives.
pub fn links(dir: &Path) -> Vec<String> {
    let digest = Digest::of(dir.canonicalize().unwrap().join("node").as_os_str().as_encoded_bytes());
    let group = u32::from_str_radix(&digest.as_str()[..8], 16).unwrap();
    let all = std::fs::read_dir("/sys/class/net").unwrap().flatten();
    let ours = all.filter(|e| {
        let netdev_group = std::fs::read_to_string(e.path().join("netdev_group")).unwrap_or_default();
        netdev_group.trim().parse() == Ok(group.cast_signed()) || netdev_group.trim().parse() == Ok(group)
    });
    ours.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// Waits until something holds that nobody announces.
pub async fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<(), T>)
where
    T: std::fmt::Debug,
{
    let deadline = Instant::now() + LONG;
    loop {
        match check() {
            Ok(()) => return,
            Err(state) if Instant::now() > deadline => panic!("{what} not in time: {state:?}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

pub fn reason<T>(result: Result<T, Error>) -> ate_api::Reason {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(e) => e.reason,
    }
}
