//! Worker pools: resolves what they run under, tells the node, drains before it takes away, keeps the status.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use ate_agent::PoolSpec;
use ate_api::{Error, Reason, id::ObjectName};
use ate_store::{Expect, Transaction};

use crate::{
    core::Core,
    records::{PoolRecord, Revision, keys},
    resources::pools::set_ready,
    scheduler::{PoolInfo, Stage},
    workflow::turns::Kind,
};

/// Label every pool has, as the reference's clusters do.
const POOL_LABEL: &str = "ate.dev/worker-pool";
/// Worker changes come in bursts; the status is written once for a burst.
const GATHER: Duration = Duration::from_millis(50);
/// Everything is looked at again this often, for what failed and for what is draining.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) async fn run(core: Arc<Core>) {
    let mut pools = core.catalog.pools.watch();
    let mut configs = core.catalog.configs.watch();
    let mut ready = core.config_ready.subscribe();
    let mut workers = core.scheduler.watch();
    let mut told: HashMap<ObjectName, PoolSpec> = HashMap::new();
    loop {
        let mut pending = false;
        for (name, pool) in core.catalog.pools.all() {
            match reconcile(&core, &name, &pool.value, &mut told).await {
                Ok(done) => pending |= !done,
                Err(e) => {
                    tracing::warn!(pool = %name, error = %e, "pool could not be brought about yet");
                    pending = true;
                }
            }
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = pools.changed() => {}
            _ = configs.changed() => {}
            _ = ready.changed() => {}
            _ = workers.recv() => {
                tokio::time::sleep(GATHER).await;
                while workers.try_recv().is_ok() {}
            }
            () = tokio::time::sleep(AGAIN), if pending => {}
        }
    }
}

/// At once what the scheduler goes by: whoever sees that a configuration is ready may count on it.
pub(crate) fn introduce_all(core: &Core) {
    for (name, pool) in core.catalog.pools.all() {
        let _ = introduce(core, &name, &pool.value);
    }
}

/// Tells the scheduler of a pool. Returns what it runs under.
fn introduce(core: &Core, name: &ObjectName, pool: &PoolRecord) -> Result<Arc<Revision>, Error> {
    let revision = core.config_of(&pool.resource).and_then(|c| {
        core.catalog
            .revisions
            .get(&c.key())
            .map(|r| r.value)
            .ok_or_else(|| Error::new(Reason::Internal, format!("revision {} is missing in the store", c.key())))
    });
    let revision = revision.and_then(|r| core.check_trust(&r.reference).map(|()| r));
    let usable = revision.as_ref().ok().filter(|r| r.probed && core.scheduler.is_verified(&r.key().to_string()));
    core.scheduler.set_pool(
        name.clone(),
        PoolInfo {
            labels: labels_of(name, pool),
            class: pool.resource.spec.sandbox_class.clone(),
            sandbox: usable.cloned(),
            revoked: revision.as_ref().err().filter(|e| e.reason == Reason::AssetRevoked).cloned(),
            capacity: wanted_of(pool),
        },
    );
    revision
}

fn labels_of(name: &ObjectName, pool: &PoolRecord) -> BTreeMap<String, String> {
    let mut labels = pool.resource.metadata.labels.clone();
    labels.insert(POOL_LABEL.to_owned(), name.name.clone());
    labels
}

/// Workers it is to have.
fn wanted_of(pool: &PoolRecord) -> usize {
    if pool.deleting { 0 } else { usize::try_from(pool.resource.spec.replicas).unwrap_or(0) }
}

