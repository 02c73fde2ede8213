//! The control plane alone: gRPC, durable commits, and a node agent that does nothing.

use std::{sync::Arc, time::Duration};

use ate_control::bench::{Figures, Load, run as load};
use ate_store::{EmbeddedStore, Store};

use crate::report::{Figure, Goal};

/// Callers at once.
pub(crate) const CONCURRENCY: usize = 32;
pub(crate) const FEW: usize = 1_000;
pub(crate) const MANY: usize = 1_000_000;

/// Few actors, many, and few again, so that a machine that grows slower meanwhile does not pass for an effect of size.
pub(crate) async fn run(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let duration = Duration::from_secs(if quick { 4 } else { 10 });
    let before = measure(FEW, duration).await?;
    let many = measure(MANY, duration).await?;
    let after = measure(FEW, duration).await?;
    let few_p95 = f64::midpoint(before.resume_p95_ms, after.resume_p95_ms);
    let cycles = f64::midpoint(before.cycles_per_s, after.cycles_per_s);
    let samples = before.cycles + after.cycles;
    Ok(vec![
        Figure::new("control.cycles_per_s", cycles, "/s", Goal::AtLeast(3000.0), samples)
            .note(format!("stretch 5000; {CONCURRENCY} callers, client on the same cores")),
        Figure::new("control.resume_p95_ms", few_p95, "ms", Goal::AtMost(20.0), samples),
        Figure::new("control.resume_p95_ratio_1m", many.resume_p95_ms / few_p95, "", Goal::AtMost(1.2), many.cycles)
            .note(format!("{:.0} cycles/s with a million actors", many.cycles_per_s)),
    ])
}

pub(crate) async fn measure(actors: usize, duration: Duration) -> anyhow::Result<Figures> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store");
    let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path)).await??;
    measure_over(Arc::new(store), actors, duration).await
}

/// Over an empty store.
pub(crate) async fn measure_over(store: Arc<dyn Store>, actors: usize, duration: Duration) -> anyhow::Result<Figures> {
    let dir = tempfile::tempdir()?;
    let load_of = Load { actors, concurrency: CONCURRENCY, warm_up: Duration::from_secs(2), duration };
    Ok(load(&load_of, store, dir.path()).await?)
}
