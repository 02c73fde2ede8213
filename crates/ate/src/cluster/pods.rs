//! What a node agent does in Kubernetes: it finds the worker pods of its machine. What it was told last is kept on the machine,
//! so that one that starts while the API server is away finds those whose actors run.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ate_api::id::ObjectName;
use ate_kube::workers;
use ate_node::{Pods, Source, WorkerPod};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::failure::{Outcome, Trying as _};

/// In the data directory.
const KEPT: &str = "worker-pods.json";
/// Another one each time the machine starts.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// What was told last. After the machine restarted the same pods run again, with nobody in them and under other addresses.
#[derive(Serialize, Deserialize)]
struct Kept {
    boot: String,
    pods: Pods,
}

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
    let kept: Kept = serde_json::from_slice(&std::fs::read(kept).ok()?).ok()?;
    kept.pods.filter(|_| std::fs::read_to_string(BOOT).is_ok_and(|boot| boot == kept.boot))
}

/// As a whole. Not synced: after a power cut it is not believed anyway.
fn write(kept: &PathBuf, pods: &Pods) -> std::io::Result<()> {
    let new = kept.with_extension("new");
    std::fs::write(&new, serde_json::to_vec(&Kept { boot: std::fs::read_to_string(BOOT)?, pods: pods.clone() })?)?;
    std::fs::rename(new, kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_last_is_known_until_the_machine_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join(KEPT);
        assert_eq!(read(&kept), None);
        let pool = ObjectName::new("default", "pool");
        let pod = WorkerPod { name: "a".into(), pool, address: Some([10, 0, 0, 1].into()), leaving: false };
        let pods = Some(BTreeMap::from([("uid".to_owned(), pod)]));
        write(&kept, &pods).unwrap();
        assert_eq!(read(&kept), pods);

        let of_another_boot = serde_json::to_vec(&Kept { boot: "another".into(), pods }).unwrap();
        std::fs::write(&kept, of_another_boot).unwrap();
        assert_eq!(read(&kept), None);
    }
}
