//! Run, snapshot, thaw, restore, reset.

use ateom::driver::{Scope, stats_response::State};

use crate::worker::{NEW, OLD, container, sandbox, worker, workload};

#[tokio::test]
async fn an_actor_runs_is_saved_and_goes_on_counting_on_another_worker() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut first = worker().await;
    first.run("a", 1, with).await.unwrap();
    assert_eq!(first.get("/"), "1");
    assert_eq!(first.get("/"), "2");
    first.get("/fill/64");
    assert!(first.stats().await.memory_bytes > 64 << 20);
    let snapshot = first.snapshot_dir("snapshot");
    let files = first.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    assert_eq!(files, ["checkpoint.img", "pages.img", "pages_meta.img"]);
    assert_eq!(first.stats().await.state(), State::Frozen);
    first.reset().await;
    assert_eq!(first.stats().await.state(), State::Idle);

    let mut second = worker().await;
    second.restore("a", 2, with, &snapshot).await.unwrap();
    assert_eq!(second.get("/"), "3");
}

#[tokio::test]
async fn another_build_of_the_same_version_saves_and_restores_as_well() {
    let with = (&sandbox("20240729-trixie", "{}"), &workload(vec![container("main", 8080), container("side", 8081)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    assert_eq!((worker.get("/"), worker.get_port(8081, "/")), ("1".into(), "1".into()));
    let snapshot = worker.snapshot_dir("snapshot");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    worker.reset().await;
    worker.restore("a", 2, with, &snapshot).await.unwrap();
    assert_eq!((worker.get("/"), worker.get_port(8081, "/")), ("2".into(), "2".into()));
}

#[tokio::test]
async fn a_prepared_worker_restores_without_creating_anything() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.prepare(with).await.unwrap();
    let stats = worker.stats().await;
    assert_eq!((stats.state(), stats.prepared_key.as_str()), (State::Prepared, "test"));
    assert!(worker.run("a", 1, with).await.unwrap().prepared);
    let snapshot = worker.snapshot_dir("snapshot");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    worker.reset().await;
    worker.prepare(with).await.unwrap();
    let outcome = worker.restore("a", 2, with, &snapshot).await.unwrap();
    assert!(outcome.prepared && !outcome.steps_us.contains_key("create"), "{outcome:?}");
    assert_eq!(worker.get("/"), "1");
}

#[tokio::test]
async fn a_preparation_for_something_else_is_discarded() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut other = workload(vec![container("main", 9090)]);
    other.key = "other".into();
    let mut worker = worker().await;
    worker.prepare((with.0, &other)).await.unwrap();
    assert!(!worker.run("a", 1, with).await.unwrap().prepared);
    assert_eq!(worker.get("/"), "1");
}

#[tokio::test]
async fn the_older_generation_saves_thaws_and_restores_one_container() {
    let with = (&sandbox(OLD, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    assert_eq!(worker.get("/"), "1");
    let snapshot = worker.snapshot_dir("snapshot");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    assert_eq!(worker.stats().await.state(), State::Frozen);
    worker.thaw(1).await.unwrap();
    assert_eq!(worker.get("/"), "2");
    worker.reset().await;
    worker.prepare(with).await.unwrap();
    worker.restore("a", 2, with, &snapshot).await.unwrap();
    assert_eq!(worker.get("/"), "2");
}

#[tokio::test]
async fn two_containers_are_saved_and_restored_together() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080), container("main2", 8081)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    assert_eq!((worker.get("/"), worker.get_port(8081, "/")), ("1".into(), "1".into()));
    let snapshot = worker.snapshot_dir("snapshot");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    worker.reset().await;
    worker.prepare(with).await.unwrap();
    assert!(worker.restore("a", 2, with, &snapshot).await.unwrap().prepared);
    assert_eq!((worker.get("/"), worker.get_port(8081, "/")), ("2".into(), "2".into()));
}

#[tokio::test]
async fn a_frozen_actor_does_nothing_until_it_is_thawed() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    let snapshot = worker.snapshot_dir("snapshot");
    let files = worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    assert_eq!(worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap(), files, "asked again, it answers the same");
    assert!(worker.try_get("/", std::time::Duration::from_millis(200)).is_none());
    worker.thaw(1).await.unwrap();
    worker.thaw(1).await.unwrap();
    assert_eq!(worker.stats().await.state(), State::Running);
    worker.get("/");
}

#[tokio::test]
async fn durable_directories_survive_without_memory() {
    let mut main = container("main", 8080);
    main.mounts = vec![ateom::driver::Mount { volume: "data".into(), path: "/var/data".into() }];
    let mut work = workload(vec![main]);
    work.volumes = vec![ateom::driver::Volume { name: "data".into() }];
    let with = (&sandbox(NEW, "{}"), &work);
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    worker.get("/");
    assert_eq!(worker.get("/write/var/data/note/hello"), "written");
    let (data, full) = (worker.snapshot_dir("data"), worker.snapshot_dir("full"));
    assert_eq!(worker.checkpoint(1, &data, Scope::Data).await.unwrap(), ["durable.tar.zst"]);
    worker.thaw(1).await.unwrap();
    assert_eq!(worker.get("/write/var/data/note/later"), "written");
    let files = worker.checkpoint(1, &full, Scope::Full).await.unwrap();
    assert_eq!(files, ["checkpoint.img", "durable.tar.zst", "pages.img", "pages_meta.img"]);
    worker.reset().await;

    worker.run_with_data("a", 2, with, &data.join("durable.tar.zst")).await.unwrap();
    assert_eq!(worker.get("/read/var/data/note"), "hello");
    assert_eq!(worker.get("/"), "1", "memory is new");
    worker.reset().await;

    worker.prepare(with).await.unwrap();
    worker.restore("a", 3, with, &full).await.unwrap();
    assert_eq!(worker.get("/read/var/data/note"), "later");
    assert_eq!(worker.get("/"), "2");
}
