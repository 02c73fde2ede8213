//! A cluster that somebody has and lets the tests use: `KUBECONFIG` names it, `ATE_E2E=1` allows it. Agent Substrate is
//! installed there, with a default SandboxConfig of the class. Each test makes a namespace of its own and takes it away again.
//!
//! `docs/kubernetes.md` says what has to be set.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Kit, Output, Template, User, forward, until, user::run};

/// Rights are looked up again after some seconds; namespaces, pods and deletions take their time in a cluster.
const PATIENCE: Duration = Duration::from_secs(120);
const KUBECTL_PATIENCE: &str = "--timeout=120s";
/// Pools and templates of one test find each other by it.
const LABEL: &str = "ate-e2e";

/// The cluster, and what is to be used in it.
pub struct Given {
    class: String,
    /// Of the herder, as a WorkerPool names it.
    ateom_image: String,
    /// Of the example actor.
    image: String,
    /// Of snapshots.
    location: String,
    system: String,
}

/// The class to be tried in the cluster that is given; none is given if `ATE_E2E` is not 1.
///
/// # Panics
/// When one is, and something else is missing.
pub fn kit() -> Option<&'static Kit> {
    static KIT: OnceLock<Option<Kit>> = OnceLock::new();
    KIT.get_or_init(|| {
        let given: &'static Given = Box::leak(Box::new(Given::of_environment()?));
        Some(Kit { class: &given.class, versions: &[], cluster: Some(given) })
    })
    .as_ref()
}

/// kubectl as `script/setup` brings it, or else the one of this machine, for a cluster.
pub(crate) fn kubectl(kubeconfig: &Path) -> Command {
    let brought = crate::repository().join(".cache/kubectl/kubectl");
    let mut command = Command::new(if brought.exists() { brought } else { "kubectl".into() });
    // Its cache of what a server offers is by address, which another server may have had before.
    command.arg("--kubeconfig").arg(kubeconfig).env("KUBECACHEDIR", kubeconfig.with_extension("cache"));
    command
}

impl Given {
    fn of_environment() -> Option<Given> {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let needed = |name: &str, what: &str| {
            set(name).unwrap_or_else(|| panic!("ATE_E2E=1 needs {name}: {what} (docs/kubernetes.md, \"Try it\")"))
        };
        set("ATE_E2E").filter(|value| value == "1")?;
        needed("KUBECONFIG", "the kubeconfig of an administrator of the cluster");
        Some(Given {
            class: set("ATE_E2E_CLASS").unwrap_or_else(|| "gvisor".to_owned()),
            ateom_image: needed("ATE_E2E_ATEOM_IMAGE", "the image of the herder, as a WorkerPool names it"),
            image: needed("ATE_E2E_IMAGE", "the image of the example actor"),
            location: set("ATE_E2E_LOCATION").unwrap_or_else(|| "default".to_owned()),
            system: set("ATE_SYSTEM_NAMESPACE").unwrap_or_else(|| "ate-system".to_owned()),
        })
    }
}

/// A namespace and an atespace of the same name, and a service account there that may use the system and nothing else.
/// All of it is gone when this is dropped.
pub struct Room {
    cluster: &'static Given,
    /// Of an administrator.
    kubeconfig: PathBuf,
    user: User,
    _dir: TempDir,
}

impl Room {
    pub fn new(cluster: &'static Given) -> Room {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Whatever KUBECONFIG names, in one file.
        let view = ["config", "view", "--raw", "--flatten", "--minify", "-o", "json"];
        let shown = run(Command::new(kubectl(Path::new("")).get_program()).args(view), "").ok();
        let kubeconfig = dir.path().join("admin.kubeconfig");
        std::fs::write(&kubeconfig, &shown).expect("a kubeconfig");
        let space = format!("{LABEL}-{:08x}", fastrand::u32(..));
        run(kubectl(&kubeconfig).args(["create", "-f", "-"]), &account(&space, &cluster.system).to_string()).ok();
        let token = run(kubectl(&kubeconfig).args(["-n", &space, "create", "token", LABEL]), "").ok();
        let mut of_user: Value = serde_json::from_str(&shown).expect("a kubeconfig");
        of_user["users"][0]["user"] = json!({"token": token.trim()});
        let of_account = dir.path().join("user.kubeconfig");
        std::fs::write(&of_account, of_user.to_string()).expect("a kubeconfig");
        let router = forward::to_router(&of_account, &cluster.system);
        let user = User::of_cluster(of_account, space, router);
        let room = Room { cluster, kubeconfig, user, _dir: dir };
        until("the account to be let in", PATIENCE, || (room.user.ate(&["get", "workers"]).code == 0).then_some(()));
        room.user.ate(&["create", "atespace", room.space()]).ok();
        room
    }

