//! Many nodes as one, and control planes that come and go above them.

mod support;

use std::time::Duration;

use ate_agent::NodeEvent;
use ate_api::{ateapi::actor::Status as Phase, id::WorkerId};
use ate_control::Options;
use support::{
    node::{Fault, Script},
    world::{World, eventually, options, pool},
};

/// Nodes say at once who runs on them; one that does not is gone.
const GRACE: Duration = Duration::from_millis(1200);

/// Nothing is given up by itself.
const PATIENT: Duration = Duration::from_secs(30);
/// A flip is tried so often.
const FLIPS: usize = 3;

fn with_grace() -> Options {
    Options { adoption_grace: GRACE, ..options() }
}

fn two() -> Vec<Script> {
    Script::cluster(&["node-1", "node-2"])
}

/// The node and the worker of an actor.
fn place(nodes: &[Script], uid: &str) -> Vec<(usize, WorkerId)> {
    let on =
        |n: usize| nodes[n].seated().into_iter().filter(|(_, s)| s.actor.as_str() == uid).map(move |(w, _)| (n, w));
    (0..nodes.len()).flat_map(on).collect()
}

/// Actors of these names run.
async fn running(w: &World, names: &[&str]) -> Vec<String> {
    let mut uids = Vec::new();
    for name in names {
        w.create(name).await.unwrap();
        uids.push(w.resume(name).await.unwrap().uid);
    }
    for name in names {
        eventually("that it runs is written", async || w.actor(name).await.unwrap().status() == Phase::Running).await;
    }
    uids
}

