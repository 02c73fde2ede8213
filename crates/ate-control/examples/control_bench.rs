//! `cargo run --release --example control_bench --features bench -- [ACTORS…]`: the control plane alone, one line of
//! JSON per number of actors. `BENCH_SECONDS` and `BENCH_CONCURRENCY` change the load.

use std::{sync::Arc, time::Duration};

use ate_control::bench::{Load, run};
use ate_store::EmbeddedStore;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let mut actors: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    if actors.is_empty() {
        actors.push(1000);
    }
    for actors in actors {
        let dir = tempfile::tempdir()?;
        let store = Arc::new(EmbeddedStore::open(dir.path().join("store"))?);
        let load = Load {
            actors,
            concurrency: number("BENCH_CONCURRENCY", 32) as usize,
            warm_up: Duration::from_secs(2),
            duration: Duration::from_secs(number("BENCH_SECONDS", 10)),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let figures = runtime.block_on(run(&load, store, dir.path()))?;
        println!("{}", serde_json::to_string(&figures)?);
        runtime.shutdown_timeout(Duration::from_secs(5));
    }
    Ok(())
}
