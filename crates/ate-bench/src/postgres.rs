//! The control plane over PostgreSQL, with another replica that waits: beside the embedded store, and with very many actors.
//!
//! The server runs on the same cores as everything else, and syncs every commit, as the embedded store does.

use std::{sync::Arc, time::Duration};

use ate_control::bench::Figures;
use ate_store::PostgresStore;
use postgres_harness::{Server, Tuning};

use crate::{
    control::{CONCURRENCY, FEW, MANY, measure, measure_over},
    report::{Figure, Goal},
};

/// Each with few actors before and after those with many, so that a machine that grows slower meanwhile does not pass for
/// an effect of size.
pub(crate) async fn run(quick: bool) -> anyhow::Result<Vec<Figure>> {
    let duration = Duration::from_secs(if quick { 4 } else { 10 });
    let server = tokio::task::spawn_blocking(|| Server::start(Tuning::Bench)).await?;
    let mut embedded = vec![measure(FEW, duration).await?];
    let mut few = vec![over(&server, FEW, duration).await?];
    let many = over(&server, MANY, duration).await?;
    few.push(over(&server, FEW, duration).await?);
    embedded.push(measure(FEW, duration).await?);

    let mean = |of: &[Figures], what: fn(&Figures) -> f64| of.iter().map(what).sum::<f64>() / of.len() as f64;
    let (cycles, beside) = (mean(&few, |f| f.cycles_per_s), mean(&embedded, |f| f.cycles_per_s));
    let few_p95 = mean(&few, |f| f.resume_p95_ms);
    let samples = few.iter().map(|f| f.cycles).sum();
    Ok(vec![
        Figure::new("postgres.cycles_per_s_ratio", cycles / beside, "", Goal::AtLeast(0.5), samples).note(format!(
            "{cycles:.0} of {beside:.0} cycles/s; {CONCURRENCY} callers, server and client on the same cores"
        )),
        Figure::new("postgres.resume_p95_ratio_1m", many.resume_p95_ms / few_p95, "", Goal::AtMost(1.2), many.cycles)
            .note(format!(
                "{:.1} and {few_p95:.1} ms; {:.0} cycles/s with a million actors",
                many.resume_p95_ms, many.cycles_per_s
            )),
    ])
}

/// In a database of its own, which is removed afterwards.
async fn over(server: &Server, actors: usize, duration: Duration) -> anyhow::Result<Figures> {
    let url = tokio::task::block_in_place(|| server.database());
    let (store, lease) = PostgresStore::connect(&url).await?.lead("leads").await?;
    let waits = tokio::spawn(PostgresStore::connect(&url).await?.lead("waits"));
    let figures = measure_over(Arc::new(store), actors, duration).await;
    waits.abort();
    lease.step_down().await;
    tokio::task::block_in_place(|| server.drop_database(&url));
    figures
}