async fn lost(w: &World, name: &str) -> u64 {
    w.get("Actor", name).await.unwrap()["status"]["lostActivations"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_run_on_when_the_control_plane_is_replaced() {
    let nodes = two();
    let w = World::cluster(with_grace(), 4, nodes.clone()).await;
    let uids = running(&w, &["a", "b", "c"]).await;
    let before: Vec<_> = uids.iter().map(|uid| place(&nodes, uid)).collect();
    assert!(before.iter().all(|p| p.len() == 1), "{before:?}");
    let released = nodes.iter().map(|n| n.count("release")).sum::<usize>();

    let w = w.replace_control(nodes.clone()).await;
    for (name, uid) in ["a", "b", "c"].iter().zip(&uids) {
        let found = w.resume(name).await.unwrap();
        assert_eq!((&found.uid, found.activation), (uid, 1), "the same activation");
        assert_eq!(lost(&w, name).await, 0);
    }
    let after: Vec<_> = uids.iter().map(|uid| place(&nodes, uid)).collect();
    assert_eq!(before, after);
    assert_eq!(nodes.iter().map(|n| n.count("release")).sum::<usize>(), released, "nobody was put to rest");

    // They are whole: they can be suspended, and their workers are free again.
    for name in ["a", "b", "c"] {
        w.suspend(name).await.unwrap();
    }
    eventually("nobody is on a worker", async || nodes.iter().all(|n| n.seated().is_empty())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_node_went_with_the_control_plane_resumes_elsewhere_from_the_last_snapshot() {
    let nodes = two();
    let w = World::cluster(with_grace(), 4, nodes.clone()).await;
    let uids = running(&w, &["a", "b", "c"]).await;
    for name in ["a", "b", "c"] {
        w.suspend(name).await.unwrap();
        w.resume(name).await.unwrap();
    }
    let gone: Vec<&str> = ["a", "b", "c"]
        .into_iter()
        .zip(&uids)
        .filter(|(_, uid)| place(&nodes, uid)[0].0 == 1)
        .map(|(n, _)| n)
        .collect();
    assert!(!gone.is_empty() && gone.len() < 3, "on both nodes: {gone:?}");

    let w = w.replace_control(vec![nodes[0].clone()]).await;
    for name in ["a", "b", "c"] {
        let lost_one = u64::from(gone.contains(&name));
        let found = w.resume(name).await.unwrap();
        assert_eq!(found.activation, 2 + lost_one, "{name}");
        assert_eq!(lost(&w, name).await, lost_one, "{name}: what was lost is told");
        assert_eq!(found.latest_snapshot_info.unwrap().generation, 1);
    }
    assert!(uids.iter().all(|uid| place(&nodes[..1], uid).len() == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspend_that_lost_its_control_plane_is_called_off_and_the_actor_runs_on() {
    let nodes = two();
    let w = World::cluster(
        Options { capture_timeout: PATIENT, release_timeout: PATIENT, ..with_grace() },
        2,
        nodes.clone(),
    )
    .await;
    running(&w, &["a"]).await;
    // The snapshot is taken, and before it can be recorded the control plane is gone.
    for _ in 0..FLIPS {
        w.troubles.add(support::store::Trouble::Lost("snapshot/"));
    }
    nodes.iter().for_each(|n| n.fault("thaw", Fault::Hang));
    let api = w.api.clone();
    let cut = tokio::spawn(async move {
        let request = ate_api::ateapi::SuspendActorRequest { actor_ref: support::world::reference("default", "a") };
        api.clone().suspend_actor(request).await
    });
    eventually("it is frozen", async || nodes.iter().any(|n| n.count("thaw") == 1)).await;
    cut.abort();

    let w = w.replace_control(nodes.clone()).await;
    let found = w.resume("a").await.unwrap();
    assert_eq!((found.activation, lost(&w, "a").await), (1, 0));
    assert_eq!(nodes.iter().map(|n| n.count("thaw")).sum::<usize>(), 2, "thawed for the new control plane");
    // The number of the snapshot nobody recorded is not used again.
    assert_eq!(w.suspend("a").await.unwrap().latest_snapshot_info.unwrap().generation, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_holds_that_is_nobodys_is_taken_off() {
    let nodes = two();
    let w = World::cluster(with_grace(), 4, nodes.clone()).await;
    let uids = running(&w, &["a"]).await;
    let (n, worker) = place(&nodes, &uids[0])[0].clone();

    // Its node is not heard of for so long that it is given up, and the actor goes on elsewhere.
    nodes[n].go_away();
    eventually("it runs elsewhere", async || {
        w.resume("a").await.is_ok_and(|a| a.activation > 1 && a.ateom_pod_name != worker.0)
    })
    .await;
    assert_eq!(lost(&w, "a").await, 1);
    assert_eq!(place(&nodes, &uids[0]).len(), 2, "the one that was given up does not know");
    nodes[n].come_back();
    w.join(&nodes[n]);
    eventually("it was taken off", async || place(&nodes, &uids[0]).len() == 1).await;
    assert_eq!(w.resume("a").await.unwrap().activation, 2, "and the other runs on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_on_a_worker_that_leaves_is_suspended_and_nobody_else_comes() {
    let nodes = two();
    let w = World::cluster(options(), 2, nodes.clone()).await;
    let uids = running(&w, &["a"]).await;
    let (n, worker) = place(&nodes, &uids[0])[0].clone();
    nodes[n].leave(&worker);
    w.phase_becomes("a", Phase::Suspended).await;
    assert_eq!(lost(&w, "a").await, 0);
    let again = w.resume("a").await.unwrap();
    assert_ne!(again.ateom_pod_name, worker.0);
    assert_eq!(again.latest_snapshot_info.unwrap().generation, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_actor_resumes_on_the_node_that_has_it() {
    let nodes = two();
    let w = World::cluster(options(), 4, nodes.clone()).await;
    let uids = running(&w, &["a"]).await;
    for _ in 0..4 {
        let (n, _) = place(&nodes, &uids[0])[0];
        w.pause("a").await.unwrap();
        w.resume("a").await.unwrap();
        assert_eq!(place(&nodes, &uids[0])[0].0, n);
    }
    // While it is paused its node is all there is for it, and that is what is said.
    let (n, _) = place(&nodes, &uids[0])[0];
    w.pause("a").await.unwrap();
    let workers: Vec<WorkerId> = nodes[n].with(|s| s.reports.keys().cloned().collect());
    for worker in &workers {
        nodes[n].send(NodeEvent::WorkerLost { id: worker.clone(), message: "gone".into() });
    }
    eventually("its workers are gone", async || w.list("Worker").await.len() == 2).await;
    let refused = w.resume("a").await.unwrap_err();
    assert!(refused.message.contains(&format!("node node-{}", n + 1)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_begins_on_a_node_that_lacks_the_binaries_or_does_not_know_what_is_revoked() {
    let nodes = two();
    nodes[1].fault("probe", Fault::Fail(ate_api::Reason::AssetUnavailable));
    let w = World::cluster(options(), 4, nodes.clone()).await;
    // The second node has workers, and they say that they lack the binaries.
    nodes[1].with(|s| s.reports.values_mut().for_each(|r| r.configs.clear()));
    let reports = nodes[1].with(|s| s.reports.values().cloned().collect::<Vec<_>>());
    reports.into_iter().for_each(|r| nodes[1].send(NodeEvent::Worker(r)));
    let uids = running(&w, &["a", "b"]).await;
    assert!(uids.iter().all(|uid| place(&nodes, uid)[0].0 == 0));
}

/// A pool of its own, with a worker on each node.
async fn with_pool(nodes: &[Script]) -> World {
    let w = World::cluster(with_grace(), 2, nodes.to_vec()).await;
    w.apply(pool("other", 2)).await.unwrap();
    eventually("its workers", async || w.list("Worker").await.len() == 4).await;
    w
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_when_a_pool_was_removed_is_told_when_it_is_back() {
    let nodes = two();
    let w = with_pool(&nodes).await;
    nodes[1].go_away();
    w.delete("WorkerPool", "other").await.unwrap();
    eventually("the pool is gone", async || w.get("WorkerPool", "other").await.is_err()).await;
    let has = |node: &Script| node.with(|s| s.reports.values().any(|r| r.pool.name == "other"));
    assert!(has(&nodes[1]), "it has not heard of it");
    nodes[1].come_back();
    eventually("it has heard of it", async || !has(&nodes[1])).await;
    eventually("and so has everybody else", async || w.list("Worker").await.len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_on_a_pool_that_is_being_removed_is_saved_also_by_the_next_control_plane() {
    let nodes = two();
    let w = World::cluster(Options { capture_timeout: PATIENT, ..with_grace() }, 2, nodes.clone()).await;
    let uid = running(&w, &["a"]).await.remove(0);
    // Its last moments: it is to be suspended, and that takes longer than this control plane lives.
    nodes.iter().for_each(|n| n.fault("capture", Fault::Hang));
    let captures = || nodes.iter().map(|n| n.count("capture")).sum::<usize>();
    let before = captures();
    w.delete("WorkerPool", "pool").await.unwrap();
    eventually("it is being saved", async || captures() > before).await;
    nodes.iter().for_each(Script::go_away);
    let w = w.replace_control(nodes.clone()).await;
    let on = place(&nodes, &uid)[0].0;
    nodes.iter().for_each(|n| n.with(|s| s.faults.clear()));
    nodes.iter().for_each(Script::come_back);
    w.phase_becomes("a", Phase::Suspended).await;
    assert_eq!(lost(&w, "a").await, 0, "it was saved on node {on}");
    assert!(w.actor("a").await.unwrap().latest_snapshot_info.is_some());
    eventually("the pool is gone", async || w.get("WorkerPool", "pool").await.is_err()).await;
    eventually("and its workers", async || nodes.iter().all(|n| n.with(|s| s.reports.is_empty()))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_to_be_saved_while_the_agent_of_its_node_is_replaced_is_saved_by_the_next_one() {
    let nodes = Script::cluster(&["node-1"]);
    let w = World::cluster(Options { capture_timeout: PATIENT, ..with_grace() }, 1, nodes.clone()).await;
    running(&w, &["a"]).await;
    for round in 1..=5 {
        nodes[0].go_away();
        let back = async {
            eventually("it is to be saved", async || w.actor("a").await.unwrap().status() == Phase::Suspending).await;
            nodes[0].come_back();
        };
        let (saved, ()) = tokio::join!(w.suspend("a"), back);
        assert_eq!(saved.unwrap().latest_snapshot_info.unwrap().generation, round);
        assert_eq!(lost(&w, "a").await, 0);
        w.resume("a").await.unwrap();
    }
}
