//! Secrets of templates, read with the rights that manifests/base gives a node agent and those that a namespace adds.

mod support;

use std::time::Duration;

use ate_api::{Error, Reason};
use ate_kube::secrets::KubeSecrets;
use ate_kube_harness::{Cluster, cluster, create};
use k8s_openapi::api::{
    core::v1::{Namespace, Secret, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use support::{PATIENCE, manifests};

const TEAM: &str = "secrets-team";
const RBAC: &str = "rbac.authorization.k8s.io";

/// The node agent's rights as they are installed.
async fn installed(client: &Client) {
    let apply = PatchParams::apply("test").force();
    for role in manifests::<ClusterRole>("node-access.yaml", "ClusterRole") {
        let api: Api<ClusterRole> = Api::all(client.clone());
        api.patch("ate-node", &apply, &Patch::Apply(&role)).await.unwrap();
    }
    for binding in manifests::<ClusterRoleBinding>("node-access.yaml", "ClusterRoleBinding") {
        let api: Api<ClusterRoleBinding> = Api::all(client.clone());
        api.patch("ate-node", &apply, &Patch::Apply(&binding)).await.unwrap();
    }
}

/// What the node agents are to the API server, by the account that the manifests name.
fn node_agent(server: &Cluster) -> KubeSecrets {
    let [account] = &manifests::<ServiceAccount>("node-access.yaml", "ServiceAccount")[..] else {
        panic!("one account")
    };
    let name = account.metadata.name.as_deref().unwrap();
    let groups = ["system:serviceaccounts", "system:serviceaccounts:ate-system", "system:authenticated"];
    KubeSecrets::new(server.client_as(&format!("system:serviceaccount:ate-system:{name}"), &groups))
}

/// What the hint's two commands make.
async fn allow(client: &Client, role: &str, secret: &str) {
    create::<Role>(
        Api::namespaced(client.clone(), TEAM),
        json!({
            "metadata": {"name": role},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}],
        }),
    )
    .await;
    create::<RoleBinding>(
        Api::namespaced(client.clone(), TEAM),
        json!({
            "metadata": {"name": role},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "ate-node", "namespace": "ate-system"}],
        }),
    )
    .await;
}

fn is_denied(e: &Error) -> bool {
    e.reason == Reason::SecretUnavailable
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_agent_reads_the_secrets_it_was_allowed_by_name_and_says_how_to_allow_others() {
    let Some(server) = cluster().await else { return };
    let admin = server.admin();
    installed(&admin).await;
    create::<Namespace>(Api::all(admin.clone()), json!({"metadata": {"name": TEAM}})).await;
    for name in ["db", "other"] {
        // As kubectl writes it: in base64.
        let data = json!({"metadata": {"name": name}, "data": {"user": "bWU=", "password": "/w=="}});
        create::<Secret>(Api::namespaced(admin.clone(), TEAM), data).await;
    }
    let node = node_agent(server);
    let e = node.read(TEAM, "db").await.unwrap_err();
    assert!(is_denied(&e), "{e:?}");
    assert_eq!(
        e.hint,
        "allow it: kubectl -n secrets-team create role ate-read-db --verb=get --resource=secrets --resource-name=db && \
         kubectl -n secrets-team create rolebinding ate-read-db --role=ate-read-db --serviceaccount=ate-system:ate-node"
    );
    // Whether there is one, is not told either.
    assert_eq!(node.read(TEAM, "none").await.unwrap_err().message, e.message);

    allow(&admin, "ate-read-db", "db").await;
    allow(&admin, "ate-read-none", "none").await;
    // Roles count a moment after they were written.
    let counts = async {
        while node.read(TEAM, "db").await.is_err() || node.read(TEAM, "none").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counts).await.expect("the roles count");
    let read = node.read(TEAM, "db").await.unwrap().expect("the secret");
    assert_eq!(read["user"], b"me");
    assert_eq!(read["password"], b"\xff", "bytes as they are");
    assert_eq!(node.read(TEAM, "none").await.unwrap(), None);
    assert!(is_denied(&node.read(TEAM, "other").await.unwrap_err()));
    assert!(is_denied(&node.read("default", "db").await.unwrap_err()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_is_away_is_no_missing_secret() {
    let Some(server) = Cluster::start().await else { return };
    let node = node_agent(&server);
    server.stop_api();
    let e = node.read("default", "db").await.unwrap_err();
    assert_eq!(e.reason, Reason::Unavailable, "{e:?}");
    assert!(e.is_retryable());
}
