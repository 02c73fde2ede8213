//! The worker pods of one machine, as its node agent has to know them.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    runtime::{WatchStreamExt as _, watcher, watcher::Event},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::controller::POOL;

/// A watch that ends, as none should, is begun again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// A pod with a herder in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    pub namespace: String,
    pub name: String,
    pub pool: String,
    pub address: Option<Ipv4Addr>,
    /// It is being deleted.
    pub leaving: bool,
}

/// The pods by uid, until `stop`. None until the API server has said which there are; while it is away, those there were.
pub fn follow(
    client: Client,
    node: &str,
    stop: CancellationToken,
) -> watch::Receiver<Option<BTreeMap<String, Worker>>> {
    let (tx, rx) = watch::channel(None);
    let config = watcher::Config::default().labels(POOL).fields(&format!("spec.nodeName={node}"));
    tokio::spawn(async move {
        while !stop.is_cancelled() && !tx.is_closed() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = tx.closed() => {}
                () = once(Api::all(client.clone()), config.clone(), &tx) => tokio::time::sleep(AGAIN).await,
            }
        }
    });
    rx
}

async fn once(pods: Api<Pod>, config: watcher::Config, tx: &watch::Sender<Option<BTreeMap<String, Worker>>>) {
    let mut listed = BTreeMap::new();
    // Errors are tried again with growing pauses, for as long as it takes.
    let mut events = std::pin::pin!(watcher(pods, config).default_backoff());
    loop {
        match events.try_next().await {
            Ok(Some(Event::Init)) => listed.clear(),
            Ok(Some(Event::InitApply(pod))) => listed.extend(worker(&pod)),
            Ok(Some(Event::InitDone)) => tell(tx, Some(std::mem::take(&mut listed))),
            Ok(Some(Event::Apply(pod))) => {
                let mut now = tx.borrow().clone().unwrap_or_default();
                match worker(&pod) {
                    Some((uid, worker)) => drop(now.insert(uid, worker)),
                    None => drop(pod.uid().and_then(|uid| now.remove(&uid))),
                }
                tell(tx, Some(now));
            }
            Ok(Some(Event::Delete(pod))) => {
                let mut now = tx.borrow().clone().unwrap_or_default();
                pod.uid().and_then(|uid| now.remove(&uid));
                tell(tx, Some(now));
            }
            Ok(None) => return,
            Err(e) => tracing::warn!("the pods of this machine cannot be watched now: {e}"),
        }
    }
}

fn tell(tx: &watch::Sender<Option<BTreeMap<String, Worker>>>, now: Option<BTreeMap<String, Worker>>) {
    tx.send_if_modified(|before| {
        let news = *before != now;
        *before = now;
        news
    });
}

/// None: nothing runs in it any more.
fn worker(pod: &Pod) -> Option<(String, Worker)> {
    let status = pod.status.as_ref();
    let over = matches!(status.and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    let pool = pod.labels().get(POOL).filter(|_| !over)?.clone();
    let address = status.and_then(|s| s.pod_ip.as_deref()).and_then(|ip| ip.parse().ok());
    let leaving = pod.metadata.deletion_timestamp.is_some();
    let namespace = pod.namespace().unwrap_or_default();
    Some((pod.uid()?, Worker { namespace, name: pod.name_any(), pool, address, leaving }))
}
