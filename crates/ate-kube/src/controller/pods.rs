//! Worker pods that end, for whatever reason: whoever is on the worker is moved off it first, and only then is the pod gone.

use std::{sync::Arc, time::Duration};

use ate_control::declared::{Declared, WorkerUse};
use futures::StreamExt as _;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    ResourceExt as _,
    api::Api,
    runtime::{
        controller::{Action, Controller as Reconciler},
        finalizer, watcher,
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, Failure,
    deployment::{DRAIN, POOL},
};

/// After its time is over the node has killed whatever was in it, or is gone itself.
const SLACK: Duration = Duration::from_secs(5);

pub(super) async fn follow(context: Arc<Context>, stop: CancellationToken) {
    let pods: Api<Pod> = Api::all(context.client.clone());
    let reconciled = Reconciler::new(pods, watcher::Config::default().labels(POOL))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, |_, failure: &Failure, _| failure.again(), context);
    reconciled
        .for_each(|result| async move {
            if let Err(e) = result {
                tracing::debug!(error = %e, "worker pod is not drained yet");
            }
        })
        .await;
}

async fn reconcile(pod: Arc<Pod>, context: Arc<Context>) -> Result<Action, Failure> {
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &pod.namespace().unwrap_or_default());
    let done = finalizer(&api, DRAIN, pod, |event| async {
        match event {
            finalizer::Event::Apply(_) => Ok(Action::await_change()),
            finalizer::Event::Cleanup(pod) if is_over(&pod) || is_drained(&pod, &context.declared) => {
                Ok(Action::await_change())
            }
            finalizer::Event::Cleanup(_) => Err(Failure::Pending("an actor is on its worker")),
        }
    });
    Ok(done.await?)
}

/// The worker in a pod, if the node has told of it.
pub(super) fn worker(pod: &Pod, declared: &Declared) -> Option<WorkerUse> {
    declared.worker_in(&pod.uid()?)
}

/// The node sees that the pod ends and says that its worker leaves; then the control plane moves whoever is on it.
fn is_drained(pod: &Pod, declared: &Declared) -> bool {
    worker(pod, declared).is_some_and(|w| w.is_leaving && w.is_empty)
}

/// Nothing runs in it any more, or ever did.
fn is_over(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let phase = status.and_then(|s| s.phase.as_deref());
    let placed = pod.spec.as_ref().is_some_and(|s| s.node_name.is_some());
    // When it was to be deleted at the latest.
    let due = pod.metadata.deletion_timestamp.as_ref().map(|t| t.0 + SLACK);
    matches!(phase, Some("Succeeded" | "Failed")) || !placed || due.is_some_and(|due| due < Timestamp::now())
}
