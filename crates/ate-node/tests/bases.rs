//! Snapshots that rest on another: restored with both, and with nothing else than what was recorded.
//!
//! No herder here writes differences, so the snapshots are whole and only say that they rest on another.

#[path = "support/node.rs"]
mod support;

use std::{fs, io::Write, path::Path};

use ate_agent::{ActorIdentity, Captured, NodeAgent, Prepare, SnapshotLocation, SnapshotRef, Source};
use ate_api::{
    Reason,
    id::{Activation, ActorName, Digest, GOLDEN_ATESPACE, Uid},
    resource::template::Scope,
};
use ate_snapshot::{
    DriverFile, LocalSnapshots, Manifest, Repository,
    manifest::{ActorId, Base},
};
use support::*;

/// A snapshot of the actor with the files of `base`, which says that it rests on it.
async fn resting_on(machine: &Machine, base: &Captured, actor: &ActorIdentity) -> SnapshotRef {
    let scratch = tempfile::tempdir().unwrap();
    let local = LocalSnapshots::open(scratch.path().join("snapshots")).await.unwrap();
    let mut staging = local.staging().await.unwrap();
    let manifest = Manifest::parse_verified(&base.manifest_json, &base.manifest).unwrap();
    let from = machine.dir.path().join("node/snapshots").join(base.manifest.as_str()).join("files");
    let mut files = Vec::new();
    for file in &manifest.files {
        fs::copy(from.join(&file.name), staging.dir().join(&file.name)).unwrap();
        files.push(DriverFile { name: file.name.clone(), media_type: file.media_type.clone() });
    }
    let files = staging.seal(&files, None).await.unwrap();
    let manifest = Manifest {
        actor: ActorId { atespace: actor.name.atespace.clone(), name: actor.name.name.clone(), uid: actor.uid.clone() },
        parent: Some(base.manifest.clone()),
        base: Some(Base { manifest: base.manifest.clone(), location: None }),
        files,
        ..manifest
    };
    let snapshot = local.adopt(staging, &manifest).await.unwrap();
    let repository = Repository::new(machine.dir.path().join("objects")).unwrap();
    let prefix = repository.prefix("default", &actor.uid, 1, Activation(1)).unwrap();
    repository.upload(&prefix, &snapshot).await.unwrap();
    let location = SnapshotLocation::External { prefix: prefix.to_string() };
    SnapshotRef { manifest: snapshot.digest.clone(), scope: Scope::Full, location }
}

fn damage(file: &Path) {
    let mut file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.write_all(b"damaged").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_restored_with_the_base_recorded_for_it_and_with_no_other() {
    let machine = Machine::with_workers(1).await;
    let worker = machine.ready().remove(0);
    let golden = ActorIdentity { name: ActorName::new(GOLDEN_ATESPACE, "counter"), uid: Uid::generate() };
    let (first, boot) = count(machine.boot(&worker, &golden, 1).await.address);
    let captured = machine.node.capture(capture(&worker, &golden, 1, external())).await.unwrap();
    assert!(!captured.needs_base);
    machine.release(&worker, &golden, 1).await;
    let base = reference(&captured);

    let counter = actor("counter");
    let snapshot = resting_on(&machine, &captured, &counter).await;
    let from = |base: Option<&SnapshotRef>, n| {
        let source = Source::Snapshot { snapshot: snapshot.clone(), base: base.cloned() };
        machine.activate(&worker, &counter, n, source)
    };
    let without = machine.node.activate(from(None, 2)).await.unwrap_err();
    assert_eq!(without.reason, Reason::ManifestInvalid, "{without}");
    assert!(without.message.contains(base.manifest.short()), "{without}");
    let other = machine.node.activate(from(Some(&snapshot), 3)).await.unwrap_err();
    assert_eq!(other.reason, Reason::ManifestInvalid, "{other}");
    let absent = SnapshotRef {
        manifest: Digest::of(b"absent"),
        location: SnapshotLocation::Local { node: "here".into() },
        ..base.clone()
    };
    assert_eq!(reason(machine.node.activate(from(Some(&absent), 4)).await), Reason::SnapshotNotFound);
    // Nothing large was fetched for any of them.
    assert!(!machine.dir.path().join("node/snapshots").join(snapshot.manifest.as_str()).exists());

    let activated = machine.node.activate(from(Some(&base), 5)).await.unwrap();
    assert_eq!(count(activated.address), (first + 1, boot));
    machine.release(&worker, &counter, 5).await;

    // The objects are the same files as the node's copy: both are damaged.
    let files = machine.dir.path().join("node/snapshots").join(base.manifest.as_str()).join("files");
    damage(&fs::read_dir(files).unwrap().next().unwrap().unwrap().path());
    let corrupt = machine.node.activate(from(Some(&base), 6)).await.unwrap_err();
    assert_eq!(corrupt.reason, Reason::SnapshotCorrupt, "{corrupt}");
    assert_eq!(corrupt.object, format!("snapshot/{}", snapshot.manifest.short()));
    assert!(corrupt.message.contains(&format!("base {}", base.manifest.short())), "{corrupt}");
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herder_that_has_no_use_for_a_base_writes_a_whole_snapshot() {
    let machine = Machine::with_workers(1).await;
    let (worker, counter) = (machine.ready().remove(0), actor("counter"));
    machine.boot(&worker, &counter, 1).await;
    let whole = machine.node.capture(capture(&worker, &counter, 1, external())).await.unwrap();
    machine.release(&worker, &counter, 1).await;
    machine.node.activate(machine.activate(&worker, &counter, 2, restored(&whole))).await.unwrap();
    let mut again = capture(&worker, &counter, 2, external());
    (again.generation, again.base, again.parent) = (2, Some(reference(&whole)), Some(whole.manifest.clone()));
    let captured = machine.node.capture(again).await.unwrap();
    assert!(!captured.needs_base);
    let manifest = Manifest::parse_verified(&captured.manifest_json, &captured.manifest).unwrap();
    assert_eq!((manifest.base, manifest.parent), (None, Some(whole.manifest)));
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_prepared_anew_for_a_standby_and_only_with_a_snapshot_of_the_template() {
    let mut machine = Machine::with_workers(1).await;
    let worker = machine.ready().remove(0);
    let golden = ActorIdentity { name: ActorName::new(GOLDEN_ATESPACE, "counter"), uid: Uid::generate() };
    machine.boot(&worker, &golden, 1).await;
    let captured = machine.node.capture(capture(&worker, &golden, 1, external())).await.unwrap();
    machine.release(&worker, &golden, 1).await;
    let prepare = |standby| Prepare {
        worker: worker.clone(),
        template: machine.template.clone(),
        sandbox: machine.sandbox.clone(),
        snapshot: Some(reference(&captured)),
        standby,
    };
    let (plain, standby, mut foreign) = (prepare(false), prepare(true), prepare(true));
    foreign.template.uid = Uid::generate();
    machine.node.prepare(plain).await.unwrap();
    machine.node.prepare(standby).await.unwrap();
    machine.until(|m| m.workers.values().all(|w| w.prepared.as_ref().is_some_and(|p| p.standby))).await;
    let key = machine.workers[&worker].prepared.clone().unwrap();
    assert_eq!(key.snapshot.as_ref(), Some(&captured.manifest));
    assert_eq!(reason(machine.node.prepare(foreign).await), Reason::ManifestInvalid);
    machine.node.shutdown().await;
}
