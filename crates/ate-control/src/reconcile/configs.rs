//! Fetches and tries the binaries of every revision that is in use, so that nobody waits for them later.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{core::Core, records::ConfigKey};

/// One probe, the fetch of the binaries included.
const TIMEOUT: Duration = Duration::from_secs(600);
/// First and longest pause before a failed probe is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

pub(crate) async fn run(core: Arc<Core>) {
    let mut changes = core.catalog.configs.watch();
    let mut failed: HashMap<ConfigKey, (Instant, Duration)> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let next = match probe_all(&core, &mut failed).await {
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
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// Returns when the next failed one is due.
async fn probe_all(
    core: &Arc<Core>,
    failed: &mut HashMap<ConfigKey, (Instant, Duration)>,
) -> Result<Option<Instant>, ate_api::Error> {
    for key in core.revisions_in_use().await? {
        if core.scheduler.is_verified(&key.to_string()) || failed.get(&key).is_some_and(|(at, _)| *at > Instant::now())
        {
            continue;
        }
        let Some(revision) = core.catalog.revisions.get(&key) else { continue };
        let probe = tokio::time::timeout(TIMEOUT, core.node.probe(&revision.value.reference));
        let result = probe.await.unwrap_or_else(|_| {
            Err(ate_api::Error::new(
                ate_api::Reason::DeadlineExceeded,
                format!("fetching and trying took over {TIMEOUT:?}"),
            ))
        });
        let ok = result.is_ok();
        if let Err(e) = &result {
            tracing::warn!(config = %key, error = %e, "sandbox configuration does not work");
        }
        core.record_probe(&key, result).await?;
        if ok {
            failed.remove(&key);
            core.scheduler.set_verified(key.to_string());
            core.config_ready.send_modify(|n| *n += 1);
        } else {
            let pause = failed.get(&key).map_or(RETRY.0, |(_, last)| (*last * 2).min(RETRY.1));
            failed.insert(key, (Instant::now() + pause, pause));
        }
    }
    Ok(failed.values().map(|(at, _)| *at).min())
}
