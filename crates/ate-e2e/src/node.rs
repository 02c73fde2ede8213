//! One node: `ate up` as a process, and the command line against it.

use std::{
    io::Write as _,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{RUNSC_A, binary, counter_image, http, runsc, until};

/// A node comes up within this, also on a machine that is busy with other tests.
const UP: Duration = Duration::from_secs(60);
/// A stop suspends what runs, so it may take a while.
const DOWN: Duration = Duration::from_secs(60);
/// A golden actor boots, be it a machine on a machine that is busy with others.
const GOLDEN: Duration = Duration::from_secs(180);
/// Limit of one request, a cold start included.
pub const ANSWER: Duration = Duration::from_secs(60);

/// What a command printed.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// The output of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == 0, "the command failed with {}:\n{}{}", self.code, self.stdout, self.stderr);
        self.stdout
    }

    /// What a command that must fail said.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(self.code != 0, "the command should have failed:\n{}{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// A running node. Dropping it stops it.
pub struct Node {
    dir: TempDir,
    data: PathBuf,
    child: Option<Child>,
    api: String,
    router: Option<SocketAddr>,
}

impl Node {
    /// A node with nothing configured.
    pub fn start() -> Node {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        Node::new(dir, data)
    }

    /// The same with its data below a directory of the caller's.
    pub fn on(disk: &Path) -> Node {
        Node::new(tempfile::tempdir().expect("a temporary directory"), disk.join("data"))
    }

    fn new(dir: TempDir, data: PathBuf) -> Node {
        let mut node = Node { dir, data, child: None, api: String::new(), router: None };
        node.up();
        node
    }

    /// A node with a default gVisor configuration, a pool of `workers`, and the atespace `default`.
    pub fn with_pool(workers: u32) -> Node {
        let node = Node::start();
        node.set_up(workers);
        node
    }

    /// What [`Node::with_pool`] configures.
    pub fn set_up(&self, workers: u32) {
        self.import("gvisor-default", RUNSC_A, true).ok();
        self.apply(&pool("pool", workers, "")).ok();
        self.ate(&["create", "atespace", "default"]);
        self.workers_ready(workers as usize);
    }

    /// Starts the node again on the same data.
    pub fn up(&mut self) {
        self.up_with(&["--empty"]);
    }

    /// The same, letting it make what it makes on a first start.
    pub fn first_start(&mut self) {
        self.up_with(&["--workers", "1"]);
    }

