//! The simulated machine as the control plane reaches it: calls that are refused, take effect without an answer, take
//! effect long after their caller has given up, or twice.
//!
//! That is more than can happen to a struct in the same process; the contract of [`NodeAgent`] allows it, for it is the
//! same trait over a network.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use ate_agent::*;
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, ObjectName, Uid, WorkerId},
};
use ate_sandbox::{Revocations, SandboxRef, Verification, capability};
use tokio::sync::mpsc;

use crate::{weather::Call, world::World};

const CAPABILITIES: [&str; 6] = [
    capability::SNAPSHOT_FULL,
    capability::SNAPSHOT_DATA,
    capability::SNAPSHOT_MULTI_CONTAINER,
    capability::SNAPSHOT_BASE,
    capability::PREPARE,
    capability::STANDBY,
];

/// Reasons a call may be refused for.
const REFUSALS: [Reason; 5] =
    [Reason::Unavailable, Reason::Internal, Reason::SandboxFailed, Reason::DiskFull, Reason::StorageUnavailable];

/// A connection on which nothing is heard is given up after this. Most callers give up before.
const KEEP_ALIVE: Duration = Duration::from_secs(90);

pub(crate) struct Node(pub(crate) Arc<World>);

/// Whether a call may overtake others, or be overtaken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Any,
    /// A capture that comes after the thaw that calls it off would freeze the actor for nobody.
    Kept,
}

impl Node {
    /// Whatever is begun goes on when the caller leaves.
    async fn call<T, W>(
        &self,
        what: String,
        order: Order,
        effect: impl Fn(Arc<World>) -> W + Send + Sync + 'static,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let w = self.0.clone();
        let fate = w.weather.call(&w.chance);
        w.note(|| format!("call {what} {fate:?}"));
        let delay = if order == Order::Kept { Duration::ZERO } else { w.weather.node_delay(&w.chance) };
        let world = w.clone();
        let run = move || {
            let done = effect(world.clone());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                done.await
            })
        };
        let lost = || Err(Error::new(Reason::Unavailable, "the answer is lost"));
        let answer = match fate {
            Call::Fine => run().await.unwrap_or_else(|_| lost()),
            Call::Refused => {
                tokio::time::sleep(delay).await;
                let reason = w.chance.one_of(&REFUSALS).copied().unwrap_or(Reason::Unavailable);
                Err(Error::new(reason, "as the weather is"))
            }
            Call::AnswerLost => {
                let effect = run();
                // Heard before or after it has taken effect.
                if order == Order::Kept || w.chance.happens(0.7) {
                    let _ = effect.await;
                }
                lost()
            }
            Call::Silent(late) => {
                if let Some(time) = late {
                    let time = if order == Order::Kept { Duration::ZERO } else { time };
                    tokio::spawn(async move {
                        tokio::time::sleep(time).await;
                        let _ = run().await;
                    });
                }
                tokio::time::sleep(KEEP_ALIVE).await;
                lost()
            }
            Call::Twice(after) => {
                let first = run();
                let after = if order == Order::Kept { Duration::ZERO } else { after };
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    let _ = run().await;
                });
                first.await.unwrap_or_else(|_| lost())
            }
        };
        w.note(|| match &answer {
            Ok(_) => format!("answer {what}: done"),
            Err(e) => format!("answer {what}: {e}"),
        });
        answer
    }
}

#[async_trait]
impl NodeAgent for Node {
    fn name(&self) -> &str {
        "node-1"
    }

    fn events(&self) -> NodeEvents {
        self.0.listen()
    }

    async fn set_pool(&self, pool: PoolSpec) -> Result<(), Error> {
        self.call(format!("set_pool {} {}", pool.name, pool.replicas), Order::Any, move |w| {
            let pool = pool.clone();
            async move {
                w.set_pool(pool).await;
                Ok(())
            }
        })
        .await
    }

    async fn remove_pool(&self, pool: &ObjectName) -> Result<(), Error> {
        let pool = pool.clone();
        self.call(format!("remove_pool {pool}"), Order::Any, move |w| {
            let pool = pool.clone();
            async move {
                w.remove_pool(pool).await;
                Ok(())
            }
        })
        .await
    }

    async fn check_signatures(&self, _: &SandboxRef, _: &Verification, _: bool) -> Result<(), Error> {
        self.call("check_signatures".to_owned(), Order::Any, |_| async { Ok(()) }).await
    }

