//! Run, snapshot, restore, reset.

use ateom::driver::{Scope, stats_response::State};

use crate::worker::{NEW, Worker, container, sandbox, workload};

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