    fn up_with(&mut self, flags: &[&str]) {
        let ready = self.dir.path().join("ready");
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log file");
        let mut child = Command::new(binary("ate"))
            .args(["up", "--listen", "127.0.0.1:0", "--router-listen", "127.0.0.1:0"])
            .args(flags)
            .arg("--data-dir")
            .arg(self.data())
            .arg("--ready-file")
            .arg(&ready)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("ate up");
        let told = until("the node to be ready", UP, || {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("ate up ended with {status}:\n{}", self.log_text());
            }
            let text = std::fs::read_to_string(&ready).ok()?;
            let field =
                |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
            Some((field("server")?, field("router")?))
        });
        self.api = told.0;
        self.router = told.1.parse().ok();
        self.child = Some(child);
    }

    /// SIGTERM, then waits.
    #[track_caller]
    pub fn stop(&mut self) {
        if let Some(child) = &self.child {
            signal(child.id(), rustix::process::Signal::TERM);
            self.ended();
        }
    }

    /// What Ctrl-C in a terminal does: SIGINT to the node and to whatever shares its process group. Then waits.
    #[track_caller]
    pub fn interrupt(&mut self) {
        let group = self.child.as_ref().and_then(|c| rustix::process::Pid::from_raw(c.id().cast_signed()));
        rustix::process::kill_process_group(group.expect("a running node"), rustix::process::Signal::INT)
            .expect("kill");
        self.ended();
    }

    #[track_caller]
    fn ended(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let began = Instant::now();
        while began.elapsed() < DOWN {
            if let Ok(Some(status)) = child.try_wait() {
                assert!(status.success(), "the node stopped with {status}:\n{}", self.log_text());
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
        panic!("the node did not stop within {DOWN:?}:\n{}", self.log_text());
    }

    /// `kill -9`, as a crash would.
    pub fn crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn data(&self) -> PathBuf {
        self.data.clone()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process of `ate up`.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node is up").id()
    }

    pub fn api(&self) -> &str {
        &self.api
    }

    pub fn router(&self) -> SocketAddr {
        self.router.expect("the node is up")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("node.log")
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Runs `ate` against this node.
    pub fn ate(&self, args: &[&str]) -> Output {
        self.ate_with(args, "")
    }

    fn ate_with(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = Command::new(binary("ate"))
            .env("ATE_SERVER", &self.api)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ate");
        child.stdin.take().expect("stdin").write_all(stdin.as_bytes()).ok();
        let out = child.wait_with_output().expect("ate");
        Output {
            code: out.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// `ate apply -f -`.
    pub fn apply(&self, yaml: &str) -> Output {
        self.ate_with(&["apply", "-f", "-"], yaml)
    }

    /// Imports a gVisor build and waits until its configuration is ready.
    pub fn import(&self, name: &str, build: &str, default: bool) -> Output {
        let asset = format!("runsc={}", runsc(build).display());
        let mut args = vec!["sandbox", "import", "--class", "gvisor", "--name", name, asset.as_str()];
        if default {
            args.push("--default");
        }
        self.ate(&args)
    }

    /// One object as JSON.
    #[track_caller]
    pub fn get(&self, kind: &str, name: &str) -> Value {
        let out = self.ate(&["get", kind, name, "-o", "json"]).ok();
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }

    /// All objects of a kind as JSON, over every namespace.
    #[track_caller]
    pub fn list(&self, kind: &str) -> Vec<Value> {
        let out = self.ate(&["get", kind, "-A", "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    #[track_caller]
    pub fn workers_ready(&self, count: usize) {
        until(&format!("{count} free workers\n{}", self.log_text()), UP, || {
            let free = self.list("workers").iter().filter(|w| w["status"]["phase"] == "Free").count();
            (free >= count).then_some(())
        });
    }

    /// Applies a template and waits for its golden snapshot.
    #[track_caller]
    pub fn template(&self, yaml: &str, name: &str) {
        self.apply(yaml).ok();
        self.template_ready(name);
    }

    #[track_caller]
    pub fn template_ready(&self, name: &str) {
        until(&format!("template {name} to be ready"), GOLDEN, || {
            let t = self.get("template", name);
            assert_ne!(t["status"]["phase"], "Failed", "{t:#}");
            (t["status"]["phase"] == "Ready").then_some(())
        });
    }

    /// Creates an actor in the atespace `default`.
    #[track_caller]
    pub fn actor(&self, name: &str, template: &str) {
        self.ate(&["create", "actor", name, "--template", template]).ok();
    }

    /// Waits for a phase of an actor.
    #[track_caller]
    pub fn phase(&self, actor: &str, phase: &str) {
        until(&format!("actor {actor} to be {phase}"), ANSWER, || {
            (self.get("actor", actor)["status"]["phase"] == phase).then_some(())
        });
    }

    /// GET through the router, whatever the answer.
    #[track_caller]
    pub fn request(&self, actor: &str, path: &str) -> http::Answer {
        http::get(self.router(), &host(actor), path, ANSWER)
            .unwrap_or_else(|e| panic!("no answer from {actor}{path}: {e}\n{}", self.log_text()))
    }

    /// PUT through the router.
    #[track_caller]
    pub fn put(&self, actor: &str, path: &str, body: &str) -> http::Answer {
        http::put(self.router(), &host(actor), path, body, ANSWER).unwrap_or_else(|e| panic!("{actor}{path}: {e}"))
    }

    /// The example actor counts its requests in memory and says how many there were, this one included.
    #[track_caller]
    pub fn count(&self, actor: &str) -> u64 {
        let answer = self.request(actor, "/");
        assert_eq!(answer.status, 200, "{}\n{}", answer.body, self.log_text());
        counted(&answer.body).unwrap_or_else(|| panic!("no count in {}", answer.body))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the node\n{}", self.log_text());
            if let Some(child) = &mut self.child {
                signal(child.id(), rustix::process::Signal::TERM);
                let _ = child.wait();
            }
            return;
        }
        self.stop();
    }
}

/// The number the example actor answers with: `count=N …`.
pub fn counted(body: &str) -> Option<u64> {
    body.split_whitespace().find_map(|w| w.strip_prefix("count="))?.parse().ok()
}

/// Signals a process this harness started or found below its own node.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The host name of an actor in the atespace `default`.
pub fn host(actor: &str) -> String {
    format!("{actor}.default.localhost")
}

/// A WorkerPool in YAML.
pub fn pool(name: &str, workers: u32, extra: &str) -> String {
    format!(
        "apiVersion: ate.dev/v1alpha1\nkind: WorkerPool\nmetadata: {{name: {name}}}\nspec:\n  replicas: {workers}\n  ateomImage: builtin\n{extra}"
    )
}

/// A template of the example actor in YAML. `extra` are further lines of the spec, indented by two.
pub fn counter(name: &str, extra: &str) -> String {
    counter_with(name, extra, "")
}

/// The same with further lines of its container, indented by four.
pub fn counter_with(name: &str, extra: &str, container: &str) -> String {
    format!(
        "apiVersion: ate.dev/v1alpha1\nkind: ActorTemplate\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - name: main\n    image: {}\n    readyz: {{httpGet: {{path: /readyz, port: 80}}}}\n{container}  snapshotsConfig: {{location: default}}\n{extra}",
        counter_image()
    )
}
