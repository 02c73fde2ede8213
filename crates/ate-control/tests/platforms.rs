//! Workers of more than one kind: each kind gets a golden snapshot that it can restore.

mod support;

use ate_api::v1::{RolloutRef, StartRolloutRequest, rollout::Phase, rollout::Policy, rollouts_client::RolloutsClient};
use support::world::{World, eventually, options, pool, sandbox_config};

/// A pool of one worker, and another, called `weak`, of one that lacks a CPU feature of the first.
async fn two_kinds() -> World {
    let w = World::ready_with(options(), 1, |s| s.weak_pool = Some("weak".into())).await;
    w.apply(pool("weak", 1)).await.unwrap();
    w
}

/// Starts of golden actors, from their images and from their snapshots, as `WORKER FROM CONFIG`.
fn golden_starts(w: &World) -> Vec<String> {
    let calls = w.node.with(|s| s.calls.clone());
    let calls = calls.iter().filter_map(|c| c.strip_prefix("activate ")).map(|c| c.split(' ').collect::<Vec<_>>());
    calls.filter(|c| c[1].starts_with("ate-golden/")).map(|c| format!("{} {} {}", c[0], c[3], c[4])).collect()
}

/// The manifest it started from, and the worker.
fn last_start(w: &World, actor: &str) -> (String, String) {
    let name = format!(" default/{actor} ");
    let calls = w.node.with(|s| s.calls.clone());
    let last = calls.iter().rfind(|c| c.starts_with("activate") && c.contains(&name)).unwrap();
    let words: Vec<&str> = last.split(' ').collect();
    (words[4].to_owned(), words[1].to_owned())
}

/// Both kinds have one under this configuration, and it was restored once.
async fn both_served(w: &World, config: &str) {
    eventually("a golden snapshot for the weak worker", async || {
        let conditions = w.get("ActorTemplate", "counter").await.unwrap()["status"]["conditions"].to_string();
        conditions.contains(&format!("{config}, and one for workers that cannot restore it"))
    })
    .await;
    let starts = golden_starts(w).into_iter().filter(|s| s.ends_with(config)).collect::<Vec<_>>();
    assert!(starts.iter().any(|s| s.starts_with("weak-") && s.contains(" boot ")), "{starts:?}");
    assert!(starts.last().is_some_and(|s| !s.contains(" boot ")), "{starts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_cannot_restore_the_golden_snapshot_get_one_of_their_own() {
    let w = two_kinds().await;
    let golden = w.get("ActorTemplate", "counter").await.unwrap()["status"]["goldenManifest"].clone();
    both_served(&w, "gvisor-default@1").await;
    for actor in ["a", "b"] {
        w.create(actor).await.unwrap();
        w.resume(actor).await.unwrap();
    }
    let (strong, weak) = (last_start(&w, "a"), last_start(&w, "b"));
    assert!(golden == strong.0 && strong.1.starts_with("pool-"), "{strong:?}");
    assert!(golden != weak.0 && weak.1.starts_with("weak-"), "{weak:?}");

    // What was saved on the weak one goes on anywhere, what was saved on the other does not.
    w.suspend("a").await.unwrap();
    w.suspend("b").await.unwrap();
    w.all_workers_free().await;
    w.create("c").await.unwrap();
    w.resume("c").await.unwrap();
    assert!(last_start(&w, "c").1.starts_with("pool-"));
    // It makes room, although the weak one is free.
    w.resume("a").await.unwrap();
    assert!(last_start(&w, "a").1.starts_with("pool-"));
    w.resume("b").await.unwrap();
    assert_eq!(last_start(&w, "b").1, weak.1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_is_enough_where_all_workers_can_restore_it() {
    let w = World::ready_with(options(), 1, |s| s.weak_pool = Some("pool".into())).await;
    w.apply(pool("strong", 1)).await.unwrap();
    eventually("both workers are there", async || w.list("Worker").await.len() == 2).await;
    w.create("a").await.unwrap();
    w.create("b").await.unwrap();
    w.resume("a").await.unwrap();
    w.resume("b").await.unwrap();
    assert_eq!(last_start(&w, "a").0, last_start(&w, "b").0);
    assert_eq!(golden_starts(&w).len(), 1, "{:?}", golden_starts(&w));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rollout_each_kind_has_one_of_the_new_revision_and_the_old_ones_go() {
    let w = two_kinds().await;
    both_served(&w, "gvisor-default@1").await;
    let old = w.node.with(|s| s.snapshots.clone());
    assert_eq!(old.len(), 2);
    w.apply(sandbox_config("gvisor-default", 'b', true)).await.unwrap();
    let mut rollouts = RolloutsClient::new(w.face.clone());
    let of = RolloutRef { sandbox_class: "gvisor".into() };
    eventually("the rollout is started", async || {
        let start = StartRolloutRequest {
            sandbox_class: "gvisor".into(),
            config: "gvisor-default".into(),
            policy: Policy::Keep.into(),
            max_unavailable: "1".into(),
        };
        rollouts.clone().start_rollout(start).await.is_ok()
    })
    .await;
    eventually("the rollout is over", async || {
        rollouts.clone().get_rollout(of.clone()).await.unwrap().into_inner().phase() == Phase::Done
    })
    .await;
    both_served(&w, "gvisor-default@2").await;
    eventually("the old ones are gone", async || {
        let now = w.node.with(|s| s.snapshots.clone());
        now.len() == 2 && now.is_disjoint(&old)
    })
    .await;
    let _ = rollouts.get_rollout(of).await;
}
