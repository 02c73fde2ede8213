//! What a control plane does in Kubernetes beside its work: it asks the cluster about its callers, follows what is declared
//! there, and while it leads its pod is the one that the services select.

use std::{sync::Arc, time::Duration};

use ate_control::{Control, Reviewer};
use ate_kube::{controller::Controller, review::KubeReviewer};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::failure::Outcome;

/// On the pod that leads.
const LEADER: &str = "ate.dev/leader";
/// On every pod of the control plane.
const CONTROL: &str = "app=ate-control";
/// Before the cluster is asked anew for what it did not do. While it is away clients cannot be led here anyway.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Kubernetes {
    client: Client,
    pods: Api<Pod>,
    /// Of this process.
    pod: String,
}

impl Kubernetes {
    /// The cluster this runs in, or the one a kubeconfig names.
    pub(super) async fn connect(pod: &str, namespace: &str) -> Outcome<Kubernetes> {
        let client = super::kube_client().await?;
        let pods = Api::namespaced(client.clone(), namespace);
        Ok(Kubernetes { client, pods, pod: pod.to_owned() })
    }

    pub(super) fn reviewer(&self) -> Arc<dyn Reviewer> {
        Arc::new(KubeReviewer::new(self.client.clone()))
    }

    /// Runs until `stop`.
    pub(super) async fn lead(self, control: Control, stop: CancellationToken) {
        let labelled = async {
            while let Err(e) = self.take_label().await {
                tracing::warn!("clients are not led to this process yet: {e}");
                tokio::time::sleep(AGAIN).await;
            }
        };
        let controller = Controller::run(self.client.clone(), &control, &self.pod, stop.clone());
        tokio::select! {
            () = stop.cancelled() => {}
            ((), ()) = async { tokio::join!(labelled, controller) } => {}
        }
    }

    /// First this pod has it, then no other: between the two a client may reach one that turns it away, never none.
    async fn take_label(&self) -> Result<(), kube::Error> {
        let set = |value: Option<&str>| json!({"metadata": {"labels": {LEADER: value}}});
        let patch = PatchParams::default();
        self.pods.patch(&self.pod, &patch, &Patch::Merge(set(Some("true")))).await?;
        let others = self.pods.list(&ListParams::default().labels(&format!("{CONTROL},{LEADER}"))).await?;
        for other in others.items.iter().map(|p| p.name_any()).filter(|name| *name != self.pod) {
            match self.pods.patch(&other, &patch, &Patch::Merge(set(None))).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}