/// False: something is under way that has to be looked at again.
async fn reconcile(
    core: &Arc<Core>,
    name: &ObjectName,
    pool: &PoolRecord,
    told: &mut HashMap<ObjectName, PoolSpec>,
) -> Result<bool, Error> {
    let (wanted, revision) = (wanted_of(pool), introduce(core, name, pool));
    if drain(core, name, wanted) {
        return Ok(false);
    }
    if pool.deleting {
        // Whoever is not adopted yet may be on one of its workers.
        return if core.adoption.goes_on() { Ok(false) } else { remove(core, name, told).await };
    }
    // Before its binaries are known to be signed by whom they should, the node is not told of them.
    if let Some(revision) = revision.as_ref().ok().filter(|r| r.admits()) {
        let spec = PoolSpec {
            name: name.clone(),
            labels: labels_of(name, pool),
            replicas: u32::try_from(wanted).unwrap_or(u32::MAX),
            sandbox: revision.reference.clone(),
        };
        if told.get(name) != Some(&spec) {
            core.node.set_pool(spec.clone()).await?;
            told.insert(name.clone(), spec);
        }
    }
    report(core, name, wanted, &revision).await?;
    Ok(true)
}

/// Suspends actors until no more than `wanted` are left, the longest idle ones first. True: some still leave.
fn drain(core: &Arc<Core>, name: &ObjectName, wanted: usize) -> bool {
    let workers = core.scheduler.workers();
    let mut held: Vec<_> =
        workers.iter().filter(|w| &w.report.pool == name).filter_map(|w| w.holder().cloned()).collect();
    if held.len() <= wanted {
        return false;
    }
    let leaving = held.iter().filter(|h| h.stage == Stage::Leaving).count();
    let more = (held.len() - wanted).saturating_sub(leaving);
    held.retain(|h| h.stage == Stage::Running);
    held.sort_by_key(|h| std::cmp::Reverse(core.traffic.idle_for(&h.actor).unwrap_or_default()));
    for holder in held.into_iter().take(more) {
        let deadline = std::time::Instant::now() + core.options.capture_timeout + core.options.drain;
        let suspended = core.suspend(&holder.actor, Kind::Suspend, deadline, core.options.drain);
        core.spawn(async move {
            if let Err(e) = suspended.await {
                tracing::warn!(actor = %holder.actor, error = %e, "actor could not be moved off a shrinking pool yet");
            }
        });
    }
    true
}

async fn remove(core: &Arc<Core>, name: &ObjectName, told: &mut HashMap<ObjectName, PoolSpec>) -> Result<bool, Error> {
    core.node.remove_pool(name).await?;
    told.remove(name);
    core.scheduler.remove_pool(name);
    let Some(now) = core.catalog.pools.get(name) else { return Ok(true) };
    let key = keys::pool(name);
    let gone = Transaction::new().check(key.clone(), Expect::Version(now.version)).delete(key);
    match core.db.commit(gone).await {
        Ok(version) => core.catalog.pools.remove(name.clone(), version),
        Err(e) if e.reason == Reason::Conflict => {
            core.reload_pool(name).await?;
            return Ok(false);
        }
        Err(e) => return Err(e),
    }
    Ok(true)
}

async fn report(
    core: &Arc<Core>,
    name: &ObjectName,
    wanted: usize,
    revision: &Result<Arc<Revision>, Error>,
) -> Result<(), Error> {
    let (replicas, ready, _) = core.scheduler.pool_counts(name);
    let (ok, reason, message) = match revision {
        Err(e) => (false, e.reason.camel_case().to_owned(), e.message.clone()),
        Ok(r) if !core.scheduler.is_verified(&r.key().to_string()) => {
            let why = r.failure.as_ref().map_or("fetching and trying its binaries", |f| f.message.as_str());
            (false, "SandboxConfigNotReady".to_owned(), format!("{}: {why}", r.key()))
        }
        Ok(_) if ready < wanted => {
            (false, "WorkersStarting".to_owned(), format!("{ready} of {wanted} workers are ready"))
        }
        Ok(_) => (true, "Ready".to_owned(), format!("{ready} of {wanted} workers are ready")),
    };
    let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
    core.update_pool(name, |pool| {
        set_ready(&mut pool.resource, ok, &reason, &message);
        let status = pool.resource.status.get_or_insert_default();
        status.replicas = count(replicas);
        status.ready_replicas = count(ready.min(replicas));
        status.sandbox_config = revision.as_ref().ok().map(|r| r.key().to_string());
    })
    .await
    .map(drop)
}
