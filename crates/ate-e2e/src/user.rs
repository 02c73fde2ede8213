//! A user of the system: the command line, plain HTTP to actors, and a space in which things are theirs.

use std::{
    io::Write as _,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{binary, given::kubectl, http, until};

/// Limit of one request, a cold start included.
pub const ANSWER: Duration = Duration::from_secs(60);
/// Workers start within this, also on a machine that is busy with other tests.
const WORKERS: Duration = Duration::from_secs(60);
/// A golden actor boots, be it a machine on a machine that is busy with others.
const GOLDEN: Duration = Duration::from_secs(180);

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

/// See the head of this file.
pub struct User {
    way: Way,
    space: String,
    router: Option<SocketAddr>,
    /// Told when something fails.
    log: Option<PathBuf>,
}

enum Way {
    /// The address of a server.
    Server(String),
    /// The kubeconfig of a cluster: templates, pools and configurations are written there.
    Cluster(PathBuf),
}

impl User {
    /// Of a node, which is theirs alone; their space is `default`.
    pub(crate) fn of_server(api: String, router: Option<SocketAddr>, log: PathBuf) -> User {
        User { way: Way::Server(api), space: "default".to_owned(), router, log: Some(log) }
    }

    /// Of a cluster with others in it; their namespace, and their atespace, is `space`.
    pub(crate) fn of_cluster(kubeconfig: PathBuf, space: String, router: SocketAddr) -> User {
        User { way: Way::Cluster(kubeconfig), space, router: Some(router), log: None }
    }

    /// Name of the atespace and of the namespace that commands mean when they name none.
    pub fn space(&self) -> &str {
        &self.space
    }

    pub fn router(&self) -> SocketAddr {
        self.router.expect("it is up")
    }

    pub(crate) fn server(&self) -> &str {
        match &self.way {
            Way::Server(address) => address,
            Way::Cluster(_) => panic!("a cluster has no address of its own"),
        }
    }

    pub fn log_text(&self) -> String {
        self.log.as_deref().and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default()
    }

    /// The command line; in a cluster under the name that kubectl calls it by.
    pub fn ate(&self, args: &[&str]) -> Output {
        self.ate_with(args, "")
    }

    fn ate_with(&self, args: &[&str], stdin: &str) -> Output {
        let mut command = match &self.way {
            Way::Server(address) => ate(address),
            Way::Cluster(kubeconfig) => {
                let mut command = without_credentials();
                command.arg0("kubectl-ate").env_remove("ATE_SERVER").env("KUBECONFIG", kubeconfig);
                command.env("ATE_ATESPACE", &self.space).env("ATE_NAMESPACE", &self.space);
                command
            }
        };
        run(command.args(args), stdin)
    }

    /// `apply -f -`, of the command line or of kubectl.
    pub fn apply(&self, yaml: &str) -> Output {
        match &self.way {
            Way::Server(_) => self.ate_with(&["apply", "-f", "-"], yaml),
            Way::Cluster(kubeconfig) => run(kubectl(kubeconfig).args(["-n", &self.space, "apply", "-f", "-"]), yaml),
        }
    }

    /// One object as JSON.
    #[track_caller]
    pub fn get(&self, kind: &str, name: &str) -> Value {
        let out = self.ate(&["get", kind, name, "-o", "json"]).ok();
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }

    /// All objects of a kind as JSON, over every namespace; where there are others, those of this user's space.
    #[track_caller]
    pub fn list(&self, kind: &str) -> Vec<Value> {
        let out = self.ate(&["get", kind, "-A", "-o", "json"]).ok();
        let list: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
        let mut items = list["items"].as_array().cloned().unwrap_or_default();
        if matches!(self.way, Way::Cluster(_)) {
            items.retain(|object| self.owns(object));
        }
        items
    }

    fn owns(&self, object: &Value) -> bool {
        let (metadata, spec) = (&object["metadata"], &object["spec"]);
        let places = [&metadata["namespace"], &metadata["atespace"], &spec["poolNamespace"]];
        let owner = spec["owner"].as_str().and_then(|owner| owner.split_once('/'));
        places.into_iter().any(|p| *p == self.space) || owner.is_some_and(|(space, _)| space == self.space)
    }

    #[track_caller]
    pub fn workers_ready(&self, count: usize) {
        until(&format!("{count} free workers\n{}", self.log_text()), WORKERS, || {
            let free = self.list("workers").iter().filter(|w| w["status"]["phase"] == "Free").count();
            (free >= count).then_some(())
        });
    }

    /// Waits until a worker has a sandbox started ahead; with `standby`, a golden snapshot restored in it.
    #[track_caller]
    pub fn worker_warm(&self, standby: bool) {
        until("a worker to be warm", ANSWER, || {
            let warm = |w: &Value| w["status"]["prepared"].is_string() && (!standby || w["status"]["standby"] == true);
            self.list("workers").iter().any(warm).then_some(())
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
            // In a cluster it is known a moment after it was applied.
            let shown = self.ate(&["get", "template", name, "-o", "json"]);
            let t: Value = serde_json::from_str(&shown.stdout).ok()?;
            assert_ne!(t["status"]["phase"], "Failed", "{t:#}");
            (t["status"]["phase"] == "Ready").then_some(())
        });
    }

    /// Creates an actor.
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

    /// The host name of an actor.
    pub fn host(&self, actor: &str) -> String {
        format!("{actor}.{}.localhost", self.space)
    }

    /// GET through the router, whatever the answer.
    #[track_caller]
    pub fn request(&self, actor: &str, path: &str) -> http::Answer {
        http::get(self.router(), &self.host(actor), path, ANSWER)
            .unwrap_or_else(|e| panic!("no answer from {actor}{path}: {e}\n{}", self.log_text()))
    }

    /// PUT through the router.
    #[track_caller]
    pub fn put(&self, actor: &str, path: &str, body: &str) -> http::Answer {
        let answer = http::put(self.router(), &self.host(actor), path, body, ANSWER);
        answer.unwrap_or_else(|e| panic!("{actor}{path}: {e}"))
    }

    /// The example actor counts its requests in memory and says how many there were, this one included.
    #[track_caller]
    pub fn count(&self, actor: &str) -> u64 {
        let answer = self.request(actor, "/");
        assert_eq!(answer.status, 200, "{}\n{}", answer.body, self.log_text());
        counted(&answer.body).unwrap_or_else(|| panic!("no count in {}", answer.body))
    }
}

/// The command line for a server.
pub(crate) fn ate(server: &str) -> Command {
    let mut command = without_credentials();
    command.env("ATE_SERVER", server);
    command
}

/// Whoever runs the tests may have credentials for another one.
fn without_credentials() -> Command {
    let mut command = Command::new(binary("ate"));
    for name in ["ATE_TOKEN", "ATE_TOKEN_FILE", "ATE_CA_FILE"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn run(command: &mut Command, stdin: &str) -> Output {
    let program = Path::new(command.get_program()).display().to_string();
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|e| panic!("{program} does not start: {e}"));
    child.stdin.take().expect("stdin").write_all(stdin.as_bytes()).ok();
    let out = child.wait_with_output().expect("its output");
    Output {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// The number the example actor answers with: `count=N …`.
pub fn counted(body: &str) -> Option<u64> {
    body.split_whitespace().find_map(|w| w.strip_prefix("count="))?.parse().ok()
}

/// The host name of an actor in the atespace `default`.
pub fn host(actor: &str) -> String {
    format!("{actor}.default.localhost")
}
