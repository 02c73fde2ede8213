//! The manifests and the chart, put into a real API server as operators put them: twice, with their own edits in between,
//! and taken out again. There are no controllers here, so nothing runs; what is promised is about the objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use ate_kube_harness::{ADMIN, Cluster, MASTERS};
use serde_json::Value;

const SYSTEM: &str = "ate-system";
/// Everything an installation consists of.
const KINDS: &str = "namespaces,serviceaccounts,configmaps,secrets,resourcequotas,services,deployments,daemonsets,statefulsets,\
                     poddisruptionbudgets,networkpolicies,roles,rolebindings,clusterroles,clusterrolebindings,\
                     customresourcedefinitions,validatingadmissionpolicies,validatingadmissionpolicybindings";

/// The machine may be busy with other tests.
const SOON: Duration = Duration::from_secs(180);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What script/setup brings, or the reason why there is nothing to be tried.
fn tool(path: &str) -> Option<PathBuf> {
    let tool = root().join(".cache").join(path);
    if !tool.exists() {
        eprintln!("skipped, because {} is missing: script/setup brings it", tool.display());
        return None;
    }
    Some(tool)
}

/// The cluster as an operator has it before them.
struct Desk {
    cluster: Cluster,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Desk {
    async fn new() -> Option<Desk> {
        let kubectl = tool("kubectl/kubectl")?;
        // Names of what has no namespace are taken, so nobody else may use it.
        let cluster = Cluster::start().await?;
        let kubeconfig = cluster.kubeconfig(ADMIN, &[MASTERS]).unwrap();
        Some(Desk { cluster, kubectl, kubeconfig })
    }

    fn kubectl(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args).current_dir(root());
        // Its cache of what a server offers is by address, which another test's server may have had before.
        command.env("KUBECACHEDIR", self.kubeconfig.with_extension("cache"));
        command.output().expect("kubectl starts")
    }

