//! Snapshots that are not what the herder wrote, or not for this machine.

use std::{fs, path::Path};

use ate_api::{Error, Reason};
use ateom::driver::{Scope, stats_response::State};
use ateom_harness::Worker;

use crate::assets::{OLD, copy, golden, sandbox, usual, worker};

/// A golden snapshot and one that rests on it, both to be damaged.
async fn snapshots(worker: &mut Worker) -> (std::path::PathBuf, std::path::PathBuf) {
    let (sandbox, workload) = usual();
    let base = copy(golden().await, worker.dir.path().join("base"));
    worker.restore("a", 1, (&sandbox, &workload), &base).await.unwrap();
    assert_eq!(worker.get("/"), "1");
    let delta = worker.snapshot_dir("delta");
    assert!(worker.checkpoint_with(1, &delta, Scope::Full, true).await.unwrap().1);
    worker.reset().await;
    (base, delta)
}

/// What comes of a restore while a file is like this. Nothing is left but the herder, and it is idle.
async fn restored(
    worker: &mut Worker,
    (snapshot, base): (&Path, Option<&Path>),
    path: &Path,
    change: impl FnOnce(&mut Vec<u8>),
) -> Error {
    let good = fs::read(path).unwrap();
    let mut bad = good.clone();
    change(&mut bad);
    fs::write(path, bad).unwrap();
    let (sandbox, workload) = usual();
    let error = worker.restore_with_base("a", 2, (&sandbox, &workload), snapshot, base).await.unwrap_err();
    assert_eq!(worker.stats().await.state(), State::Idle);
    assert_eq!(worker.processes().len(), 1, "only the herder is left");
    assert!(error.message.len() < 4096, "{error}");
    fs::write(path, good).unwrap();
    error
}

#[tokio::test]
async fn a_damaged_snapshot_is_a_typed_error_and_leaves_the_worker_usable() {
    let (sandbox, workload) = usual();
    let mut worker = worker().await;
    let worker = &mut worker;
    let (base, delta) = snapshots(worker).await;
    let (alone, based) = ((&*base, None), (&*delta, Some(&*base)));
    let corrupt = |error: Error, what: &str| assert_eq!(error.reason, Reason::SnapshotCorrupt, "{what}: {error}");

    let pages = delta.join("pages");
    corrupt(restored(worker, based, &pages, |b| b.truncate(b.len() - 1)).await, "one byte is missing");
    corrupt(restored(worker, based, &pages, |b| b.truncate(b.len() / 2)).await, "half is missing");
    corrupt(restored(worker, based, &pages, Vec::clear).await, "empty");
    corrupt(
        restored(worker, based, &pages, |b| {
            let at = b.len() - 33;
            b[at] ^= 1
        })
        .await,
        "a byte of its index",
    );
    let beyond = |b: &mut Vec<u8>| {
        // The last extent: before it are the lengths of the blocks, of 256 KiB of pages each, and the footer.
        let end = b.len();
        let pages = u64::from_le_bytes(b[end - 8..].try_into().unwrap());
        let at = end - 32 - 4 * (pages * 4096).div_ceil(256 << 10) as usize - 16;
        b[at..at + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    };
    corrupt(restored(worker, based, &pages, beyond).await, "a page beyond the end of the memory");
    corrupt(restored(worker, based, &pages, |b| b[..64].fill(0xff)).await, "a block that is none");

    let devices = base.join("devices");
    corrupt(restored(worker, alone, &devices, Vec::clear).await, "no devices");
    corrupt(restored(worker, alone, &devices, |b| b.fill(0x5a)).await, "devices of nothing known");
    let error = restored(worker, alone, &devices, |b| b[64..].fill(0x5a)).await;
    assert!(matches!(error.reason, Reason::SandboxFailed | Reason::SnapshotCorrupt), "{error}");
    let error = restored(worker, alone, &devices, |b| b.truncate(b.len() / 2)).await;
    assert!(matches!(error.reason, Reason::SandboxFailed | Reason::SnapshotCorrupt), "{error}");

    let record = base.join("machine.json");
    corrupt(restored(worker, alone, &record, Vec::clear).await, "no record");
    corrupt(restored(worker, alone, &record, |b| b[0] = b'x').await, "a record that is not JSON");
    corrupt(restored(worker, alone, &record, |b| b.resize(1 << 20, b' ')).await, "a record that is too large");
    let another = |b: &mut Vec<u8>| {
        let text = String::from_utf8(std::mem::take(b)).unwrap();
        *b = text.replace("\"cpus\":1", "\"cpus\":2").into_bytes();
    };
    assert_eq!(restored(worker, alone, &record, another).await.reason, Reason::ManifestInvalid);

    worker.restore_with_base("a", 3, (&sandbox, &workload), &delta, Some(&base)).await.unwrap();
    assert_eq!(worker.get("/"), "2");
}

#[tokio::test]
async fn a_snapshot_that_lacks_a_file_its_memory_or_its_base_is_a_typed_error() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let mut worker = worker().await;
    let (base, delta) = snapshots(&mut worker).await;
    // Without its base it holds no memory.
    let error = worker.restore("a", 2, with, &delta).await.unwrap_err();
    assert_eq!(error.reason, Reason::SnapshotCorrupt, "{error}");
    // A base that is none.
    let error = worker.restore_with_base("a", 2, with, &delta, Some(&delta.clone())).await.unwrap_err();
    assert_eq!(error.reason, Reason::SnapshotCorrupt, "{error}");
    let memory = fs::OpenOptions::new().write(true).open(base.join("memory")).unwrap();
    let whole = memory.metadata().unwrap().len();
    memory.set_len(whole / 2).unwrap();
    let error = worker.restore("a", 2, with, &base).await.unwrap_err();
    assert_eq!(error.reason, Reason::SnapshotCorrupt, "{error}");
    for file in ["machine.json", "devices", "memory"] {
        fs::remove_file(base.join(file)).unwrap();
        let error = worker.restore("a", 2, with, &base).await.unwrap_err();
        assert_eq!(error.reason, Reason::SnapshotCorrupt, "{file}: {error}");
        fs::copy(golden().await.join(file), base.join(file)).unwrap();
    }
    fs::remove_dir_all(worker.dir.path().join("base")).unwrap();
    let error = worker.restore_with_base("a", 2, with, &delta, Some(&base)).await.unwrap_err();
    assert_eq!(error.reason, Reason::SnapshotNotFound, "{error}");
    worker.restore_with_base("a", 3, with, &delta, Some(golden().await)).await.unwrap();
    assert_eq!(worker.get("/"), "2");
}

#[tokio::test]
async fn another_qemu_refuses_a_snapshot_before_it_starts_anything() {
    let (_, workload) = usual();
    let old = sandbox(OLD, "{}");
    let golden = golden().await;
    let mut worker = worker().await;
    worker.probe(old.clone()).await.unwrap();
    let mut seen = worker.processes().len();
    let (mut client, request) = (worker.client.clone(), worker.restore_request("a", 1, (&old, &workload), golden));
    let restoring = tokio::spawn(async move { client.restore(request).await });
    while !restoring.is_finished() {
        seen = seen.max(worker.processes().len());
        tokio::task::yield_now().await;
    }
    let error = Error::from(&restoring.await.unwrap().unwrap_err());
    assert_eq!(error.reason, Reason::AssetDigestMismatch, "{error}");
    assert!(error.message.contains("7.2") && error.message.contains("10.0"), "{error}");
    assert_eq!(seen, 1, "nothing was started");
}
