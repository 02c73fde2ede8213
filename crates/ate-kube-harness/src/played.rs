//! What Kubernetes' own controllers would do, played.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

/// Which template a pod was made of.
const TEMPLATE: &str = "pod-template-hash";

/// One turn, in one namespace or in all: each Deployment with this label gets as many pods of its template as it asks for,
/// spread over these nodes. Those of an earlier template are deleted as the new ones run, and pods of none at all.
///
/// # Errors
/// When the API server is away.
pub async fn play_deployments(
    client: &Client,
    namespace: Option<&str>,
    label: &str,
    nodes: &[&str],
) -> kube::Result<()> {
    let (deployments, pods): (Api<Deployment>, Api<Pod>) = match namespace {
        Some(one) => (Api::namespaced(client.clone(), one), Api::namespaced(client.clone(), one)),
        None => (Api::all(client.clone()), Api::all(client.clone())),
    };
    let beside = |namespace: Option<String>| Api::<Pod>::namespaced(client.clone(), &namespace.unwrap());
    let labelled = ListParams::default().labels(label);
    let (wanted, all) = (deployments.list(&labelled).await?.items, pods.list(&labelled).await?.items);
    for deployment in &wanted {
        let uid = deployment.uid().unwrap();
        let of_it = |p: &&Pod| p.owner_references().iter().any(|o| o.uid == uid);
        let living = all.iter().filter(of_it).filter(|p| p.metadata.deletion_timestamp.is_none());
        let spec = deployment.spec.as_ref().unwrap();
        let replicas = usize::try_from(spec.replicas.unwrap_or(1)).unwrap();
        let made_of = hash(&serde_json::to_string(&spec.template).unwrap());
        let (mut living, before): (Vec<_>, Vec<_>) = living.partition(|p| p.labels().get(TEMPLATE) == Some(&made_of));
        let mut placed: Vec<_> = living.iter().filter_map(|p| p.spec.as_ref()?.node_name.clone()).collect();
        for _ in living.len()..replicas {
            let on = |node: &&&str| placed.iter().filter(|p| p == *node).count();
            let node = nodes.iter().min_by_key(on).expect("a node").to_string();
            let mut pod = serde_json::to_value(&spec.template).unwrap();
            pod["metadata"]["generateName"] = format!("{}-", deployment.name_any()).into();
            pod["metadata"]["labels"][TEMPLATE] = made_of.clone().into();
            pod["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "apps/v1", "kind": "Deployment", "name": deployment.name_any(), "uid": uid,
                "controller": true,
            }]);
            pod["spec"]["nodeName"] = node.clone().into();
            placed.push(node);
            beside(deployment.namespace())
                .create(&PostParams::default(), &serde_json::from_value(pod).unwrap())
                .await?;
        }
        // As a ReplicaSet chooses: the cheapest first.
        let cost = |p: &Pod| {
            let said = p.annotations().get("controller.kubernetes.io/pod-deletion-cost");
            said.and_then(|c| c.parse().ok()).unwrap_or(0_i64)
        };
        living.sort_by_key(|p| cost(p));
        let too_many = living.iter().take(living.len().saturating_sub(replicas));
        let running =
            living.iter().filter(|p| p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running")));
        let needed = replicas.saturating_sub(running.count());
        for pod in too_many.chain(before.iter().skip(needed)) {
            beside(pod.namespace()).delete(&pod.name_any(), &DeleteParams::default()).await?;
        }
    }
    let owned = |p: &Pod| wanted.iter().any(|d| p.owner_references().iter().any(|o| Some(&o.uid) == d.uid().as_ref()));
    for orphan in all.iter().filter(|p| !owned(p) && p.metadata.deletion_timestamp.is_none()) {
        beside(orphan.namespace()).delete(&orphan.name_any(), &DeleteParams::default()).await?;
    }
    Ok(())
}

fn hash(template: &str) -> String {
    let mut hasher = DefaultHasher::new();
    template.hash(&mut hasher);
    format!("{:x}", hasher.finish())
}
