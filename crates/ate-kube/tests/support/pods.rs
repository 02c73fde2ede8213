//! What a cluster does beside its API server, played: for each Deployment of a pool its pods, on a node that says they run;
//! what is deleted ends when nobody holds it any more. The node of the control plane is told of them.

use std::time::Duration;

use ate_api::id::ObjectName;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;

use super::node::PodNode;

const POOL: &str = "ate.dev/worker-pool";

/// Plays until it is dropped.
pub struct Kubelet(tokio::task::JoinHandle<()>);

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub fn play(client: Client, namespace: &str, node: PodNode) -> Kubelet {
    let namespace = namespace.to_owned();
    Kubelet(tokio::spawn(async move {
        loop {
            // The API server may be away.
            let _ = turn(&client, &namespace, &node).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }))
}

async fn turn(client: &Client, namespace: &str, node: &PodNode) -> Result<(), kube::Error> {
    ate_kube_harness::play_deployments(client, Some(namespace), POOL, &["node-1"]).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let all = pods.list(&ListParams::default().labels(POOL)).await?.items;
    let runs = |p: &Pod| p.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
    for pod in &all {
        match pod.metadata.deletion_timestamp.is_some() {
            // The kubelet's word that nothing runs in it any more, once nobody holds it.
            true if pod.finalizers().is_empty() => {
                pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
            }
            false if !runs(pod) => {
                let status = json!({"status": {"phase": "Running", "podIP": "127.0.0.1"}});
                pods.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await?;
            }
            _ => {}
        }
    }
    let known = all.iter().filter(|p| runs(p)).filter_map(|p| {
        let pool = p.labels().get(POOL)?;
        let pod = ate_agent::Pod { name: p.name_any(), uid: p.uid()? };
        Some((pod, ObjectName::new(namespace, pool), p.metadata.deletion_timestamp.is_some()))
    });
    node.set_pods(known.collect());
    Ok(())
}
