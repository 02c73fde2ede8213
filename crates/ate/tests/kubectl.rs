//! `kubectl ate` against a real API server: which cluster, who calls, and the way to the leader. The server has no kubelet
//! behind it, so the last step, the forwarded port itself, is tried up to the API server's answer.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ate_kube_harness::{ADMIN, Cluster, MASTERS, create, free_address, token};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Pod, ServiceAccount},
    events::v1::Event,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

const SYSTEM: &str = "ate-system";

fn kubectl_ate(kubeconfig: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ate"));
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ATE_"));
    ours.for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.arg0("/usr/local/bin/kubectl-ate").env("KUBECONFIG", kubeconfig).args(args);
    command.output().expect("the program starts")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The kubeconfig of a service account, which shows a token.
async fn with_token(admin: &Client, kubeconfig: &Path, account: &str) -> PathBuf {
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap();
    config["users"][0]["user"] = json!({"token": token(admin, SYSTEM, account).await});
    let path = kubeconfig.with_extension(account);
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

fn from_manifest(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base").join(file);
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_finds_the_leader_through_the_cluster_and_says_what_is_missing_on_the_way() {
    let Some(cluster) = Cluster::start().await else { return };
    let admin = cluster.admin();
    let by_certificate = cluster.kubeconfig(ADMIN, &[MASTERS]).unwrap();
    create(Api::<Namespace>::all(admin.clone()), json!({"metadata": {"name": SYSTEM}})).await;
    create(Api::<ServiceAccount>::namespaced(admin.clone(), SYSTEM), json!({"metadata": {"name": "dora"}})).await;
    let dora = with_token(&admin, &by_certificate, "dora").await;

    let none = kubectl_ate(Path::new("/nonexistent"), &["get", "actors"]);
    assert_eq!(none.status.code(), Some(2), "{}", said(&none));
    assert!(said(&none).contains("--kubeconfig"), "{}", said(&none));

    // A certificate says who calls to the API server only.
    let certificate = kubectl_ate(&by_certificate, &["get", "actors"]);
    assert_eq!(certificate.status.code(), Some(5), "{}", said(&certificate));
    assert!(said(&certificate).contains("kubectl create token"), "{}", said(&certificate));

    let powerless = kubectl_ate(&dora, &["get", "actors"]);
    assert_eq!(powerless.status.code(), Some(5), "{}", said(&powerless));
    assert!(said(&powerless).contains("ate-connect"), "{}", said(&powerless));

    create(Api::<Role>::namespaced(admin.clone(), SYSTEM), from_manifest("connect.yaml")).await;
    let binding = json!({
        "metadata": {"name": "dora"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ate-connect"},
        "subjects": [{"kind": "ServiceAccount", "name": "dora", "namespace": SYSTEM}],
    });
    create(Api::<RoleBinding>::namespaced(admin.clone(), SYSTEM), binding).await;
    let untrusted = last_word(&dora, "not found").await;
    assert!(untrusted.contains("ate certs -o yaml"), "{untrusted}");

    let dir = tempfile::tempdir().unwrap();
    let mut certs = Command::new(env!("CARGO_BIN_EXE_ate"));
    let made = certs.arg("certs").arg("--dir").arg(dir.path()).args(["-o", "json"]).output().unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    create(Api::<ConfigMap>::namespaced(admin.clone(), SYSTEM), made["items"][0].clone()).await;
    let leaderless = kubectl_ate(&dora, &["get", "actors"]);
    assert_eq!(leaderless.status.code(), Some(6), "{}", said(&leaderless));
    assert!(said(&leaderless).contains("no control plane leads in namespace ate-system"), "{}", said(&leaderless));

    // Of two control planes the one that leads, at the port it names.
    let pods = Api::<Pod>::namespaced(admin.clone(), SYSTEM);
    for (name, leads) in [("control-1", "false"), ("control-2", "true")] {
        let port = json!({"name": "api", "containerPort": 7777});
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": "ate-control", "ate.dev/leader": leads}},
            "spec": {"containers": [{"name": "control", "image": "x", "ports": [port]}]},
        });
        create(pods.clone(), pod).await;
        let running = json!({"status": {"phase": "Running"}});
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(running)).await.unwrap();
    }
    let found = kubectl_ate(&dora, &["get", "actors"]);
    assert!(said(&found).contains("cannot forward port 7777 of pod control-2"), "{}", said(&found));
}

/// Roles count a moment after they were written.
async fn last_word(kubeconfig: &Path, wanted: &str) -> String {
    let settled = async {
        loop {
            let word = said(&kubectl_ate(kubeconfig, &["get", "actors"]));
            if word.contains(wanted) {
                return word;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), settled).await.unwrap_or_else(|_| panic!("no {wanted}"))
}

/// The real control plane, ended with the test.
struct ControlPlane(std::process::Child);

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything of a file of the manifests, as it is.
async fn apply(admin: &Client, file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/base").join(file);
    for document in std::fs::read_to_string(path).unwrap().split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document).unwrap();
        match object["kind"].as_str().unwrap() {
            "ClusterRole" => create(Api::<ClusterRole>::all(admin.clone()), object).await,
            "ClusterRoleBinding" => create(Api::<ClusterRoleBinding>::all(admin.clone()), object).await,
            "ServiceAccount" => create(Api::<ServiceAccount>::namespaced(admin.clone(), SYSTEM), object).await,
            kind => panic!("{file} has a {kind}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_control_plane_knows_the_users_of_its_cluster_and_leads_clients_to_itself() {
    let Some(cluster) = Cluster::start().await else { return };
    let admin = cluster.admin();
    let by_certificate = cluster.kubeconfig(ADMIN, &[MASTERS]).unwrap();
    create(Api::<Namespace>::all(admin.clone()), json!({"metadata": {"name": SYSTEM}})).await;
    create(Api::<Namespace>::all(admin.clone()), json!({"metadata": {"name": "team-a"}})).await;
    create(Api::<ServiceAccount>::namespaced(admin.clone(), SYSTEM), json!({"metadata": {"name": "dora"}})).await;
    let dora = with_token(&admin, &by_certificate, "dora").await;
    apply(&admin, "users.yaml").await;
    apply(&admin, "control-access.yaml").await;
    let pods = Api::<Pod>::namespaced(admin.clone(), SYSTEM);
    for kind in ["actortemplates", "workerpools", "sandboxconfigs"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../manifests/crds/{kind}.yaml"));
        let text = std::fs::read_to_string(path).unwrap();
        let definition = serde_saphyr::from_str(text.trim_start_matches("---")).unwrap();
        create(Api::<CustomResourceDefinition>::all(admin.clone()), definition).await;
    }
    // The one that led before, and the one that is started.
    for (name, labels) in [
        ("control-1", json!({"app": "ate-control"})),
        ("control-2", json!({"app": "ate-control", "ate.dev/leader": "true"})),
    ] {
        let spec = json!({"containers": [{"name": "control", "image": "x"}]});
        create(pods.clone(), json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).await;
    }

    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let mut made = Command::new(env!("CARGO_BIN_EXE_ate"));
    made.arg("certs").arg("--dir").arg(&certs).args(["--dns", "127.0.0.1"]);
    assert!(made.output().unwrap().status.success());
    let (api, router) = (free_address().unwrap(), free_address().unwrap());
    // KUBECONFIG is a list of paths with colons between them, so its name must have none.
    let itself = dir.path().join("kubeconfig");
    let account = "system:serviceaccount:ate-system:ate-control";
    std::fs::copy(cluster.kubeconfig(account, &[]).unwrap(), &itself).unwrap();
    let mut control = Command::new(env!("CARGO_BIN_EXE_ate"));
    control.arg("control").arg("--store").arg(dir.path().join("store")).arg("--data-dir").arg(dir.path());
    control.arg("--cert-dir").arg(certs.join("control")).arg("--kubernetes").env("KUBECONFIG", itself);
    control.args(["--name", "control-1", "--listen", &api.to_string(), "--router-listen", &router.to_string()]);
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    control.stdout(log.try_clone().unwrap()).stderr(log);
    let _control = ControlPlane(control.spawn().unwrap());

    let leaders = async || {
        let all = pods.list(&kube::api::ListParams::default().labels("ate.dev/leader=true")).await.unwrap();
        all.items.into_iter().map(|p| p.metadata.name.unwrap()).collect::<Vec<_>>()
    };
    within("the label moves", async || leaders().await == ["control-1"]).await;

    let authority = certs.join("control/ca.crt").display().to_string();
    let server = format!("https://{api}");
    let ate = |args: &[&str]| kubectl_ate(&dora, &[&["--server", &server, "--ca-file", &authority], args].concat());
    let denied = ate(&["get", "actors", "-a", "team-a"]);
    assert_eq!(denied.status.code(), Some(5), "{}", said(&denied));
    let hint = "list on actors.ate.dev in namespace team-a";
    assert!(
        said(&denied).contains("system:serviceaccount:ate-system:dora") && said(&denied).contains(hint),
        "{}",
        said(&denied)
    );

    let binding = json!({
        "metadata": {"name": "dora"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "ate-viewer"},
        "subjects": [{"kind": "ServiceAccount", "name": "dora", "namespace": SYSTEM}],
    });
    create(Api::<RoleBinding>::namespaced(admin.clone(), "team-a"), binding).await;
    within("what was given counts", async || ate(&["get", "actors", "-a", "team-a"]).status.success()).await;
    let elsewhere = ate(&["get", "actors", "-a", "team-b"]);
    assert_eq!(elsewhere.status.code(), Some(5), "{}", said(&elsewhere));
    let write = ate(&["create", "atespace", "team-a"]);
    assert_eq!(write.status.code(), Some(5), "{}", said(&write));
    // Templates, pools and configurations are declared in the cluster, whoever asks.
    create(
        Api::<ClusterRoleBinding>::all(admin.clone()),
        json!({
            "metadata": {"name": "dora-everything"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "ate-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "dora", "namespace": SYSTEM}],
        }),
    )
    .await;
    within("she may everything", async || ate(&["create", "atespace", "team-a"]).status.success()).await;
    let pool = dir.path().join("pool.yaml");
    let text =
        "apiVersion: ate.dev/v1alpha1\nkind: WorkerPool\nmetadata: {name: p}\nspec: {replicas: 1, ateomImage: x}\n";
    std::fs::write(&pool, text).unwrap();
    let declared = ate(&["apply", "-f", &pool.display().to_string()]);
    assert!(!declared.status.success() && said(&declared).contains("Kubernetes"), "{}", said(&declared));
    a_pool_comes_about(&admin).await;
}

/// A pool that is declared in the cluster comes to its pods' deployment and to a status, with the rights that the control
/// plane is installed with.
async fn a_pool_comes_about(admin: &Client) {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("ate.dev", "v1alpha1", "WorkerPool"));
    let pools = Api::<DynamicObject>::namespaced_with(admin.clone(), "team-a", &kind);
    let pool = json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "p"},
        "spec": {"replicas": 1, "ateomImage": "x"},
    });
    pools.create(&PostParams::default(), &serde_json::from_value(pool).unwrap()).await.unwrap();
    let deployments = Api::<Deployment>::namespaced(admin.clone(), "team-a");
    let budgets = Api::<PodDisruptionBudget>::namespaced(admin.clone(), "team-a");
    let events = Api::<Event>::all(admin.clone());
    within("a deployment", async || !deployments.list(&Default::default()).await.unwrap().items.is_empty()).await;
    within("a disruption budget", async || !budgets.list(&Default::default()).await.unwrap().items.is_empty()).await;
    let told = async || pools.get("p").await.unwrap().data["status"]["conditions"].is_array();
    within("a status", told).await;
    within("an event", async || !events.list(&Default::default()).await.unwrap().items.is_empty()).await;
    pools.delete("p", &Default::default()).await.unwrap();
    within("it is gone", async || pools.get_opt("p").await.unwrap().is_none()).await;
}

async fn within(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let held = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), held)
        .await
        .unwrap_or_else(|_| panic!("not within a minute: {what}"));
}
