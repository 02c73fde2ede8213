//! Snapshots that hold only what differs from a base: which base, for how long it is kept, and who may name one.

mod support;

use std::time::Duration;

use ate_api::{
    Reason,
    ateapi::actor::Status as Phase,
    id::{Digest, GOLDEN_ATESPACE},
};
use ate_store::{Store, Transaction};
use support::{
    node::State,
    world::{World, eventually, options},
};

/// A herder that writes differences when it may.
async fn world() -> World {
    World::ready_with(options(), 2, differences).await
}

fn differences(s: &mut State) {
    s.capabilities.push("snapshot.base".into());
    s.differences = true;
}

async fn golden(w: &World) -> Digest {
    let template = w.get("ActorTemplate", "counter").await.unwrap();
    Digest::parse(template["status"]["goldenManifest"].as_str().unwrap()).unwrap()
}

/// One more turn of the actor: its new snapshot, and what that rests on.
async fn turn(w: &World, name: &str) -> (Digest, Option<Digest>) {
    w.resume(name).await.unwrap();
    let info = w.suspend(name).await.unwrap().latest_snapshot_info.unwrap();
    let manifest = Digest::parse(&info.manifest_digest).unwrap();
    let base = w.node.with(|s| s.bases.get(&manifest).cloned());
    (manifest, base)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_often_an_actor_is_suspended_its_snapshot_rests_on_the_golden_one() {
    let w = world().await;
    let golden = golden(&w).await;
    w.create("a").await.unwrap();
    let mut last = None;
    for _ in 0..4 {
        let (manifest, base) = turn(&w, "a").await;
        assert_eq!(base, Some(golden.clone()));
        last = Some(manifest);
    }
    let view = w.get("Snapshot", last.unwrap().as_str()).await.unwrap();
    assert_eq!(view["spec"]["base"], golden.as_str());
    // Also by way of the node only.
    w.resume("a").await.unwrap();
    w.pause("a").await.unwrap();
    assert_eq!(turn(&w, "a").await.1, Some(golden));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_capability_or_from_its_image_an_actor_is_saved_whole() {
    let w = World::ready_with(options(), 1, |s| s.differences = true).await;
    w.create("a").await.unwrap();
    assert_eq!(turn(&w, "a").await.1, None);

    let w = world().await;
    w.create("a").await.unwrap();
    w.resume_in("default", "a", true).await.unwrap();
    w.suspend("a").await.unwrap();
    // And one that began from a whole snapshot of its own stays whole.
    assert_eq!(turn(&w, "a").await.1, None);
    assert!(w.node.with(|s| s.bases.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_names_a_base_it_was_not_offered_is_refused_and_the_actor_runs_on() {
    let w = World::ready(options(), 1).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    w.node.with(|s| s.unasked = Some(Digest::of(b"whatever")));
    let e = w.suspend("a").await.unwrap_err();
    assert_eq!(e.reason, Reason::ManifestInvalid, "{e}");
    assert_eq!(w.actor("a").await.unwrap().status(), Phase::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_is_live_on_the_node_while_a_snapshot_rests_on_it() {
    let often = ate_control::Options { collect_interval: Duration::from_millis(20), ..options() };
    let w = World::ready_with(often, 1, differences).await;
    w.create("a").await.unwrap();
    let (own, base) = turn(&w, "a").await;
    eventually("both are live", async || {
        w.node.with(|s| s.live.manifests.contains(&own) && base.iter().all(|b| s.live.manifests.contains(b)))
    })
    .await;
}

/// I2: nothing an actor's snapshot needs is removed before the snapshot is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_base_in_the_deletion_queue_stays_until_the_last_snapshot_that_rests_on_it_is_gone() {
    let w = world().await;
    let golden = golden(&w).await;
    for name in ["a", "b"] {
        w.create(name).await.unwrap();
        turn(&w, name).await;
    }
    // As if somebody had given the golden snapshot up.
    let w = w
        .restart_after(async |store| {
            let key = format!("snapshot/{golden}");
            let indexed = store.get(&key).await.unwrap().unwrap();
            let record: serde_json::Value = rmp_serde::from_slice(&indexed.value).unwrap();
            assert_eq!(record["actor"]["atespace"], GOLDEN_ATESPACE);
            let snapshot = &record["snapshot"];
            let garbage = serde_json::json!({"scope": snapshot["scope"], "location": snapshot["location"]});
            let garbage = rmp_serde::to_vec_named(&garbage).unwrap();
            let tx = Transaction::new().delete(key).put(format!("garbage/{golden}"), garbage);
            store.commit(tx).await.unwrap();
        })
        .await;
    let deleted = |digest: &Digest| w.node.with(|s| s.deleted.contains(digest));

    // Whoever rests on it goes on doing so.
    let (first, base) = turn(&w, "a").await;
    assert_eq!(base.as_ref(), Some(&golden));
    w.remove("a").await.unwrap();
    eventually("the snapshot of a is removed", async || deleted(&first)).await;
    assert!(!deleted(&golden), "b still rests on it");

    let (second, base) = turn(&w, "b").await;
    assert_eq!(base.as_ref(), Some(&golden));
    w.remove("b").await.unwrap();
    eventually("the snapshot of b is removed", async || deleted(&second)).await;
    eventually("nothing keeps the base any more", async || deleted(&golden)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i2_a_snapshot_is_not_committed_on_a_base_that_is_leaving() {
    let w = world().await;
    let golden = golden(&w).await;
    w.create("a").await.unwrap();
    let w = w
        .restart_after(async |store| {
            store.commit(Transaction::new().delete(format!("snapshot/{golden}"))).await.unwrap();
        })
        .await;
    w.resume("a").await.unwrap();
    let e = w.suspend("a").await.unwrap_err();
    assert_eq!(e.reason, Reason::Conflict, "{e}");
    assert_eq!(w.actor("a").await.unwrap().status(), Phase::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_whose_base_is_corrupt_is_quarantined_and_the_message_says_why() {
    let w = world().await;
    w.create("a").await.unwrap();
    let (_, base) = turn(&w, "a").await;
    w.node.with(|s| s.snapshots.remove(&base.unwrap()));
    let e = w.resume("a").await.unwrap_err();
    assert_eq!(e.reason, Reason::SnapshotCorrupt, "{e}");
    let e = w.resume("a").await.unwrap_err();
    assert!(e.message.contains("quarantined") && e.message.contains("base"), "{e}");
    w.all_workers_free().await;
}