    fn done(&self, args: &[&str]) -> String {
        let output = self.kubectl(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {said}\n{}", args.join(" "), self.cluster.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Once the server does what it was told before: it serves a kind some time after it has said so.
    fn is_done_soon(&self, args: &[&str]) {
        let end = Instant::now() + SOON;
        loop {
            let output = self.kubectl(args);
            if output.status.success() {
                return;
            }
            assert!(Instant::now() < end, "kubectl {}: {}", args.join(" "), lossy(&output.stderr));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// As docs/kubernetes.md says.
    fn install(&self, directory: &str) -> Output {
        self.kubectl(&["apply", "--server-side", "--field-manager=ate-install", "-k", directory])
    }

    fn field(&self, object: &str, path: &str) -> String {
        self.done(&["-n", SYSTEM, "get", object, "-o", &format!("jsonpath={{{path}}}")])
    }

    /// Everything that is ours, by kind and name, without what the server and the ways of installing add.
    fn ours(&self) -> BTreeMap<String, Value> {
        let list: Value = serde_json::from_str(&self.done(&["get", KINDS, "-A", "-o", "json"])).unwrap();
        let mut found = BTreeMap::new();
        for mut object in list["items"].as_array().unwrap().clone() {
            let label = object["metadata"]["labels"]["app.kubernetes.io/part-of"] == "agent-substrate";
            let namespaced = object["metadata"]["namespace"] == SYSTEM && object["metadata"]["name"] != "default";
            // What else lies in the namespace was made by nobody but us, a root certificate of the cluster aside.
            if !(label || namespaced) || object["metadata"]["name"] == "kube-root-ca.crt" {
                continue;
            }
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&key.as_str()));
            for (map, others) in [("labels", "app.kubernetes.io/managed-by"), ("annotations", "meta.helm.sh/")] {
                if let Some(map) = metadata.get_mut(map).and_then(Value::as_object_mut) {
                    map.retain(|key, _| !key.starts_with(others) && !key.starts_with("deprecated.daemonset"));
                }
            }
            metadata.retain(|_, value| value != &serde_json::json!({}));
            object.as_object_mut().unwrap().remove("status");
            if object["kind"] == "Service" {
                for given in ["clusterIP", "clusterIPs"] {
                    object["spec"].as_object_mut().unwrap().remove(given);
                }
            }
            let name = format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
            found.insert(name, object);
        }
        found
    }

    /// Nothing is left, once the server is done: a kind goes after its last object has.
    fn becomes_empty(&self, directory: &str) {
        let end = Instant::now() + SOON;
        loop {
            let left: Vec<_> = self.ours().into_keys().collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "{directory}: left are {left:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_applied_twice_an_operators_edits_stay_and_deleting_it_leaves_nothing() {
    let Some(desk) = Desk::new().await else { return };
    for directory in ["manifests/overlays/production", "manifests/overlays/dev"] {
        let first = desk.install(directory);
        assert!(first.status.success(), "{directory}: {}", String::from_utf8_lossy(&first.stderr));
        critical_pods_are_taken(&desk.ours());

        // Settings and secrets are the operator's own, and so are fields the manifests say nothing of.
        desk.done(&["-n", SYSTEM, "create", "configmap", "ate-control-settings", "--from-literal=ATE_LOG=debug"]);
        desk.done(&["-n", SYSTEM, "create", "secret", "generic", "ate-postgres", "--from-literal=url=postgres://x"]);
        let place = r#"{"spec":{"template":{"spec":{"nodeSelector":{"pool":"system"}}}}}"#;
        desk.done(&["-n", SYSTEM, "patch", "deployment", "ate-control", "--type=merge", "-p", place]);
        desk.done(&["-n", SYSTEM, "annotate", "serviceaccount", "ate-node", "cloud/role=storage"]);
        // What users declared is theirs too.
        desk.is_done_soon(&["apply", "-f", "examples/pool.yaml"]);
        desk.done(&["scale", "workerpool/default", "--replicas=7"]);
        let second = desk.install(directory);
        assert!(second.status.success(), "{directory}: {}", String::from_utf8_lossy(&second.stderr));
        assert_eq!(desk.field("configmap/ate-control-settings", ".data.ATE_LOG"), "debug");
        assert_eq!(desk.field("secret/ate-postgres", ".data.url"), "cG9zdGdyZXM6Ly94");
        assert_eq!(desk.field("deployment/ate-control", ".spec.template.spec.nodeSelector.pool"), "system");
        assert_eq!(desk.field("serviceaccount/ate-node", r".metadata.annotations.cloud/role"), "storage");

        let pool = desk.done(&["get", "workerpool/default", "-o", "jsonpath={.spec.replicas}"]);
        assert_eq!(pool, "7");

        // Of what the manifests do say nothing is overwritten either: the upgrade names the field and leaves it.
        let image = r#"{"spec":{"template":{"spec":{"containers":[{"name":"control","image":"mine:1"}]}}}}"#;
        desk.done(&["-n", SYSTEM, "patch", "deployment", "ate-control", "-p", image]);
        let third = desk.install(directory);
        let said = String::from_utf8_lossy(&third.stderr).into_owned();
        assert!(!third.status.success() && said.contains("conflict") && said.contains(".image"), "{said}");
        assert_eq!(desk.field("deployment/ate-control", ".spec.template.spec.containers[0].image"), "mine:1");

        desk.done(&["-n", SYSTEM, "delete", "configmap/ate-control-settings", "secret/ate-postgres"]);
        desk.done(&["delete", "workerpools", "--all", "--all-namespaces"]);
        desk.done(&["delete", "--ignore-not-found", "-k", directory, "--wait=false"]);
        desk.becomes_empty(directory);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_chart_installs_what_the_manifests_do_and_an_upgrade_keeps_an_operators_edits() {
    let Some(desk) = Desk::new().await else { return };
    let Some(library) = tool("helm/libhelm_sdkpy.so") else { return };
    let helm = |args: &[&str]| {
        let mut command = Command::new("python3");
        command.current_dir(root()).arg("tools/helm/helm.py").arg(&library).arg(&desk.kubeconfig).arg(SYSTEM);
        // It keeps files of its own, if only empty folders.
        for kind in ["CACHE", "CONFIG", "DATA"] {
            command.env(format!("HELM_{kind}_HOME"), desk.kubeconfig.with_extension("helm"));
        }
        let output = command.args(args).output().expect("python3 starts");
        assert!(output.status.success(), "helm {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    for (directory, values) in
        [("manifests/base", "{}"), ("manifests/overlays/dev", r#"{"postgres": {"enabled": true}}"#)]
    {
        let applied = desk.install(directory);
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        let mut by_kustomize = desk.ours();
        desk.done(&["delete", "--ignore-not-found", "-k", directory, "--wait=false"]);
        desk.becomes_empty(directory);
        desk.done(&["create", "namespace", SYSTEM]);
        helm(&["install", "ate", "charts/ate", values]);
        let mut by_helm = desk.ours();
        critical_pods_are_taken(&by_helm);
        // The namespace is not the chart's, and Helm keeps its own notes.
        by_kustomize.remove("Namespace/ate-system");
        by_helm.retain(|name, _| !name.starts_with("Secret/sh.helm.release"));
        let names = |of: &BTreeMap<String, Value>| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&by_helm), names(&by_kustomize), "{directory}");
        for (name, object) in &by_kustomize {
            assert_eq!(&by_helm[name], object, "{directory}: {name}");
        }

        let place = r#"{"spec":{"template":{"spec":{"nodeSelector":{"pool":"system"}}}}}"#;
        desk.done(&["-n", SYSTEM, "patch", "deployment", "ate-control", "--type=merge", "-p", place]);
        desk.done(&["-n", SYSTEM, "create", "configmap", "ate-control-settings", "--from-literal=ATE_LOG=debug"]);
        helm(&["upgrade", "ate", "charts/ate", values]);
        assert_eq!(desk.field("deployment/ate-control", ".spec.template.spec.nodeSelector.pool"), "system");
        assert_eq!(desk.field("configmap/ate-control-settings", ".data.ATE_LOG"), "debug");
        helm(&["uninstall", "ate"]);
        desk.done(&["-n", SYSTEM, "delete", "configmap/ate-control-settings"]);
        desk.becomes_empty(directory);
        desk.done(&["delete", "namespace", SYSTEM, "--wait=false"]);
    }
}

/// For clusters that take pods of a system-critical class only where a quota speaks of it; the server here takes them anyway.
fn critical_pods_are_taken(ours: &BTreeMap<String, Value>) {
    let classes: BTreeSet<&str> =
        ours.values().filter_map(|o| o["spec"]["template"]["spec"]["priorityClassName"].as_str()).collect();
    assert!(classes.contains("system-node-critical"), "{classes:?}");
    let quota = &ours["ResourceQuota/ate-critical"]["spec"]["scopeSelector"]["matchExpressions"][0];
    assert_eq!((quota["scopeName"].as_str(), quota["operator"].as_str()), (Some("PriorityClass"), Some("In")));
    let spoken_of: BTreeSet<&str> = quota["values"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(classes.is_subset(&spoken_of), "{classes:?} and {spoken_of:?}");
}

#[test]
fn the_chart_is_made_of_the_manifests_as_they_are() {
    if tool("kubectl/kubectl").is_none() {
        return;
    }
    let checked = Command::new(root().join("script/chart")).arg("--check").output().expect("script/chart starts");
    assert!(checked.status.success(), "{}{}", lossy(&checked.stdout), lossy(&checked.stderr));
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
