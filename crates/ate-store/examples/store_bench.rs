//! Commits per second of the embedded store: `store_bench [DIRECTORY]` (default: a temporary one).
//!
//! Each commit is a compare-and-swap of one record and a write of another, as a step of a resume is, on keys drawn
//! at random from a thousand and then a million records of 400 bytes, at 1 and at 32 concurrent callers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ate_store::{EmbeddedStore, Expect, Store, Transaction};
use bytes::Bytes;

const VALUE: usize = 400;
const RUN: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let root = std::env::args_os().nth(1).map_or_else(|| temporary.path().to_owned(), Into::into);
    println!(
        "{:>9} {:>11} {:>10} {:>10} {:>9} {:>9} {:>9}",
        "records", "concurrent", "commits/s", "records/s", "p50 µs", "p95 µs", "p99 µs"
    );
    for records in [1_000u64, 1_000_000] {
        let path = root.join(records.to_string());
        let store = Arc::new(EmbeddedStore::open(&path)?);
        let started = Instant::now();
        load(&store, records).await?;
        let loaded = started.elapsed();
        for concurrent in [1, 32] {
            let mut latencies = run(&store, records, concurrent).await;
            latencies.sort_unstable();
            let per_second = latencies.len() as f64 / RUN.as_secs_f64();
            let percentile = |p: usize| latencies[latencies.len() * p / 100].as_micros();
            println!(
                "{records:>9} {concurrent:>11} {per_second:>10.0} {:>10.0} {:>9} {:>9} {:>9}",
                per_second * 2.0,
                percentile(50),
                percentile(95),
                percentile(99)
            );
        }
        let read = reads(&store, records).await?;
        drop(store);
        let started = Instant::now();
        drop(EmbeddedStore::open(&path)?);
        println!(
            "{records:>9} records: load {:.1} s, get {:.1} µs, list of 100 {:.1} µs, reopen {:.2} s",
            loaded.as_secs_f64(),
            read.0,
            read.1,
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn key(kind: &str, i: u64) -> String {
    // Spread, so that neighbours in time are not neighbours in the tree.
    format!("{kind}/default/{:016x}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

async fn load(store: &Arc<EmbeddedStore>, records: u64) -> ate_store::Result<()> {
    let value = Bytes::from(vec![b'x'; VALUE]);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16 {
        let (store, value) = (store.clone(), value.clone());
        tasks.spawn(async move {
            let mine: Vec<u64> = (task..records).step_by(16).collect();
            for chunk in mine.chunks(100) {
                let tx = chunk.iter().fold(Transaction::new(), |tx, &i| tx.put(key("actor", i), value.clone()));
                store.commit(tx).await?;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("a loading task panicked")?;
    }
    Ok(())
}

async fn run(store: &Arc<EmbeddedStore>, records: u64, concurrent: u64) -> Vec<Duration> {
    static SEED: AtomicU64 = AtomicU64::new(1);
    let until = Instant::now() + RUN;
    let value = Bytes::from(vec![b'y'; VALUE]);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..concurrent {
        let (store, value) = (store.clone(), value.clone());
        let mut random = SEED.fetch_add(1, Ordering::Relaxed).wrapping_mul(0xD134_2543_DE82_EF95) | 1;
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < until {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let actor = key("actor", random % records);
                let found = store.get(&actor).await.expect("get").expect("every record was loaded");
                let tx = Transaction::new()
                    .check(&actor, Expect::Version(found.version))
                    .put(&actor, value.clone())
                    .put(key("worker", random % 1000), value.clone());
                let started = Instant::now();
                match store.commit(tx).await {
                    Ok(_) | Err(ate_store::StoreError::Conflict { .. }) => latencies.push(started.elapsed()),
                    Err(e) => panic!("commit: {e}"),
                }
            }
            latencies
        });
    }
    tasks.join_all().await.concat()
}

/// Microseconds per get and per list of a hundred, at random places.
async fn reads(store: &EmbeddedStore, records: u64) -> ate_store::Result<(f64, f64)> {
    const SAMPLES: u32 = 20_000;
    let started = Instant::now();
    for i in 0..u64::from(SAMPLES) {
        store.get(&key("actor", i * 7919 % records)).await?;
    }
    let get = started.elapsed();
    let started = Instant::now();
    for i in 0..u64::from(SAMPLES / 10) {
        store.list("actor/", Some(&key("actor", i * 7919 % records)), 100).await?;
    }
    let list = started.elapsed();
    Ok((get.as_secs_f64() * 1e6 / f64::from(SAMPLES), list.as_secs_f64() * 1e6 / f64::from(SAMPLES / 10)))
}
