//! The roles of manifests/base, tried against the API server: each may what it is for, and the rest is tried too.

mod support;

use std::collections::BTreeSet;

use ate_kube_harness::{Cluster, cluster};
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde::Deserialize as _;
use serde_json::json;
use support::manifests;

const SYSTEM: &str = "ate-system";
const TEAM: &str = "team-a";
const ELSEWHERE: &str = "team-b";

/// What anybody might want of a cluster, ours and its own.
const RESOURCES: [&str; 34] = [
    "ate.dev/actortemplates",
    "ate.dev/actortemplates/status",
    "ate.dev/actortemplates/finalizers",
    "ate.dev/workerpools",
    "ate.dev/workerpools/status",
    "ate.dev/workerpools/finalizers",
    "ate.dev/workerpools/scale",
    "ate.dev/sandboxconfigs",
    "ate.dev/sandboxconfigs/status",
    "ate.dev/sandboxconfigs/finalizers",
    "ate.dev/actors",
    "ate.dev/actors/log",
    "ate.dev/atespaces",
    "ate.dev/snapshots",
    "ate.dev/workers",
    "ate.dev/assets",
    "ate.dev/tokens",
    "/pods",
    "/pods/exec",
    "/pods/portforward",
    "/pods/log",
    "/secrets",
    "/configmaps",
    "/nodes",
    "/namespaces",
    "/serviceaccounts",
    "/serviceaccounts/token",
    "/events",
    "events.k8s.io/events",
    "apps/deployments",
    "apps/daemonsets",
    "policy/poddisruptionbudgets",
    "authentication.k8s.io/tokenreviews",
    "authorization.k8s.io/subjectaccessreviews",
];
const VERBS: [&str; 12] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "resume",
    "pause",
    "suspend",
    "impersonate",
];

/// The roles as they are installed, under names nobody else uses: `of` goes before each.
async fn installed(client: &Client, of: &str) {
    let apply = PatchParams::apply("test").force();
    for file in ["users.yaml", "control-access.yaml", "node-access.yaml"] {
        for mut role in manifests::<ClusterRole>(file, "ClusterRole") {
            let name = format!("{of}{}", role.metadata.name.unwrap());
            role.metadata.name = Some(name.clone());
            Api::<ClusterRole>::all(client.clone()).patch(&name, &apply, &Patch::Apply(&role)).await.unwrap();
        }
        for mut binding in manifests::<ClusterRoleBinding>(file, "ClusterRoleBinding") {
            let name = format!("{of}{}", binding.metadata.name.unwrap());
            binding.metadata.name = Some(name.clone());
            binding.role_ref.name = format!("{of}{}", binding.role_ref.name);
            Api::<ClusterRoleBinding>::all(client.clone()).patch(&name, &apply, &Patch::Apply(&binding)).await.unwrap();
        }
    }
}

