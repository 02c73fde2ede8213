//! Nothing is left: after each activation, after the end, after a crash.

use std::path::PathBuf;

use ateom::driver::Scope;
use ateom_harness::{
    kill,
    leftovers::{empty, namespaces, nothing_left, settled},
};

use crate::worker::{NEW, OLD, Worker, container, sandbox, worker, workload};

#[tokio::test]
async fn many_activations_leave_as_little_as_one() {
    for binary in [NEW, OLD] {
        let mut main = container("main", 8080);
        main.mounts = vec![ateom::driver::Mount { volume: "data".into(), path: "/data".into() }];
        let mut work = workload(vec![main]);
        work.volumes = vec![ateom::driver::Volume { name: "data".into() }];
        let with = (&sandbox(binary, "{}"), &work);
        let mut worker = worker().await;
        let mut first = None;
        for cycle in 0..6u64 {
            worker.prepare(with).await.unwrap();
            worker.run("a", cycle * 2 + 1, with).await.unwrap();
            assert_eq!(worker.get("/write/data/note/x"), "written");
            let snapshot = worker.snapshot_dir(&format!("s{cycle}"));
            worker.checkpoint(cycle * 2 + 1, &snapshot, Scope::Full).await.unwrap();
            worker.reset().await;
            worker.restore("a", cycle * 2 + 2, with, &snapshot).await.unwrap();
            worker.reset().await;
            worker.probe(with.0.clone()).await.unwrap(); // waits its turn
            let settled = settled(&worker, first.as_ref()).await;
            assert_eq!(settled.processes, 1, "only the herder is left");
            first.get_or_insert(settled);
        }
    }
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

async fn running() -> (Worker, Vec<PathBuf>) {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080), container("side", 8081)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    assert!(worker.processes().len() > 3);
    let namespaces = namespaces(worker.pid);
    (worker, namespaces)
}
