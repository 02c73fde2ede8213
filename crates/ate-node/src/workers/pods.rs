//! Workers that are pods: which there are on this machine is said by somebody who watches, and here is where their
//! herders are found.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ate_agent::Pod;
use ate_api::id::{ObjectName, WorkerId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::attached::{Place, SOCKET};

/// Where workers come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The node starts them.
    Processes,
    /// They are there, and this says which.
    Pods(watch::Receiver<Pods>),
}

/// The worker pods of this machine by their uid; none: nobody has said yet.
pub type Pods = Option<BTreeMap<String, WorkerPod>>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPod {
    pub name: String,
    pub pool: ObjectName,
    /// Its address, once it has one.
    pub address: Option<Ipv4Addr>,
    /// It is being deleted.
    pub leaving: bool,
}

/// Pods, and the directory below which each has one of its own, by uid.
#[derive(Debug, Clone)]
pub(crate) struct PodPlaces {
    pub(crate) pods: watch::Receiver<Pods>,
    pub(crate) dir: PathBuf,
}

impl PodPlaces {
    /// The pods of a pool that can be looked for, by the ids of their workers. One that leaves and has no herder any
    /// more is not.
    pub(super) fn of(&self, pool: &ObjectName) -> BTreeMap<WorkerId, (Place, bool)> {
        let pods = self.pods.borrow();
        let ours = pods.iter().flatten().filter(|(_, pod)| pod.pool == *pool);
        ours.filter_map(|(uid, pod)| {
            let dir = self.dir.join(uid);
            if !is_plain(uid) || (pod.leaving && !dir.join(SOCKET).exists()) {
                return None;
            }
            let place = Place { dir, address: pod.address?, pod: Pod { name: pod.name.clone(), uid: uid.clone() } };
            Some((worker_id(uid, &pod.name), (place, pod.leaving)))
        })
        .collect()
    }

    /// Workers of these pools whose herder is up: they are found soon.
    pub(super) fn up(&self, pools: &[ObjectName]) -> Vec<WorkerId> {
        let all = pools.iter().flat_map(|pool| self.of(pool));
        all.filter(|(_, (place, _))| place.dir.join(SOCKET).exists()).map(|(id, _)| id).collect()
    }

    /// Whether somebody has said which pods there are.
    pub(super) fn is_known(&self) -> bool {
        self.pods.borrow().is_some()
    }

    /// Removes what pods that are gone have left.
    pub(crate) fn clean(&self) {
        let pods = self.pods.borrow().clone();
        let (Some(pods), Ok(entries)) = (pods, std::fs::read_dir(&self.dir)) else { return };
        for dir in entries.filter_map(|e| Some(e.ok()?.path())) {
            let uid = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if is_plain(uid) && !pods.contains_key(uid) && is_old(&dir) {
                tracing::info!(dir = %dir.display(), "removing what a pod that is gone has left");
                let _ = std::fs::remove_dir_all(&dir);
            }
        }
    }
}

/// Not one that was just made by a pod we have not heard of yet.
fn is_old(dir: &Path) -> bool {
    const AGE: std::time::Duration = std::time::Duration::from_secs(10 * 60);
    std::fs::metadata(dir).and_then(|m| m.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > AGE))
}

/// A path is built from it.
fn is_plain(uid: &str) -> bool {
    !uid.is_empty() && uid.len() <= 64 && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn worker_id(uid: &str, name: &str) -> WorkerId {
    WorkerId(format!("{name}.{uid}"))
}
