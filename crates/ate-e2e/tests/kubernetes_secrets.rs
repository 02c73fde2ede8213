//! A secret of a template, from what the namespace allows to what the actor sees, in a cluster with the rights of the manifests.

use ate_e2e::cluster::{Cluster, SPACE};
use ate_kube_harness::create;
use k8s_openapi::api::{
    core::v1::Secret,
    rbac::v1::{Role, RoleBinding},
};
use kube::Api;
use serde_json::json;

/// What the template's condition says.
async fn told(c: &Cluster, template: &str) -> String {
    let found = c.template(template).await;
    let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = conditions.into_iter().find(|c| c["type"] == "Ready");
    ready.map(|c| format!("{}: {}", c["reason"], c["message"])).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_template_says_how_to_let_its_secret_be_read_and_is_ready_when_somebody_did() {
    let Some(c) = Cluster::start(1, 1).await else { return };
    let mut template = c.template("counter").await;
    template["metadata"] = json!({"name": "needy", "namespace": SPACE});
    template["status"].take();
    template["spec"]["containers"][0]["env"] = json!([
        {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
    ]);
    c.apply(template).await;
    let grant = format!(
        "kubectl -n {SPACE} create role ate-read-db --verb=get --resource=secrets --resource-name=db && \
         kubectl -n {SPACE} create rolebinding ate-read-db --role=ate-read-db --serviceaccount=ate-system:ate-node"
    );
    c.eventually("the condition says what to do", async || {
        let told = told(&c, "needy").await;
        told.contains("SecretUnavailable") && told.contains(&grant)
    })
    .await;

    // What these commands make.
    let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["db"], "verbs": ["get"]});
    let role = json!({"metadata": {"name": "ate-read-db"}, "rules": [rule]});
    create::<Role>(Api::namespaced(c.client.clone(), SPACE), role).await;
    let binding = json!({
        "metadata": {"name": "ate-read-db"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ate-read-db"},
        "subjects": [{"kind": "ServiceAccount", "name": "ate-node", "namespace": "ate-system"}],
    });
    create::<RoleBinding>(Api::namespaced(c.client.clone(), SPACE), binding).await;
    c.eventually("the condition says what is missing", async || {
        told(&c, "needy").await.contains("create secret generic db --from-file=password=FILE")
    })
    .await;

    // "in base64"
    let secret = json!({"metadata": {"name": "db"}, "data": {"password": "aW4gYmFzZTY0"}});
    create::<Secret>(Api::namespaced(c.client.clone(), SPACE), secret).await;
    c.eventually("the template is ready", async || c.template("needy").await["status"]["phase"] == "Ready").await;
    c.ate(&["create", "actor", "a", "--template", "needy"]).await.unwrap();
    let about = c.ask("a", "/about").await;
    assert!(about.lines().any(|line| line.ends_with("DB_PASSWORD=in base64")), "{about}");
}
