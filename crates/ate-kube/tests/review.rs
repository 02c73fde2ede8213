//! Callers of the control plane's API, as the API server of the cluster knows them.

mod support;

use std::time::Duration;

use ate_api::Reason;
use ate_control::{Identity, Question, Reviewer as _};
use ate_kube::review::KubeReviewer;
use ate_kube_harness::{Cluster, create, token};
use k8s_openapi::api::{
    core::v1::{Namespace, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding},
};
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};
use support::manifests;

fn question(verb: &'static str, resource: &'static str, subresource: &'static str, namespace: &str) -> Question {
    Question { verb, resource, subresource, namespace: namespace.to_owned() }
}

/// Roles count a moment after they were written.
async fn comes_to(reviewer: &KubeReviewer, who: &Identity, what: &Question, wanted: bool) {
    let settled = async {
        while reviewer.may(who, what).await.unwrap() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), settled).await.unwrap_or_else(|_| panic!("{what}: not {wanted}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_says_whose_a_token_is_and_what_its_owner_may_where() {
    // One of its own, since it is stopped.
    let Some(cluster) = Cluster::start().await else { return };
    let admin = cluster.admin();
    for namespace in ["ate-system", "team-a", "team-b"] {
        create(Api::<Namespace>::all(admin.clone()), json!({"metadata": {"name": namespace}})).await;
    }
    let accounts = |ns: &str| Api::<ServiceAccount>::namespaced(admin.clone(), ns);
    create(accounts("team-a"), json!({"metadata": {"name": "robot"}})).await;
    create(accounts("team-b"), json!({"metadata": {"name": "stranger"}})).await;
    // The control plane asks as itself, with the rights it is installed with.
    for role in manifests::<Value>("control-access.yaml", "ClusterRole") {
        create(Api::<ClusterRole>::all(admin.clone()), role).await;
    }
    for binding in manifests::<Value>("control-access.yaml", "ClusterRoleBinding") {
        create(Api::<ClusterRoleBinding>::all(admin.clone()), binding).await;
    }
    let reviewer = KubeReviewer::new(cluster.client_as("system:serviceaccount:ate-system:ate-control", &[]));

    let (robots, strangers) = (token(&admin, "team-a", "robot").await, token(&admin, "team-b", "stranger").await);
    let ready = async {
        loop {
            match reviewer.identify(&robots).await {
                Err(e) if e.reason == Reason::Unavailable => tokio::time::sleep(Duration::from_millis(20)).await,
                other => return other.unwrap(),
            }
        }
    };
    let robot = tokio::time::timeout(Duration::from_secs(30), ready).await.expect("its own rights count");
    assert_eq!(robot.name, "system:serviceaccount:team-a:robot");
    assert!(robot.groups.contains(&"system:serviceaccounts:team-a".to_owned()), "{robot:?}");
    let stranger = reviewer.identify(&strangers).await.unwrap();

    for role in manifests::<Value>("users.yaml", "ClusterRole") {
        create(Api::<ClusterRole>::all(admin.clone()), role).await;
    }
    let bindings = Api::<RoleBinding>::namespaced(admin.clone(), "team-a");
    create(
        bindings.clone(),
        json!({
            "metadata": {"name": "robots"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "ate-actor-user"},
            "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "team-a"}],
        }),
    )
    .await;
    comes_to(&reviewer, &robot, &question("resume", "actors", "", "team-a"), true).await;
    for (allowed, what) in [
        (true, question("get", "actors", "log", "team-a")),
        (true, question("list", "snapshots", "", "team-a")),
        (false, question("resume", "actors", "", "team-b")),
        (false, question("resume", "actors", "", "")),
        (false, question("patch", "actortemplates", "", "team-a")),
        (false, question("update", "sandboxconfigs", "", "")),
        (false, question("create", "tokens", "", "")),
    ] {
        assert_eq!(reviewer.may(&robot, &what).await.unwrap(), allowed, "{what}");
        assert!(!reviewer.may(&stranger, &what).await.unwrap(), "{what}");
    }
    bindings.delete("robots", &DeleteParams::default()).await.unwrap();
    comes_to(&reviewer, &robot, &question("resume", "actors", "", "team-a"), false).await;

    for made_up in ["x", "ate_0123", &format!("{robots}x")] {
        let e = reviewer.identify(made_up).await.unwrap_err();
        assert_eq!(e.reason, Reason::Unauthenticated, "{made_up:?}: {e}");
    }
    // Somebody who may not ask knows nothing, and says so.
    let powerless = KubeReviewer::new(cluster.client_as("nobody", &[]));
    let e = powerless.identify(&robots).await.unwrap_err();
    assert!(e.reason == Reason::Unavailable && e.hint.contains("tokenreviews"), "{e:?}");

    cluster.stop_api();
    assert_eq!(reviewer.identify(&robots).await.unwrap_err().reason, Reason::Unavailable);
    let what = question("get", "actors", "", "team-a");
    assert_eq!(reviewer.may(&robot, &what).await.unwrap_err().reason, Reason::Unavailable);
}
