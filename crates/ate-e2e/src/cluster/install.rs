//! What an installation brings to a cluster, as `docs/kubernetes.md` says.

use std::{path::Path, process::Command};

use ate_kube::crd;
use ate_kube_harness::{create, token};
use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{Api, Client, api::DynamicObject};
use serde_json::json;

use super::{LONG, SPACE, SYSTEM};
use crate::{binary, given::kubectl, repository, user::run};

/// The manifests, the address of the database, the certificates, and whom to trust.
pub(super) async fn install(client: &Client, kubeconfig: &Path, dir: &Path, database: &str) {
    let manifests = repository().join("manifests/overlays/dev");
    let ours = ["apply", "--server-side", "--field-manager=ate-install"];
    tokio::task::block_in_place(|| {
        run(kubectl(kubeconfig).args(ours).arg("-k").arg(manifests), "").ok();
        let secret = ["-n", SYSTEM, "create", "secret", "generic", "ate-postgres"];
        run(kubectl(kubeconfig).args(secret).arg(format!("--from-literal=url={database}")), "").ok();
        certificates(dir, &[]);
        apply_certificates(kubeconfig, dir);
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

/// As secrets, and the authority as a config map.
pub(super) fn apply_certificates(kubeconfig: &Path, dir: &Path) {
    let secrets = certificates(dir, &["-o", "yaml"]);
    run(kubectl(kubeconfig).args(["apply", "--server-side", "-f", "-"]), &secrets).ok();
}

/// Answers with what the command says.
pub(super) fn certificates(dir: &Path, flags: &[&str]) -> String {
    let mut command = Command::new(binary("ate"));
    command.arg("certs").arg("--dir").arg(dir.join("certs")).args(["--dns", "127.0.0.1"]).args(flags);
    run(&mut command, "").ok()
}

pub(super) fn control_pod(n: usize) -> String {
    format!("ate-control-{n}")
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
