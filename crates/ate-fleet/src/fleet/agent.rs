//! The calls of a node agent, each to the node it is for.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use ate_agent::{
    Activate, Activated, AssetReport, AssetUpload, Capture, Captured, LiveSet, LogTail, NodeAgent, NodeEvents,
    PoolSpec, Prepare, Probed, ResolvedImage, SnapshotLocation, SnapshotRef,
};
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, ObjectName, Uid, WorkerId},
};
use ate_sandbox::{Revocations, SandboxRef, Verification};
use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::{
    Fleet, Inner, Member,
    desired::{Desired, share},
    merge,
};

/// Chunks of an upload that a node may be behind.
const CHUNKS: usize = 16;

type Call<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

impl Inner {
    /// Remembers what every node is to know. Those that take part are still to be told; any other is before it does.
    fn remember<T>(&self, change: impl FnOnce(&mut Desired) -> T) -> Vec<Arc<Member>> {
        let mut state = self.lock();
        state.desired.change(change);
        state.here()
    }

    /// Tells every node that takes part. One that cannot be reached is told all again before it counts.
    async fn tell_all(
        &self,
        members: Vec<Arc<Member>>,
        call: impl Fn(usize, Arc<dyn NodeAgent>) -> Call<()>,
    ) -> Result<(), Error> {
        let calls = members.iter().enumerate().map(|(n, member)| call(n, member.agent.clone()));
        let mut failure = Ok(());
        for (member, done) in members.iter().zip(join_all(calls).await) {
            match done {
                Ok(()) => {}
                Err(e) if e.reason == Reason::Unavailable => {
                    tracing::warn!(node = member.name(), "could not be told: {e}");
                    member.here.send_replace(false);
                    member.again.notify_one();
                }
                Err(e) => failure = Err(e.on(format!("node/{}", member.name()))),
            }
        }
        failure
    }

