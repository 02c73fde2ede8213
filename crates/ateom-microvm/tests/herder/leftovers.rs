//! Nothing is left: after each activation, after the end, after a crash.

use std::path::PathBuf;

use ateom::driver::Scope;
use ateom_harness::{
    Worker, kill,
    leftovers::{empty, inventory, namespaces, nothing_left, settled},
};

use crate::assets::{golden, usual, worker};

#[tokio::test]
async fn many_activations_leave_as_little_as_one() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut worker = worker().await;
    worker.probe(sandbox.clone()).await.unwrap(); // answers when the worker is up
    let before = inventory(&worker);
    let mut first = None;
    for cycle in 0..4u64 {
        worker.restore("a", cycle * 2 + 1, with, golden).await.unwrap();
        assert_eq!(worker.get("/write/note/x"), "written");
        let delta = worker.snapshot_dir(&format!("delta{cycle}"));
        worker.checkpoint_with(cycle * 2 + 1, &delta, Scope::Full, true).await.unwrap();
        worker.reset().await;
        worker.restore_with_base("a", cycle * 2 + 2, with, &delta, Some(golden)).await.unwrap();
        worker.reset().await;
        let settled = settled(&worker, first.as_ref()).await;
        assert_eq!(settled.processes, 1, "only the herder is left");
        assert_eq!((&settled.links, &settled.run, &settled.disk), (&before.links, &before.run, &before.disk));
        first.get_or_insert(settled);
    }
    // What waits is not more after ten times than after one.
    worker.prepare_for(with, Some(golden), true).await.unwrap();
    let waiting = settled(&worker, None).await;
    for round in 0..3u64 {
        worker.restore("b", round + 1, with, golden).await.unwrap();
        worker.reset().await;
        worker.prepare_for(with, Some(golden), true).await.unwrap();
        assert_eq!(settled(&worker, Some(&waiting)).await, waiting);
    }
    assert_eq!(inventory(&worker).processes, 4, "the herder and three machines");
}

#[tokio::test]
async fn without_the_node_agent_a_worker_ends_and_leaves_nothing() {
    let (mut worker, namespaces) = running().await;
    worker.cut_lifeline();
    assert!(worker.ended().await.success());
    nothing_left(&worker, &namespaces).await;
}

#[tokio::test]
async fn asked_to_end_a_worker_leaves_nothing() {
    let (mut worker, namespaces) = running().await;
    kill("-TERM", worker.shim_pid());
    assert!(worker.ended().await.success());
    nothing_left(&worker, &namespaces).await;
}

#[tokio::test]
async fn a_killed_herder_takes_everything_with_it() {
    let (mut worker, namespaces) = running().await;
    kill("-KILL", worker.pid);
    assert!(!worker.ended().await.success());
    nothing_left(&worker, &namespaces).await;
}

#[tokio::test]
async fn a_killed_shim_takes_the_herder_with_it() {
    let (mut worker, namespaces) = running().await;
    kill("-KILL", worker.shim_pid());
    worker.ended().await;
    empty(&namespaces).await;
}

/// With an actor that runs and machines that wait. Each machine has a network namespace of its own as well.
async fn running() -> (Worker, Vec<PathBuf>) {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let mut worker = worker().await;
    worker.prepare_for(with, Some(golden().await), true).await.unwrap();
    worker.restore("a", 1, with, golden().await).await.unwrap();
    let machines = worker.find("qemu-system");
    assert_eq!(machines.len(), 3);
    let namespaces = machines.into_iter().chain([worker.pid]).flat_map(namespaces).collect();
    (worker, namespaces)
}
