//! The node refuses revoked binaries by itself, whoever asks, and keeps to it over a restart.

#[path = "support/node.rs"]
mod support;

use std::{collections::BTreeMap, os::unix::fs::MetadataExt as _, path::Path};

use ate_agent::{NodeAgent, Source};
use ate_api::{Reason, id::Digest};
use ate_node::Node;
use ate_sandbox::{Revocation, Revocations};
use support::*;

fn list(version: u64, digests: &[&Digest]) -> Revocations {
    let revocation = || Revocation { reason: "CVE-2026-1".into(), at: ate_api::time::now() };
    let digests: BTreeMap<_, _> = digests.iter().map(|d| ((*d).clone(), revocation())).collect();
    Revocations { version, digests }
}

/// Sandboxes: each is several processes of the binary, and none without a sandbox.
fn processes(machine: &Machine) -> usize {
    let digest = &machine.sandbox.assets[0].sha256;
    let path = machine.dir.path().join(format!("node/assets/files/sha256-{digest}"));
    let file = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    let wanted = file(&path).unwrap();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|p| file(&p.path().join("exe")).is_ok_and(|exe| exe == wanted)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_is_gone_what_runs_goes_on_and_nothing_new_begins() {
    let mut machine = Machine::with_workers(2).await;
    let (workers, counter, other) = (machine.ready(), actor("counter"), actor("other"));
    let runsc = machine.sandbox.assets[0].sha256.clone();
    let address = machine.boot(&workers[0], &counter, 1).await.address;
    let running = processes(&machine);
    assert!(running > 0, "the test sees no sandbox");
    machine.node.prepare(machine.prepare(&workers[1])).await.unwrap();
    assert!(processes(&machine) > running, "the one that waits has processes of its own");

    machine.node.set_revocations(list(1, &[&runsc])).await.unwrap();
    assert_eq!(processes(&machine), running, "the one that waited is gone when it returns");
    let (first, _) = count(address);
    assert_eq!(count(address).0, first + 1, "who runs goes on");
    let activate = machine.activate(&workers[1], &other, 1, Source::Boot);
    assert_eq!(reason(machine.node.activate(activate).await), Reason::AssetRevoked);
    assert_eq!(reason(machine.node.prepare(machine.prepare(&workers[1])).await), Reason::AssetRevoked);
    assert_eq!(reason(machine.node.probe(&machine.sandbox).await), Reason::AssetRevoked);
    // Whoever ran under it takes its worker with it when he leaves.
    machine.release(&workers[0], &counter, 1).await;
    machine.until(|m| !m.workers.contains_key(&workers[0])).await;
    eventually("no sandbox is left", || match processes(&machine) {
        0 => Ok(()),
        left => Err(left),
    })
    .await;

    machine.node.set_revocations(list(2, &[])).await.unwrap();
    machine.until(|m| m.ready().len() == 2).await;
    let worker = machine.ready().remove(0);
    machine.boot(&worker, &other, 2).await;
    assert_eq!(reason(machine.node.set_revocations(list(1, &[&runsc])).await), Reason::Fenced);
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_holds_when_the_node_starts_again_and_nobody_has_told_it_anything() {
    let machine = Machine::start(tempfile::tempdir().unwrap()).await;
    let runsc = machine.sandbox.assets[0].sha256.clone();
    machine.node.set_revocations(list(7, &[&runsc])).await.unwrap();
    machine.node.shutdown().await;
    let Machine { dir, node, sandbox, .. } = machine;
    drop(node);
    let mut again = None;
    for _ in 0..100 {
        match Node::start(options(dir.path())).await {
            Ok(node) => again = Some(node),
            // The one before lets go of its lock when its last task ends.
            Err(e) if e.reason == Reason::InUse => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            Err(e) => panic!("{e}"),
        }
        if again.is_some() {
            break;
        }
    }
    let node = again.expect("the node starts again");
    assert_eq!(reason(node.probe(&sandbox).await), Reason::AssetRevoked);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_is_deleted_unless_a_pool_uses_it() {
    let mut machine = Machine::with_workers(1).await;
    let runsc = machine.sandbox.assets[0].sha256.clone();
    assert_eq!(reason(machine.node.delete_asset(&runsc).await), Reason::InUse);
    machine.node.remove_pool(&machine.pool(1).name).await.unwrap();
    machine.until(|m| m.workers.is_empty()).await;
    machine.node.delete_asset(&runsc).await.unwrap();
    assert!(machine.node.assets().await.unwrap().iter().all(|a| a.sha256 != runsc));
    machine.node.delete_asset(&runsc).await.unwrap();
    machine.node.shutdown().await;
}
