//! One node: `ate up` as a process, and the command line against it.

use std::{
    ops::Deref,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Output, RUNSC_A, User, binary, counter_image, runsc, until,
    user::{ate, run},
};

/// A node comes up within this, also on a machine that is busy with other tests.
const UP: Duration = Duration::from_secs(60);
/// A stop suspends what runs, so it may take a while.
const DOWN: Duration = Duration::from_secs(60);

const LOG: &str = "node.log";

/// A running node. Dropping it stops it.
pub struct Node {
    dir: TempDir,
    data: PathBuf,
    child: Option<Child>,
    /// Root, by the socket that knows them.
    user: User,
    /// Where callers need a token.
    open: String,
    /// Where faults are armed, if they can be.
    failpoints: Option<PathBuf>,
}

impl Deref for Node {
    type Target = User;

    fn deref(&self) -> &User {
        &self.user
    }
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
        let mut node = Node::down(dir, data);
        node.up();
        node
    }

    fn down(dir: TempDir, data: PathBuf) -> Node {
        let user = User::of_server(String::new(), None, dir.path().join(LOG));
        Node { dir, data, child: None, user, open: String::new(), failpoints: None }
    }

    /// A node with nothing configured, whose steps can be made to fail.
    pub fn with_failpoints() -> Node {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (data, failpoints) = (dir.path().join("data"), dir.path().join("failpoints"));
        for sub in ["armed", "fired"] {
            std::fs::create_dir_all(failpoints.join(sub)).expect("a directory for failpoints");
        }
        let mut node = Node::down(dir, data);
        node.failpoints = Some(failpoints);
        node.up();
        node
    }

    /// Where faults are armed; see the crate `ate-failpoint`.
    pub fn failpoints(&self) -> &Path {
        self.failpoints.as_deref().expect("a node with failpoints")
    }

    /// A node with nothing configured, started with these flags.
    pub fn start_with(flags: &[&str]) -> Node {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let data = dir.path().join("data");
        let mut node = Node::down(dir, data);
        node.up_with(&[&["--empty"], flags].concat());
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

    /// The same, where it may die before it is ready: an error says how.
    pub fn try_up(&mut self) -> Result<(), String> {
        self.try_up_with(&["--empty"])
    }

    /// The same, letting it make what it makes on a first start.
    pub fn first_start(&mut self) {
        self.up_with(&["--workers", "1"]);
    }

    fn up_with(&mut self, flags: &[&str]) {
        self.try_up_with(flags).unwrap_or_else(|e| panic!("{e}"));
    }

    fn try_up_with(&mut self, flags: &[&str]) -> Result<(), String> {
        let ready = self.dir.path().join("ready");
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::File::options().create(true).append(true).open(self.log()).expect("a log file");
        let listen: &[&str] = if flags.contains(&"--listen") { &[] } else { &["--listen", "127.0.0.1:0"] };
        let mut command = Command::new(binary("ate"));
        if let Some(failpoints) = &self.failpoints {
            command.env("ATE_FAILPOINTS", failpoints);
        }
        let mut child = command
            .args(["up", "--router-listen", "127.0.0.1:0"])
            .args(listen)
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
                return Some(Err(format!("ate up ended with {status}:\n{}", self.log_text())));
            }
            let text = std::fs::read_to_string(&ready).ok()?;
            let field =
                |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
            Some(Ok((field("server")?, field("api")?, field("router")?)))
        });
        let (api, open, router) = told?;
        self.user = User::of_server(api, router.parse().ok(), self.log());
        self.open = open;
        self.child = Some(child);
        Ok(())
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

    /// Whether its process has ended, of whatever cause.
    pub fn has_died(&mut self) -> bool {
        if self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)))) {
            self.child = None;
        }
        self.child.is_none()
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
        self.user.server()
    }

    /// The address for callers with a token.
    pub fn open(&self) -> &str {
        &self.open
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join(LOG)
    }

    /// `ate` as somebody else: whoever the token makes them; nobody without one.
    pub fn ate_as(&self, token: Option<&str>, args: &[&str]) -> Output {
        self.ate_as_with(token, args, "")
    }

    fn ate_as_with(&self, token: Option<&str>, args: &[&str], stdin: &str) -> Output {
        let mut command = ate(&self.open);
        command.args(args);
        if let Some(token) = token {
            command.env("ATE_TOKEN", token);
        }
        run(&mut command, stdin)
    }

    /// `ate apply -f -` as the holder of a token.
    pub fn apply_as(&self, token: &str, yaml: &str) -> Output {
        self.ate_as_with(Some(token), &["apply", "-f", "-"], yaml)
    }

    /// `ate`, a copy that they can read, as another user of this machine.
    pub fn ate_as_user(&self, program: &Path, uid: u32, server: &str, token: Option<&str>, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.env_clear().env("ATE_SERVER", server).args(args).uid(uid).gid(uid);
        if let Some(token) = token {
            command.env("ATE_TOKEN", token);
        }
        run(&mut command, "")
    }

    /// Removes the node's own copy of a snapshot, so that it has to fetch it from where it is stored.
    #[track_caller]
    pub fn forget_snapshot(&self, manifest: &str) {
        std::fs::remove_dir_all(self.data.join("node/snapshots").join(manifest)).expect("a local copy");
    }

    /// Makes a token.
    #[track_caller]
    pub fn token(&self, name: &str, role: &str, flags: &[&str]) -> String {
        self.ate(&[&["token", "create", name, "--role", role], flags].concat()).ok().trim().to_owned()
    }

    /// The lines of the audit log.
    pub fn audit(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.data.join("audit.log")).expect("an audit log");
        text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
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

/// Signals a process this harness started or found below its own node.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
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