/// Gives a role to a user, in one namespace or everywhere.
async fn give(client: &Client, role: &str, user: &str, namespace: Option<&str>) {
    let mut binding = json!({
        "metadata": {"name": format!("{role}-{user}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    });
    match namespace {
        Some(namespace) => {
            binding["metadata"]["namespace"] = namespace.into();
            let binding = RoleBinding::deserialize(binding).unwrap();
            Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &binding).await.unwrap();
        }
        None => {
            let binding = ClusterRoleBinding::deserialize(binding).unwrap();
            Api::all(client.clone()).create(&PostParams::default(), &binding).await.unwrap();
        }
    }
}

async fn may(client: &Client, verb: &str, resource: &str, namespace: &str) -> bool {
    let (group, resource) = resource.split_once('/').unwrap();
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: some(resource),
        subresource: some(subresource),
        verb: some(verb),
        namespace: some(namespace),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let reviewed = Api::all(client.clone()).create(&PostParams::default(), &review).await.unwrap();
    reviewed.status.is_some_and(|s| s.allowed)
}

/// `verb resource` for all that somebody may in a namespace, of everything there is to want.
async fn all_allowed(client: &Client, namespace: &str) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for resource in RESOURCES {
        for verb in VERBS {
            if may(client, verb, resource, namespace).await {
                allowed.insert(format!("{verb} {resource}"));
            }
        }
    }
    allowed
}

/// `verb verb… resource resource…` as a set of pairs; a line for each.
fn set(lines: &[(&str, &str)]) -> BTreeSet<String> {
    let pairs = |(verbs, resources): &(&str, &str)| {
        let pair = |v: &str, r: &str| format!("{v} {r}");
        let resources: Vec<String> = resources.split(' ').map(str::to_owned).collect();
        verbs.split(' ').flat_map(|v| resources.iter().map(|r| pair(v, r)).collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    lines.iter().flat_map(pairs).collect()
}

const VIEWS: (&str, &str) = (
    "get list watch",
    "ate.dev/actortemplates ate.dev/workerpools ate.dev/sandboxconfigs ate.dev/actors ate.dev/atespaces \
     ate.dev/snapshots ate.dev/workers ate.dev/assets",
);
const USES: [(&str, &str); 2] =
    [("create update delete resume pause suspend", "ate.dev/actors"), ("get", "ate.dev/actors/log")];
const WRITES: (&str, &str) = ("create update patch delete", "ate.dev/actortemplates");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_of_people_may_in_its_namespace_exactly_what_it_is_for() {
    let Some(server) = cluster().await else { return };
    let (admin, of) = (server.admin(), "people-");
    installed(&admin, of).await;
    let expected = [
        ("ate-viewer", set(&[VIEWS])),
        ("ate-actor-user", set(&[VIEWS, USES[0], USES[1]])),
        ("ate-template-author", set(&[VIEWS, USES[0], USES[1], WRITES])),
        (
            "ate-sandbox-admin",
            set(&[
                VIEWS,
                ("create update patch delete", "ate.dev/sandboxconfigs"),
                ("create update delete", "ate.dev/assets"),
                ("update", "ate.dev/atespaces"),
            ]),
        ),
    ];
    namespaces(&admin, &[TEAM, ELSEWHERE]).await;
    for (role, expected) in expected {
        let user = format!("{role}-somebody");
        give(&admin, &format!("{of}{role}"), &user, Some(TEAM)).await;
        let somebody = server.client_as(&user, &[]);
        settled(&somebody, "get", "ate.dev/actors", TEAM).await;
        assert_eq!(all_allowed(&somebody, TEAM).await, expected, "{role}");
        assert_eq!(all_allowed(&somebody, ELSEWHERE).await, BTreeSet::new(), "{role}");
        assert_eq!(all_allowed(&somebody, "").await, BTreeSet::new(), "{role}");
    }
    let everything = server.client_as("everything", &[]);
    give(&admin, &format!("{of}ate-admin"), "everything", None).await;
    settled(&everything, "delete", "ate.dev/tokens", "").await;
    let allowed = all_allowed(&everything, ELSEWHERE).await;
    assert!(allowed.iter().all(|a| a.contains(" ate.dev/")), "{allowed:?}");
    assert_eq!(allowed.len(), VERBS.len() * RESOURCES.iter().filter(|r| r.starts_with("ate.dev/")).count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_component_may_what_it_does_and_nothing_else() {
    let Some(server) = cluster().await else { return };
    let (admin, of) = (server.admin(), "components-");
    installed(&admin, of).await;
    let control = as_account(server, "ate-control");
    settled(&control, "list", "/pods", "").await;
    let expected = set(&[
        ("list watch patch", "ate.dev/actortemplates ate.dev/workerpools ate.dev/sandboxconfigs /pods"),
        ("patch", "ate.dev/actortemplates/status ate.dev/workerpools/status ate.dev/sandboxconfigs/status"),
        ("update", "ate.dev/workerpools/finalizers"),
        ("get list watch create patch delete", "apps/deployments"),
        ("get create patch delete", "policy/poddisruptionbudgets"),
        ("create patch", "events.k8s.io/events"),
        ("create", "authentication.k8s.io/tokenreviews authorization.k8s.io/subjectaccessreviews"),
    ]);
    for namespace in ["", SYSTEM, TEAM] {
        assert_eq!(all_allowed(&control, namespace).await, expected, "in {namespace:?}");
    }
    let node = as_account(server, "ate-node");
    settled(&node, "list", "/pods", "").await;
    for namespace in ["", SYSTEM, TEAM] {
        assert_eq!(all_allowed(&node, namespace).await, set(&[("list watch", "/pods")]), "in {namespace:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_connect_may_connect_and_read_whom_to_trust_and_nothing_else() {
    let Some(server) = cluster().await else { return };
    let admin = server.admin();
    namespaces(&admin, &["connect"]).await;
    let roles: Api<Role> = Api::namespaced(admin.clone(), "connect");
    let [role] = &manifests::<Role>("connect.yaml", "Role")[..] else { panic!("one role") };
    roles.patch("ate-connect", &PatchParams::apply("test").force(), &Patch::Apply(role)).await.unwrap();
    let binding = json!({
        "metadata": {"name": "connect", "namespace": "connect"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "ate-connect"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "developers"}],
    });
    let binding = RoleBinding::deserialize(binding).unwrap();
    Api::namespaced(admin.clone(), "connect").create(&PostParams::default(), &binding).await.unwrap();
    let developer = server.client_as("dora", &["developers"]);
    settled(&developer, "list", "/pods", "connect").await;
    let expected = set(&[("list", "/pods"), ("get", "/pods/portforward"), ("create", "/pods/portforward")]);
    assert_eq!(all_allowed(&developer, "connect").await, expected);
    assert_eq!(all_allowed(&developer, TEAM).await, BTreeSet::new());
    // The one config map by name, and no other.
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(developer, "connect");
    let code = |e: kube::Error| match e {
        kube::Error::Api(status) => status.code,
        e => panic!("{e}"),
    };
    assert_eq!(code(maps.get("ate-ca").await.unwrap_err()), 404);
    assert_eq!(code(maps.get("other").await.unwrap_err()), 403);
}

fn as_account(server: &Cluster, name: &str) -> Client {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:ate-system", "system:authenticated"];
    server.client_as(&format!("system:serviceaccount:{SYSTEM}:{name}"), &groups)
}

async fn namespaces(client: &Client, names: &[&str]) {
    for name in names {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let api = Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone());
        api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&namespace)).await.unwrap();
    }
}

/// Roles count a moment after they were written.
async fn settled(client: &Client, verb: &str, resource: &str, namespace: &str) {
    let counts = async {
        while !may(client, verb, resource, namespace).await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), counts).await.expect("the role counts");
}
