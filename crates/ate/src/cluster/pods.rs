//! What a node agent does in Kubernetes: it finds the worker pods of its machine. What it was told last is kept on the machine,
//! so that one that starts while the API server is away finds those whose actors run.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ate_api::id::ObjectName;
use ate_kube::workers;
use ate_node::{Pods, Source, WorkerPod};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::failure::{Outcome, Trying as _};

/// In the data directory.
const KEPT: &str = "worker-pods.json";

/// The worker pods of a machine, until `stop`.
pub(super) async fn of(node: &str, data_dir: &Path, stop: CancellationToken) -> Outcome<Source> {
    let mut found = workers::follow(super::kube_client().await?, node, stop);
    std::fs::create_dir_all(data_dir).trying(|| format!("cannot use {}", data_dir.display()))?;
    let kept = data_dir.join(KEPT);
    let (tx, rx) = watch::channel(read(&kept));
    tokio::spawn(async move {
        while found.changed().await.is_ok() {
            let pods = found.borrow_and_update().clone().map(|pods| {
                let pods = pods.into_iter().map(|(uid, w)| {
                    let pool = ObjectName::new(w.namespace, w.pool);
                    (uid, WorkerPod { name: w.name, pool, address: w.address, leaving: w.leaving })
                });
                pods.collect::<BTreeMap<_, _>>()
            });
            if let Err(e) = write(&kept, &pods) {
                tracing::warn!("cannot write {}: {e}", kept.display());
            }
            if tx.send(pods).is_err() {
                return;
            }
        }
    });
    Ok(Source::Pods(rx))
}

fn read(kept: &Path) -> Pods {
    serde_json::from_slice(&std::fs::read(kept).ok()?).ok()
}

/// As a whole. Not synced: after a power cut none of them runs.
fn write(kept: &PathBuf, pods: &Pods) -> std::io::Result<()> {
    let new = kept.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(pods)?)?;
    std::fs::rename(new, kept)
}