    /// All nodes do it; the first that has done it answers for them, the others go on behind the scenes.
    async fn first_of_all<T: Send + 'static>(&self, call: impl Fn(Arc<dyn NodeAgent>) -> Call<T>) -> Result<T, Error> {
        let calls = self.here().into_iter().map(|member| tokio::spawn(call(member.agent.clone())));
        let mut calls: FuturesUnordered<_> = calls.collect();
        let mut failure = no_node();
        while let Some(done) = calls.next().await {
            match done.unwrap_or_else(|e| Err(Error::new(Reason::Internal, e.to_string()))) {
                Ok(value) => return Ok(value),
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    /// One node does it for all, whichever can be reached.
    async fn any<T>(&self, call: impl Fn(Arc<dyn NodeAgent>) -> Call<T>) -> Result<T, Error> {
        let mut failure = no_node();
        for member in self.here() {
            match call(member.agent.clone()).await {
                Err(e) if e.reason == Reason::Unavailable => failure = e,
                done => return done,
            }
        }
        Err(failure)
    }

    /// The node of a worker that holds somebody does it, also when its agent is replaced over it: the next one finds the
    /// worker as it is, and every call may be repeated.
    async fn at_worker<T>(&self, worker: &WorkerId, call: impl Fn(Arc<dyn NodeAgent>) -> Call<T>) -> Result<T, Error> {
        loop {
            let member = self.of_worker_here(worker).await?;
            let done = tokio::select! {
                done = call(member.agent.clone()) => done,
                () = member.gone.cancelled() => continue,
            };
            match done {
                Err(e) if e.reason == Reason::Unavailable && !*member.here.borrow() => {}
                done => return done,
            }
        }
    }

    async fn where_it_lies<T>(
        &self,
        snapshot: &SnapshotRef,
        call: impl Fn(Arc<dyn NodeAgent>) -> Call<T>,
    ) -> Result<T, Error> {
        match &snapshot.location {
            SnapshotLocation::Local { node } => call(self.named(node).await?.agent.clone()).await,
            SnapshotLocation::External { .. } => self.any(call).await,
        }
    }
}

fn no_node() -> Error {
    Error::new(Reason::Unavailable, "no node is connected").hint("nodes register by themselves; see their logs")
}

#[async_trait]
impl NodeAgent for Fleet {
    fn name(&self) -> &str {
        "fleet"
    }

    fn keeps_workers(&self) -> bool {
        true
    }

    fn events(&self) -> NodeEvents {
        self.0.hub.listen()
    }

    async fn set_pool(&self, pool: PoolSpec) -> Result<(), Error> {
        let members = self.0.remember(|d| d.set_pool(pool.clone()));
        let of = members.len();
        let tell = |n, node: Arc<dyn NodeAgent>| -> Call<()> {
            let share = share(&pool, n, of);
            Box::pin(async move { node.set_pool(share).await })
        };
        self.0.tell_all(members, tell).await
    }

    async fn remove_pool(&self, pool: &ObjectName) -> Result<(), Error> {
        let members = self.0.remember(|d| d.remove_pool(pool));
        let tell = |_, node: Arc<dyn NodeAgent>| -> Call<()> {
            let pool = pool.clone();
            Box::pin(async move { node.remove_pool(&pool).await })
        };
        self.0.tell_all(members, tell).await
    }

    /// One node that has the bytes, or fetches them, speaks for all: what a digest names is the same everywhere.
    async fn check_signatures(
        &self,
        sandbox: &SandboxRef,
        verification: &Verification,
        fetch: bool,
    ) -> Result<(), Error> {
        let check = |node: Arc<dyn NodeAgent>| -> Call<()> {
            let (sandbox, verification) = (sandbox.clone(), verification.clone());
            Box::pin(async move { node.check_signatures(&sandbox, &verification, fetch).await })
        };
        match fetch {
            true => self.0.any(check).await,
            // Any of them may have them.
            false => self.0.tell_all(self.0.here(), |_, node| check(node)).await,
        }
    }

    async fn probe(&self, sandbox: &SandboxRef) -> Result<Probed, Error> {
        let probe = |node: Arc<dyn NodeAgent>| -> Call<Probed> {
            let sandbox = sandbox.clone();
            Box::pin(async move { node.probe(&sandbox).await })
        };
        let probed = self.0.first_of_all(probe).await?;
        let (label, sandbox) = (sandbox.config_label(), sandbox.clone());
        self.0.lock().desired.change(|d| d.sandboxes.insert(label, sandbox));
        Ok(probed)
    }

    /// To every node. One that comes later does not have it.
    async fn import_asset(&self, upload: AssetUpload) -> Result<(Digest, u64, String, bool), Error> {
        let AssetUpload { media_type, size, mut chunks } = upload;
        let (mut senders, mut imports) = (Vec::new(), Vec::new());
        for member in self.0.here() {
            let (sender, receiver) = mpsc::channel(CHUNKS);
            let upload = AssetUpload { media_type: media_type.clone(), size, chunks: receiver };
            senders.push(sender);
            imports.push(async move {
                let done = member.agent.import_asset(upload).await;
                done.map_err(|e| e.on(format!("node/{}", member.name())))
            });
        }
        let forward = async move {
            while let Some(chunk) = chunks.recv().await {
                for sender in &senders {
                    // One that gave up says why in its answer.
                    let _ = sender.send(chunk.clone()).await;
                }
            }
        };
        let (imported, ()) = tokio::join!(join_all(imports), forward);
        let all: Vec<_> = imported.into_iter().collect::<Result<_, _>>()?;
        all.into_iter().next().ok_or_else(no_node)
    }

    async fn assets(&self) -> Result<Vec<AssetReport>, Error> {
        let here = self.0.here();
        let asked = join_all(here.iter().map(|member| member.agent.assets())).await;
        Ok(merge::assets(asked.into_iter().flatten(), here.len()))
    }

    async fn delete_asset(&self, asset: &Digest) -> Result<(), Error> {
        let delete = |_, node: Arc<dyn NodeAgent>| -> Call<()> {
            let asset = asset.clone();
            Box::pin(async move { node.delete_asset(&asset).await })
        };
        self.0.tell_all(self.0.here(), delete).await
    }

    /// A node that is away begins nothing that it is not told to, and is told of the list before anything else.
    async fn set_revocations(&self, revocations: Revocations) -> Result<(), Error> {
        let members = self.0.remember(|d| {
            d.sandboxes.retain(|_, sandbox| revocations.check(sandbox).is_ok());
            d.revocations = Some(revocations.clone());
        });
        let tell = |_, node: Arc<dyn NodeAgent>| -> Call<()> {
            let list = revocations.clone();
            Box::pin(async move { node.set_revocations(list).await })
        };
        self.0.tell_all(members, tell).await
    }

    async fn resolve_image(&self, reference: &str) -> Result<ResolvedImage, Error> {
        let resolve = |node: Arc<dyn NodeAgent>| -> Call<ResolvedImage> {
            let reference = reference.to_owned();
            Box::pin(async move { node.resolve_image(&reference).await })
        };
        self.0.first_of_all(resolve).await
    }

    async fn prepare(&self, prepare: Prepare) -> Result<(), Error> {
        let member = self.0.of_worker(&prepare.worker)?;
        member.present().await?;
        member.agent.prepare(prepare).await
    }

    async fn activate(&self, activate: Activate) -> Result<Activated, Error> {
        let member = self.0.of_worker(&activate.worker)?;
        member.present().await?;
        member.agent.activate(activate).await
    }

    async fn capture(&self, capture: Capture) -> Result<Captured, Error> {
        let call = |node: Arc<dyn NodeAgent>| -> Call<Captured> {
            let capture = capture.clone();
            Box::pin(async move { node.capture(capture).await })
        };
        self.0.at_worker(&capture.worker, call).await
    }

    async fn thaw(&self, worker: &WorkerId, actor: &Uid, activation: Activation, generation: u64) -> Result<(), Error> {
        let call = |node: Arc<dyn NodeAgent>| -> Call<()> {
            let (worker, actor) = (worker.clone(), actor.clone());
            Box::pin(async move { node.thaw(&worker, &actor, activation, generation).await })
        };
        self.0.at_worker(worker, call).await
    }

    async fn release(&self, worker: &WorkerId, actor: &Uid, activation: Activation) -> Result<(), Error> {
        let call = |node: Arc<dyn NodeAgent>| -> Call<()> {
            let (worker, actor) = (worker.clone(), actor.clone());
            Box::pin(async move { node.release(&worker, &actor, activation).await })
        };
        self.0.at_worker(worker, call).await
    }

    async fn manifest(&self, snapshot: &SnapshotRef) -> Result<Vec<u8>, Error> {
        let read = |node: Arc<dyn NodeAgent>| -> Call<Vec<u8>> {
            let snapshot = snapshot.clone();
            Box::pin(async move { node.manifest(&snapshot).await })
        };
        self.0.where_it_lies(snapshot, read).await
    }

    /// Copies on other nodes go with the next collection there.
    async fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<(), Error> {
        let delete = |node: Arc<dyn NodeAgent>| -> Call<()> {
            let snapshot = snapshot.clone();
            Box::pin(async move { node.delete_snapshot(&snapshot).await })
        };
        if let SnapshotLocation::Local { node } = &snapshot.location
            && !self.has(node)
        {
            // Given up. Should it come back, this goes with the next collection there too.
            return Ok(());
        }
        self.0.where_it_lies(snapshot, delete).await
    }

    /// Object storage is the same for all, so one of them looks into it.
    async fn collect(&self, live: LiveSet) -> Result<(), Error> {
        let collect = |n, node: Arc<dyn NodeAgent>| -> Call<()> {
            let mut live = live.clone();
            if n > 0 {
                (live.locations, live.stored) = Default::default();
            }
            Box::pin(async move { node.collect(live).await })
        };
        self.0.tell_all(self.0.here(), collect).await
    }

    /// An actor may have been on several nodes.
    async fn logs(&self, actor: &Uid, container: &str, tail: u32, follow: bool) -> Result<LogTail, Error> {
        let here = self.0.here();
        let asked = join_all(here.iter().map(|member| member.agent.logs(actor, container, tail, follow))).await;
        let (mut tails, mut failure) = (Vec::new(), no_node());
        for answer in asked {
            match answer {
                Ok(lines) => tails.push(lines),
                Err(e) => failure = e,
            }
        }
        if tails.is_empty() { Err(failure) } else { Ok(merge::logs(tails, tail, follow)) }
    }
}
