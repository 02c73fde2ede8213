//! What an installation brings to a cluster, as `docs/kubernetes.md` says, and the pods of the control plane: here they are
//! processes of the test.

use std::{path::Path, process::Command};

use ate_kube::crd;
use ate_kube_harness::{create, token};
use k8s_openapi::api::{
    core::v1::{Pod, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use super::{LONG, SPACE, SYSTEM};
use crate::{binary, given::kubectl, repository, user::run};

/// The manifests, the certificates, and whom to trust.
pub(super) async fn install(client: &Client, kubeconfig: &Path, dir: &Path) {
    let manifests = repository().join("manifests/overlays/dev");
    let ours = ["apply", "--server-side", "--field-manager=ate-install"];
    tokio::task::block_in_place(|| {
        run(kubectl(kubeconfig).args(ours).arg("-k").arg(manifests), "").ok();
        certificates(dir, &[]);
        let secrets = certificates(dir, &["-o", "yaml"]);
        run(kubectl(kubeconfig).args(["apply", "--server-side", "-f", "-"]), &secrets).ok();
    });
    for kind in crd::Kind::ALL {
        let objects: Api<DynamicObject> = Api::all_with(client.clone(), &kind.api());
        let end = tokio::time::Instant::now() + LONG;
        while objects.list(&Default::default()).await.is_err() {
            assert!(tokio::time::Instant::now() < end, "{} is not served", kind.name());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// Answers with what the command says.
pub(super) fn certificates(dir: &Path, flags: &[&str]) -> String {
    let mut command = Command::new(binary("ate"));
    command.arg("certs").arg("--dir").arg(dir.join("certs")).args(["--dns", "127.0.0.1"]).args(flags);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(super) fn control_pod(n: usize) -> String {
    format!("ate-control-{n}")
}

/// The pods of the control plane's Deployment, each with its ports: of the API and of the router.
pub(super) async fn control_pods(client: &Client, node: &str, ports: &[[u16; 2]]) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), SYSTEM);
    for (n, [api, router]) in ports.iter().enumerate() {
        let ports = json!([{"name": "api", "containerPort": api}, {"name": "router", "containerPort": router}]);
        let pod = json!({
            "metadata": {"name": control_pod(n), "labels": {"app": "ate-control"}},
            "spec": {"nodeName": node, "containers": [{"name": "control", "image": "ate-control", "ports": ports}]},
        });
        create(pods.clone(), pod).await;
        let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
        pods.patch_status(&control_pod(n), &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    }
}

/// The token of somebody who may do everything.
pub(super) async fn boss(client: &Client) -> String {
    create(Api::<ServiceAccount>::namespaced(client.clone(), SPACE), json!({"metadata": {"name": "boss"}})).await;
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    create(Api::<ClusterRole>::all(client.clone()), json!({"metadata": {"name": "everything"}, "rules": everything}))
        .await;
    create(
        Api::<ClusterRoleBinding>::all(client.clone()),
        json!({
            "metadata": {"name": "boss"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "everything"},
            "subjects": [{"kind": "ServiceAccount", "name": "boss", "namespace": SPACE}],
        }),
    )
    .await;
    token(client, SPACE, "boss").await
}
