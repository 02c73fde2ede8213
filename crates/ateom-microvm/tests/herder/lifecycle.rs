//! Boot, snapshot, restore, thaw, reset.

use ateom::driver::{Scope, stats_response::State};

use crate::assets::{NEW, OLD, container, sandbox, worker, workload};

#[tokio::test]
async fn an_actor_boots_is_saved_and_goes_on_counting_on_another_worker() {
    for version in [OLD, NEW] {
        let with = (&sandbox(version, "{}"), &workload(vec![container("main", 8080)]));
        let mut first = worker().await;
        first.run("a", 1, with).await.unwrap();
        assert_eq!(first.get("/"), "1");
        assert_eq!(first.get("/"), "2");
        let snapshot = first.snapshot_dir("snapshot");
        let files = first.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
        assert_eq!(files, ["devices", "machine.json", "memory"]);
        assert_eq!(first.stats().await.state(), State::Frozen);
        first.reset().await;
        assert_eq!(first.stats().await.state(), State::Idle);

        let mut second = worker().await;
        let outcome = second.restore("a", 2, with, &snapshot).await.unwrap();
        assert_eq!(second.get("/"), "3", "{outcome:?}");
    }
}
