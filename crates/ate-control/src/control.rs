//! The handle of a running control plane.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use ate_agent::NodeAgent;
use ate_api::{Error, Reason, id::ActorName};
use ate_sandbox::Registry;
use ate_store::Store;
use tokio::sync::{broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{Access, audit::Audit, review::Reviews},
    catalog::Catalog,
    core::{Core, Running},
    db::Db,
    options::Options,
    policy, reconcile, revocation, rollout,
    scheduler::Scheduler,
    traffic::Traffic,
    usage,
    workflow::{
        self,
        turns::{Kind, Turns},
    },
};

/// Changes of assets a slow watcher may be behind.
const ASSET_CHANGES: usize = 256;

/// A running control plane. Clones are handles of the same one.
#[derive(Clone)]
pub struct Control {
    pub(crate) core: Arc<Core>,
}

impl Control {
    /// Loads the state, puts to rest whoever held a worker when the last one ended (or adopts them, where workers outlive
    /// the control plane), and starts the background work. Fails when the store cannot be read, or the audit log cannot be written.
    pub async fn start(
        options: Options,
        store: Arc<dyn Store>,
        node: Arc<dyn NodeAgent>,
        traffic: Arc<dyn Traffic>,
        classes: Registry,
    ) -> Result<Control, Error> {
        let audit = Audit::open(options.audit_log.as_deref())
            .map_err(|e| Error::new(Reason::StorageUnavailable, format!("cannot open the audit log: {e}")))?;
        let reviews = options.reviewer.clone().map(|reviewer| Arc::new(Reviews::new(reviewer, options.review_ttl)));
        let core = Arc::new(Core {
            scheduler: Scheduler::new(options.queue_limit),
            options,
            db: Db::new(store),
            access: Access { tokens: Default::default(), audit, reviews },
            node,
            traffic,
            classes,
            admitted: Default::default(),
            withdrawn: Mutex::default(),
            revoked: Default::default(),
            revoking: Default::default(),
            node_back: Default::default(),
            catalog: Catalog::new(),
            turns: Arc::new(Turns::default()),
            live: Default::default(),
            adoption: Default::default(),
            recent: Mutex::default(),
            demand: Mutex::default(),
            assets: Mutex::default(),
            asset_changes: broadcast::channel(ASSET_CHANGES).0,
            garbage: Default::default(),
            config_ready: watch::channel(0).0,
            keeper: Default::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        core.load_revocations().await?;
        core.load_tokens().await?;
        core.load_catalog().await?;
        if core.node.keeps_workers() {
            let awaited = core.await_all().await?;
            tracing::info!(awaited, "actors that held a worker are looked for");
            core.spawn(workflow::adopt::run(core.clone()));
        } else {
            let recovered = core.recover_all().await?;
            if recovered > 0 {
                tracing::info!(recovered, "actors that held a worker are back at their last committed generation");
            }
        }
        core.spawn(reconcile::node_events::run(core.clone()));
        core.spawn(reconcile::configs::run(core.clone()));
        core.spawn(reconcile::pools::run(core.clone()));
        core.spawn(reconcile::leaving::run(core.clone()));
        core.spawn(reconcile::templates::run(core.clone()));
        core.spawn(reconcile::platforms::run(core.clone()));
        core.spawn(reconcile::garbage::run(core.clone()));
        core.spawn(reconcile::collect::run(core.clone()));
        core.spawn(policy::idle::run(core.clone()));
        core.spawn(policy::evict::run(core.clone()));
        core.spawn(policy::prepare::run(core.clone()));
        core.spawn(workflow::live::run(core.clone()));
        core.spawn(usage::counts::run(core.clone()));
        core.spawn(revocation::keep::run(core.clone()));
        core.spawn(revocation::conditions::run(core.clone()));
        core.spawn(rollout::run::run(core.clone()));
        Ok(Control { core })
    }

    /// Brings an actor to life, or finds it alive. For the router: many callers at once cause one activation, and
    /// an actor that runs already is answered from memory.
    ///
    /// Errors: `NOT_FOUND`, `NO_FREE_WORKER` and `QUEUE_FULL` (try again later), `NO_SUITABLE_WORKER`,
    /// `TEMPLATE_NOT_READY`, `DEADLINE_EXCEEDED`, and what the node says of a start that failed.
    pub async fn resume(&self, actor: &ActorName, boot: bool, deadline: Instant) -> Result<Running, Error> {
        self.core.resume(actor, boot, deadline).await
    }

    /// Suspends every running actor, at most for `drain`, and ends the background work. Actors that could not be
    /// suspended in time are put to rest at the next start, at their last committed generation.
    pub async fn shutdown(&self, drain: Duration) {
        let deadline = Instant::now() + drain;
        let suspended = self.core.scheduler.holders().into_iter().map(|(_, holder)| {
            let core = self.core.clone();
            async move {
                if let Err(e) = core.suspend(&holder.actor, Kind::Suspend, deadline, Duration::ZERO).await {
                    tracing::warn!(actor = %holder.actor, error = %e, "not suspended before the end");
                }
            }
        });
        let _ = tokio::time::timeout_at(deadline.into(), futures::future::join_all(suspended)).await;
        self.stop();
        self.core.tasks.close();
        let _ = tokio::time::timeout_at((deadline + Duration::from_secs(1)).into(), self.core.tasks.wait()).await;
    }

    /// Ends the background work and suspends nothing: another control plane takes over, or the process ends.
    pub fn stop(&self) {
        self.core.stop.cancel();
    }
}
