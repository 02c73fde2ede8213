//! Many nodes as one. A worker's report names its node, so a call that is for a worker goes there; what is for all nodes
//! is remembered, and told to each that comes or comes back before it counts as one of them.

mod agent;
mod desired;
mod follow;
mod merge;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ate_agent::{Hub, NodeAgent};
use ate_api::{Error, Reason, id::WorkerId};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::desired::Desired;

/// What is for a node that is away waits for it this long; then whoever asked had better look elsewhere.
const COMES_BACK: Duration = Duration::from_secs(10);

/// Nodes that come and go, as one node agent. Clones are the same.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    hub: Hub,
    state: Mutex<State>,
    /// A node that was not heard of for this long is given up, with whatever ran on it.
    loss: Duration,
    /// There are more or fewer nodes than when the pools were shared out.
    uneven: Notify,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    members: BTreeMap<String, Arc<Member>>,
    desired: Desired,
}

struct Member {
    agent: Arc<dyn NodeAgent>,
    /// It was told all there is to know, and has said which workers it has.
    here: watch::Sender<bool>,
    /// It may not have heard something: it is told all again.
    again: Notify,
    /// Another has taken its place, or it was given up.
    gone: CancellationToken,
}

impl Fleet {
    /// Without nodes. One that is not heard of for as long as `loss` is given up. Needs a tokio runtime.
    pub fn new(loss: Duration) -> Self {
        let (hub, state, uneven, stop) = (Hub::default(), Mutex::default(), Notify::new(), CancellationToken::new());
        let inner = Arc::new(Inner { hub, state, loss, uneven, stop });
        tokio::spawn(follow::keep_shared_out(inner.clone()));
        Fleet(inner)
    }

    /// Takes a node in, in place of another of the same name.
    pub fn join(&self, agent: Arc<dyn NodeAgent>) {
        let name = agent.name().to_owned();
        let member = Arc::new(Member {
            agent,
            here: watch::Sender::new(false),
            again: Notify::new(),
            gone: self.0.stop.child_token(),
        });
        if let Some(former) = self.0.lock().members.insert(name, member.clone()) {
            former.gone.cancel();
            former.here.send_replace(false);
        }
        tokio::spawn(follow::run(self.0.clone(), member));
    }

    /// Whether a node of this name was taken in and not given up.
    pub fn has(&self, name: &str) -> bool {
        self.0.lock().members.contains_key(name)
    }

    /// Listens to no node any more.
    pub fn close(&self) {
        self.0.stop.cancel();
        self.0.hub.close();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nodes that take part, by name.
    fn here(&self) -> Vec<Arc<Member>> {
        self.lock().here()
    }

    /// The node a worker is on.
    fn of_worker(&self, worker: &WorkerId) -> Result<Arc<Member>, Error> {
        let lost = || Error::new(Reason::WorkerLost, "the worker is gone").on(format!("worker/{worker}"));
        let report = self.hub.worker(worker).ok_or_else(lost)?;
        self.lock().members.get(&report.node).cloned().ok_or_else(lost)
    }

    /// The same once it takes part: until then it may not have found the worker, and whoever is on it, again. Waits until it
    /// is given up.
    async fn of_worker_here(&self, worker: &WorkerId) -> Result<Arc<Member>, Error> {
        loop {
            let member = self.of_worker(worker)?;
            if self.stop.is_cancelled() {
                return Err(away(member.name(), "nobody listens to it any more"));
            }
            let mut here = member.here.subscribe();
            tokio::select! {
                Ok(_) = here.wait_for(|here| *here) => {}
                // Another agent has taken its place, or none has.
                () = member.gone.cancelled() => continue,
            }
            return Ok(member);
        }
    }

    /// The node of a name, once it takes part.
    async fn named(&self, name: &str) -> Result<Arc<Member>, Error> {
        let member = self.lock().members.get(name).cloned();
        let member = member.ok_or_else(|| away(name, "there is no such node now"))?;
        member.present().await?;
        Ok(member)
    }
}

impl State {
    fn here(&self) -> Vec<Arc<Member>> {
        self.members.values().filter(|m| *m.here.borrow()).cloned().collect()
    }
}

impl Member {
    fn name(&self) -> &str {
        self.agent.name()
    }

    /// Returns when it takes part: until then it may not know what must not run any more.
    async fn present(&self) -> Result<(), Error> {
        let mut here = self.here.subscribe();
        match tokio::time::timeout(COMES_BACK, here.wait_for(|here| *here)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(away(self.name(), "it is not connected")),
        }
    }
}

fn away(node: &str, why: &str) -> Error {
    Error::new(Reason::Unavailable, format!("node {node} is away: {why}")).on(format!("node/{node}"))
}
