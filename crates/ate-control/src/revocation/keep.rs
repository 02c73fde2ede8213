//! Keeps the node's list as ours: tells it at the start, when it comes back, and until it has confirmed.

use std::{sync::Arc, time::Duration};

use crate::core::Core;

/// Pause before the node is told again.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run(core: Arc<Core>) {
    let mut revoked = core.revoked.subscribe();
    loop {
        revoked.mark_unchanged();
        let confirmed = {
            let turn = core.revoking.lock().await;
            core.confirm_revocations(&turn).await
        };
        if let Err(e) = &confirmed {
            tracing::warn!(error = %e, "the node does not know what is revoked yet");
        }
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = revoked.changed() => {}
            () = core.node_back.notified() => {}
            () = tokio::time::sleep(RETRY), if confirmed.is_err() => {}
        }
    }
}
