//! Run, snapshot, restore, reset.

use ateom::driver::{Scope, stats_response::State};

use crate::worker::{NEW, OLD, Worker, container, sandbox, workload};

#[tokio::test]
async fn an_actor_runs_is_saved_and_goes_on_counting_on_another_worker() {
    let with = (sandbox(NEW, "{}"), workload(vec![container("main", 8080)]));
    let with = (&with.0, &with.1);
    let mut first = Worker::start().await;
    first.run("a", 1, with).await.unwrap();
    assert_eq!(first.get("/"), "1");
    assert_eq!(first.get("/"), "2");
    let snapshot = first.snapshot_dir("snapshot");
    let files = first.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    assert_eq!(files, ["checkpoint.img", "pages.img", "pages_meta.img"]);
    assert_eq!(first.stats().await.state(), State::Frozen);
    first.reset().await;
    assert_eq!(first.stats().await.state(), State::Idle);

    let mut second = Worker::start().await;
    let outcome = second.restore("a", 2, with, &snapshot).await.unwrap();
    eprintln!("{outcome:?}");
    assert_eq!(second.get("/"), "3");
    assert_eq!(second.get("/read/run/ate/activation"), "2");
}

#[tokio::test]
async fn a_prepared_worker_restores_without_creating_anything() {
    let with = (sandbox(NEW, "{}"), workload(vec![container("main", 8080)]));
    let with = (&with.0, &with.1);
    let mut worker = Worker::start().await;
    worker.prepare(with).await.unwrap();
    assert!(worker.run("a", 1, with).await.unwrap().prepared);
    let snapshot = worker.snapshot_dir("snapshot");
    worker.get("/fill/10");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    let mut times = Vec::new();
    for activation in 2..12 {
        let t = std::time::Instant::now();
        worker.reset().await;
        let reset = t.elapsed();
        let t = std::time::Instant::now();
        worker.prepare(with).await.unwrap();
        let prepare = t.elapsed();
        let t = std::time::Instant::now();
        let outcome = worker.restore("a", activation, with, &snapshot).await.unwrap();
        times.push((reset, prepare, t.elapsed()));
        assert!(outcome.prepared);
        assert_eq!(worker.get("/"), "1");
    }
    eprintln!("reset, prepare, restore: {times:?}");
}

#[tokio::test]
async fn the_older_generation_saves_and_restores_one_container() {
    let with = (sandbox(OLD, "{}"), workload(vec![container("main", 8080)]));
    let with = (&with.0, &with.1);
    let mut worker = Worker::start().await;
    worker.run("a", 1, with).await.unwrap();
    assert_eq!(worker.get("/"), "1");
    let snapshot = worker.snapshot_dir("snapshot");
    eprintln!("{:?}", worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap());
    worker.thaw(1).await.unwrap();
    assert_eq!(worker.get("/"), "2");
    worker.reset().await;
    worker.restore("a", 2, with, &snapshot).await.unwrap();
    assert_eq!(worker.get("/"), "2");
}

#[tokio::test]
async fn two_containers_are_saved_and_restored_together() {
    let with = (sandbox(NEW, "{}"), workload(vec![container("main", 8080), container("side", 8081)]));
    let with = (&with.0, &with.1);
    let mut worker = Worker::start().await;
    worker.run("a", 1, with).await.unwrap();
    assert_eq!(worker.get("/"), "1");
    assert_eq!(worker.get_port(8081, "/"), "1");
    let snapshot = worker.snapshot_dir("snapshot");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    worker.reset().await;
    worker.prepare(with).await.unwrap();
    assert!(worker.restore("a", 2, with, &snapshot).await.unwrap().prepared);
    assert_eq!(worker.get("/"), "2");
    assert_eq!(worker.get_port(8081, "/"), "2");
}