    async fn probe(&self, sandbox: &SandboxRef) -> Result<Probed, Error> {
        let sandbox = sandbox.clone();
        self.call(format!("probe {}", sandbox.config_label()), Order::Any, move |w| {
            let sandbox = sandbox.clone();
            async move {
                w.machine.lock().revoked.check(&sandbox)?;
                w.verified(sandbox.config_label());
                Ok(Probed { capabilities: CAPABILITIES.map(str::to_owned).to_vec(), versions: Default::default() })
            }
        })
        .await
    }

    async fn import_asset(&self, _: AssetUpload) -> Result<(Digest, u64, String, bool), Error> {
        Err(Error::new(Reason::Unimplemented, "not on a simulated machine"))
    }

    async fn assets(&self) -> Result<Vec<AssetReport>, Error> {
        Ok(Vec::new())
    }

    async fn delete_asset(&self, _: &Digest) -> Result<(), Error> {
        Ok(())
    }

    async fn set_revocations(&self, revocations: Revocations) -> Result<(), Error> {
        self.call(format!("set_revocations {}", revocations.version), Order::Any, move |w| {
            let new = revocations.clone();
            async move {
                let mut s = w.machine.lock();
                if new.version < s.revoked.version {
                    return Err(Error::new(Reason::Fenced, "an older list"));
                }
                s.revoked = new;
                Ok(())
            }
        })
        .await
    }

    async fn resolve_image(&self, reference: &str) -> Result<ResolvedImage, Error> {
        let digest = Digest::of(reference.as_bytes());
        self.call(format!("resolve_image {reference}"), Order::Any, move |_| {
            let digest = digest.clone();
            async move { Ok(ResolvedImage { digest, exposed_ports: vec![8080] }) }
        })
        .await
    }

    async fn prepare(&self, prepare: Prepare) -> Result<(), Error> {
        self.call(format!("prepare {} {}", prepare.worker, prepare.template.name), Order::Any, move |w| {
            let (worker, sandbox) = (prepare.worker.clone(), prepare.sandbox.clone());
            async move { w.prepare(&worker, &sandbox) }
        })
        .await
    }

    async fn activate(&self, a: Activate) -> Result<Activated, Error> {
        self.0.judge.activating(&self.0, &a);
        self.call(format!("activate {} {} on {}", a.actor.name, a.activation, a.worker), Order::Any, move |w| {
            w.activate(a.clone())
        })
        .await
    }

    async fn capture(&self, c: Capture) -> Result<Captured, Error> {
        let what = format!("capture {} {} as {} {:?}", c.actor.name, c.activation, c.generation, c.scope);
        self.call(what, Order::Kept, move |w| w.capture(c.clone())).await
    }

    async fn thaw(&self, worker: &WorkerId, actor: &Uid, activation: Activation, generation: u64) -> Result<(), Error> {
        let (worker, actor) = (worker.clone(), actor.clone());
        let what = format!("thaw {worker} {activation} of {generation}");
        self.call(what, Order::Any, move |w| w.thaw(worker.clone(), actor.clone(), activation, generation)).await
    }

    async fn release(&self, worker: &WorkerId, actor: &Uid, activation: Activation) -> Result<(), Error> {
        let (worker, actor) = (worker.clone(), actor.clone());
        self.call(format!("release {worker} {activation}"), Order::Any, move |w| {
            w.release(worker.clone(), actor.clone(), activation)
        })
        .await
    }

    async fn manifest(&self, _: &SnapshotRef) -> Result<Vec<u8>, Error> {
        Err(Error::new(Reason::Unimplemented, "not on a simulated machine"))
    }

    async fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<(), Error> {
        let snapshot = snapshot.clone();
        self.call(format!("delete_snapshot {}", snapshot.manifest.short()), Order::Any, move |w| {
            w.delete(snapshot.clone())
        })
        .await
    }

    async fn collect(&self, live: LiveSet) -> Result<(), Error> {
        self.call(format!("collect all but {}", live.manifests.len()), Order::Any, move |w| w.collect(live.clone()))
            .await
    }

    async fn logs(&self, _: &Uid, _: &str, _: u32, _: bool) -> Result<LogTail, Error> {
        Ok(mpsc::channel(1).1)
    }
}

impl World {
    fn prepare(&self, worker: &WorkerId, sandbox: &SandboxRef) -> Result<(), Error> {
        let mut s = self.machine.lock();
        s.revoked.check(sandbox)?;
        match s.worker(worker)?.is_idle() {
            true => Ok(()),
            false => Err(Error::new(Reason::WrongState, "the worker is not idle")),
        }
    }
}