    pub fn user(&self) -> &User {
        &self.user
    }

    fn space(&self) -> &str {
        self.user.space()
    }

    /// Name of the default configuration of the class, and what it can do.
    pub fn default_config(&self) -> (String, Vec<String>) {
        let class = &self.cluster.class;
        let shown = self.user.ate(&["get", "sandboxconfigs", "-o", "json"]).ok();
        let found: Value = serde_json::from_str(&shown).expect("JSON");
        let of_class = |c: &&Value| c["spec"]["sandboxClass"] == *class && c["spec"]["default"] == true;
        let config = found["items"].as_array().and_then(|all| all.iter().find(of_class));
        let config = config.unwrap_or_else(|| panic!("the cluster has no default SandboxConfig of class {class}"));
        let words = config["status"]["capabilities"].as_array().into_iter().flatten();
        let name = config["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        (name, words.filter_map(|w| w.as_str().map(str::to_owned)).collect())
    }

    /// A pool that nobody else's actors come to.
    pub fn add_pool(&self, workers: u32) {
        let pool = json!({
            "apiVersion": "ate.dev/v1alpha1", "kind": "WorkerPool",
            "metadata": {"name": "pool", "labels": {LABEL: self.space()}},
            "spec": {"replicas": workers, "ateomImage": self.cluster.ateom_image, "sandboxClass": self.cluster.class},
        });
        self.user.apply(&pool.to_string()).ok();
    }

    /// The example actor, for that pool.
    pub fn template(&self) -> Template {
        let selector = format!("workerSelector: {{matchLabels: {{{LABEL}: {}}}}}", self.space());
        let Given { image, location, .. } = self.cluster;
        Template::default().image(image.clone()).location(location.clone()).line(&selector)
    }

    /// kubectl as an administrator, in this namespace.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        run(kubectl(&self.kubeconfig).args(["-n", self.space()]).args(args), "")
    }

    /// Takes away what was made here, in the order that an uninstallation has.
    fn clear(&self) -> Result<(), String> {
        let done = |out: Output| if out.code == 0 { Ok(out.stdout) } else { Err(out.stderr) };
        let all = done(self.user.ate(&["get", "atespaces", "-o", "name"]))?;
        // A test may have made further ones, by names that begin like this one.
        for space in all.lines().filter_map(|l| l.strip_prefix("atespace/")).filter(|n| n.starts_with(self.space())) {
            let actors = done(self.user.ate(&["get", "actors", "-a", space, "-o", "name"]))?;
            for actor in actors.lines().filter_map(|l| l.rsplit('/').next()) {
                done(self.user.ate(&["delete", "actor", actor, "-a", space]))?;
            }
            done(self.user.ate(&["delete", "atespace", space]))?;
        }
        done(self.kubectl(&["delete", "actortemplates,workerpools", "--all", KUBECTL_PATIENCE]))?;
        done(self.kubectl(&["wait", "--for=delete", "pods", "--all", KUBECTL_PATIENCE]))?;
        done(self.kubectl(&["-n", &self.cluster.system, "delete", "rolebinding", self.space()]))?;
        done(self.kubectl(&["delete", "clusterrolebinding", self.space()]))?;
        done(self.kubectl(&["delete", "namespace", self.space(), "--wait=false"])).map(drop)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            let left = self.kubectl(&["get", "pods,workerpools,actortemplates,events", "-o", "wide"]).stdout;
            eprintln!("--- namespace {}\n{left}", self.space());
        }
        if let Err(why) = self.clear() {
            let said = format!("namespace {} is still there, and what is in it: {why}", self.space());
            assert!(failed, "{said}");
            eprintln!("{said}");
        }
    }
}

/// Everything of the system, the way to it, and nothing else of the cluster.
fn account(space: &str, system: &str) -> Value {
    let subjects = json!([{"kind": "ServiceAccount", "name": LABEL, "namespace": space}]);
    let role = |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        // Workers share a path with the node: see "What is needed" in docs/kubernetes.md.
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": {
            "pod-security.kubernetes.io/enforce": "privileged"}}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": LABEL, "namespace": space}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": space},
            "roleRef": role("ClusterRole", "ate-admin"), "subjects": subjects},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": space, "namespace": system},
            "roleRef": role("Role", "ate-connect"), "subjects": subjects},
    ]})
}
