//! Which idle workers get a standby: a golden snapshot restored ahead for the next new actor.

mod support;

use ate_api::Reason;
use support::{
    node::{Fault, State},
    world::{World, eventually, options},
};

fn able(s: &mut State) {
    s.capabilities.extend(["prepare", "standby"].map(str::to_owned));
}

async fn standbys(w: &World) -> usize {
    let workers = w.list("Worker").await;
    workers.iter().filter(|w| w["status"]["standby"] == true && w["status"]["prepared"] == "default/counter").count()
}

async fn prepared(w: &World) -> usize {
    w.list("Worker").await.iter().filter(|w| w["status"]["prepared"].is_string()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_the_golden_snapshot_is_made_idle_workers_get_standbys_of_it() {
    let w = World::ready_with(options(), 2, able).await;
    let template = w.get("ActorTemplate", "counter").await.unwrap();
    let golden = template["status"]["goldenManifest"].as_str().unwrap();
    eventually("both have one", async || standbys(&w).await == 2).await;
    let last = w.node.with(|s| s.calls.iter().rfind(|c| c.starts_with("prepare")).cloned()).unwrap();
    assert!(last.ends_with(&format!("counter standby {golden}")), "{last}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_that_cannot_is_never_asked_for_a_standby() {
    let w = World::ready_with(options(), 1, |s| s.capabilities.push("prepare".into())).await;
    eventually("it is prepared", async || prepared(&w).await == 1).await;
    w.create("a").await.unwrap();
    w.resume("a").await.unwrap();
    w.suspend("a").await.unwrap();
    eventually("it is prepared again", async || prepared(&w).await == 1).await;
    assert!(w.node.with(|s| s.calls.iter().all(|c| !c.contains(" standby "))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_worker_gets_its_standby_when_new_actors_are_expected_again() {
    let w = World::ready_with(options(), 2, able).await;
    // Whether new actors come is not remembered.
    let w = w.restart().await;
    eventually("both are prepared", async || prepared(&w).await == 2).await;
    assert_eq!(standbys(&w).await, 0);
    w.create("a").await.unwrap();
    eventually("and have standbys", async || standbys(&w).await == 2).await;
    assert_eq!(w.node.count("prepare"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_cannot_be_made_does_not_cost_the_preparation() {
    let w = World::ready_with(options(), 1, able).await;
    let w = w.restart().await;
    eventually("it is prepared", async || prepared(&w).await == 1).await;
    w.node.fault("prepare", Fault::Fail(Reason::SandboxFailed));
    w.create("a").await.unwrap();
    eventually("it was tried", async || w.node.count("prepare") == 3).await;
    eventually("it is prepared without", async || prepared(&w).await == 1).await;
    assert_eq!(standbys(&w).await, 0);
    // The next new actor is another try.
    w.create("b").await.unwrap();
    eventually("it has one", async || standbys(&w).await == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_actor_takes_the_standby_and_one_with_memory_of_its_own_leaves_it() {
    let w = World::ready_with(options(), 2, able).await;
    w.create("old").await.unwrap();
    w.resume("old").await.unwrap();
    w.suspend("old").await.unwrap();
    let w = w.restart().await;
    eventually("both are prepared", async || prepared(&w).await == 2).await;
    // The first gets its standby, the second does not.
    w.node.fault("prepare", Fault::Slow(std::time::Duration::ZERO));
    w.node.fault("prepare", Fault::Fail(Reason::SandboxFailed));
    w.create("new").await.unwrap();
    eventually("all was tried", async || w.node.count("prepare") == 5).await;
    eventually("both are prepared", async || prepared(&w).await == 2).await;
    let workers = w.list("Worker").await;
    let standby = workers.iter().find(|w| w["status"]["standby"] == true).unwrap()["metadata"]["name"].clone();

    let old = w.resume("old").await.unwrap();
    assert_ne!(standby, old.ateom_pod_name.as_str());
    let new = w.resume("new").await.unwrap();
    assert_eq!(standby, new.ateom_pod_name.as_str());
}
