//! Fetches and tries the binaries of every revision that is in use, so that nobody waits for them later. All at once: binaries
//! that cannot be fetched must not keep others waiting.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ate_agent::Probed;
use ate_api::{Error, Reason};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};

use super::pools;
use crate::{
    core::Core,
    records::{ConfigKey, Revision},
};

/// One probe, the fetch of the binaries included.
const TIMEOUT: Duration = Duration::from_secs(600);
/// First and longest pause before a failed probe is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

pub(crate) async fn run(core: Arc<Core>) {
    let mut changes = core.catalog.configs.watch();
    let mut revoked = core.revoked.subscribe();
    let mut probes = Probes::default();
    loop {
        changes.mark_unchanged();
        let next = match probes.start(&core).await {
            Ok(next) => next,
            Err(e) => {
                tracing::warn!(error = %e, "cannot tell which configurations are in use");
                Some(Instant::now() + RETRY.0)
            }
        };
        let wait = next.map_or(RETRY.1, |at| at.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = changes.changed() => {}
            _ = revoked.changed() => {}
            Some((key, result)) = probes.running.next() => {
                if let Err(e) = probes.end(&core, &key, result).await {
                    tracing::warn!(config = %key, error = %e, "cannot record what the binaries can do");
                }
            }
            () = tokio::time::sleep(wait) => {}
        }
    }
}

#[derive(Default)]
struct Probes {
    running: FuturesUnordered<BoxFuture<'static, (ConfigKey, Result<Probed, Error>)>>,
    /// Of those that run.
    keys: HashSet<ConfigKey>,
    /// When each failed one is due again, and the pause before.
    failed: HashMap<ConfigKey, (Instant, Duration)>,
}

impl Probes {
    /// Starts whatever is due, and returns when the next failed one is.
    async fn start(&mut self, core: &Arc<Core>) -> Result<Option<Instant>, Error> {
        let used = core.revisions_in_use().await?;
        // Whoever is not waited for any more must not be due for ever.
        self.failed.retain(|key, _| used.contains(key));
        for key in used {
            let Some(revision) = core.catalog.revisions.get(&key) else { continue };
            // Not whether it is admitted: what must be signed is so only once this has found the signatures.
            if let Err(e) = core.revocations().check(&revision.value.reference) {
                core.scheduler.forget_verified(&key.to_string());
                self.failed.remove(&key);
                core.record_probe(&key, Err(e)).await?;
                continue;
            }
            if core.scheduler.is_verified(&key.to_string()) {
                self.failed.remove(&key);
                continue;
            }
            if self.failed.get(&key).is_some_and(|(at, _)| *at > Instant::now()) || !self.keys.insert(key.clone()) {
                continue;
            }
            self.running.push(probe(core.clone(), key, revision.value).boxed());
        }
        Ok(self.failed.iter().filter(|(key, _)| !self.keys.contains(key)).map(|(_, (at, _))| *at).min())
    }

    async fn end(&mut self, core: &Arc<Core>, key: &ConfigKey, result: Result<Probed, Error>) -> Result<(), Error> {
        self.keys.remove(key);
        let Some(revision) = core.catalog.revisions.get(key) else { return Ok(()) };
        if core.revocations().check(&revision.value.reference).is_err() {
            return Ok(()); // it has been said already, or will be with the next start
        }
        let ok = result.is_ok();
        if let Err(e) = &result {
            tracing::warn!(config = %key, error = %e, "sandbox configuration does not work");
        }
        let recorded = core.record_probe(key, result).await;
        if !ok || recorded.is_err() {
            let pause = self.failed.get(key).map_or(RETRY.0, |(_, last)| (*last * 2).min(RETRY.1));
            self.failed.insert(key.clone(), (Instant::now() + pause, pause));
        } else {
            self.failed.remove(key);
            core.scheduler.set_verified(key.to_string());
            pools::introduce_all(core);
            core.config_ready.send_modify(|n| *n += 1);
        }
        recorded
    }
}

async fn probe(core: Arc<Core>, key: ConfigKey, revision: Arc<Revision>) -> (ConfigKey, Result<Probed, Error>) {
    let probe = tokio::time::timeout(TIMEOUT, try_binaries(&core, &revision));
    let result = probe.await.unwrap_or_else(|_| {
        Err(Error::new(Reason::DeadlineExceeded, format!("fetching and trying took over {TIMEOUT:?}")))
    });
    (key, result)
}

/// Fetches the binaries of a revision, makes sure that they are signed if they have to be, and only then runs them.
async fn try_binaries(core: &Core, revision: &Revision) -> Result<Probed, Error> {
    // Once for each revision: what its digests name cannot change, and what was signed stays so.
    if let Some(verification) = revision.verification.as_ref().filter(|_| !revision.probed) {
        core.node.check_signatures(&revision.reference, verification, true).await?;
    }
    core.node.probe(&revision.reference).await
}
