//! What runs where: one question about one binary, with very many actors in the store.

use std::sync::Arc;

use ate_control::bench;
use ate_store::EmbeddedStore;

use crate::report::{Figure, Goal, Samples};

const MANY: usize = 1_000_000;
/// For a quick look.
const FEWER: usize = 100_000;
const QUESTIONS: usize = 200;

pub(crate) async fn run(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let actors = if quick { FEWER } else { MANY };
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store");
    let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path)).await??;
    let mut times = Samples::default();
    for time in bench::usage(actors, QUESTIONS, Arc::new(store), dir.path()).await? {
        times.push(time.as_secs_f64() * 1000.0);
    }
    Ok(vec![
        Figure::new("usage.query_p95_ms", times.quantile(0.95), "ms", Goal::AtMost(100.0), times.len())
            .spread(&times)
            .note(format!("{actors} actors under one binary: all counted, 20 named")),
    ])
}
