//! What is saved of a machine's memory, and that it comes back.

use std::{path::Path, process::Command};

use ateom::driver::Scope;

use crate::assets::{OLD, copy, golden, sandbox, usual, worker};

/// Of the machine of `usual`.
const MEMORY: u64 = 256 << 20;

/// Bytes on disk of the memory of a snapshot.
fn size(snapshot: &Path, file: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(snapshot.join(file)).unwrap().blocks() * 512
}

#[tokio::test]
async fn ten_times_only_what_differs_from_the_golden_is_saved_and_everything_comes_back() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut worker = worker().await;
    worker.restore("a", 1, with, golden).await.unwrap();
    worker.get("/fill/4");
    for round in 1..=10u64 {
        assert_eq!(worker.get(&format!("/touch/{round}")), "touched");
        assert_eq!(worker.get(&format!("/write/file{round}/content {round}").replace(' ', "-")), "written");
        let sum = worker.get("/sum");
        let delta = worker.snapshot_dir(&format!("delta{round}"));
        let (files, needs_base) = worker.checkpoint_with(round, &delta, Scope::Full, true).await.unwrap();
        assert_eq!((files, needs_base), (vec!["devices".into(), "machine.json".into(), "pages".into()], true));
        assert!(size(&delta, "pages") < MEMORY / 8, "{}", size(&delta, "pages"));
        worker.reset().await;
        worker.restore_with_base("a", round + 1, with, &delta, Some(golden)).await.unwrap();
        assert_eq!(worker.get("/sum"), sum, "round {round}");
        for file in 1..=round {
            assert_eq!(worker.get(&format!("/read/file{file}")), format!("content-{file}"));
        }
        assert_eq!(worker.get("/"), round.to_string());
        std::fs::remove_dir_all(delta).unwrap();
    }
}

#[tokio::test]
async fn without_permission_to_need_a_base_a_snapshot_is_whole_and_stands_alone() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut first = worker().await;
    first.restore("a", 1, with, golden).await.unwrap();
    first.get("/fill/4");
    let delta = first.snapshot_dir("delta");
    first.checkpoint_with(1, &delta, Scope::Full, true).await.unwrap();
    first.reset().await;
    first.restore_with_base("a", 2, with, &delta, Some(golden)).await.unwrap();
    first.get("/touch/1");
    let sum = first.get("/sum");
    let whole = first.snapshot_dir("whole");
    let (files, needs_base) = first.checkpoint_with(2, &whole, Scope::Full, false).await.unwrap();
    assert_eq!((files, needs_base), (vec!["devices".into(), "machine.json".into(), "memory".into()], false));
    assert!(size(&whole, "memory") < MEMORY / 2, "holes are not stored: {}", size(&whole, "memory"));
    first.reset().await;

    let mut second = worker().await;
    second.restore("a", 3, with, &whole).await.unwrap();
    assert_eq!(second.get("/sum"), sum);
    assert_eq!(second.get("/"), "1");
}

#[tokio::test]
async fn an_actor_that_was_thawed_is_saved_again_with_what_it_did_since() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut worker = worker().await;
    worker.restore("a", 1, with, golden).await.unwrap();
    worker.get("/fill/4");
    for round in 1..=3 {
        let given_up = worker.snapshot_dir(&format!("given up {round}"));
        worker.checkpoint_with(1, &given_up, Scope::Full, round % 2 == 0).await.unwrap();
        worker.thaw(1).await.unwrap();
        worker.get(&format!("/touch/{round}"));
        assert_eq!(worker.get("/"), round.to_string());
    }
    let sum = worker.get("/sum");
    let delta = worker.snapshot_dir("delta");
    assert!(worker.checkpoint_with(1, &delta, Scope::Full, true).await.unwrap().1);
    worker.reset().await;
    worker.restore_with_base("a", 2, with, &delta, Some(golden)).await.unwrap();
    assert_eq!((worker.get("/sum"), worker.get("/")), (sum, "4".into()));
}

#[tokio::test]
async fn files_that_are_removed_while_a_machine_uses_them_cost_it_nothing() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let mut worker = worker().await;
    let mine = copy(golden().await, worker.dir.path().join("mine"));
    worker.restore("a", 1, with, &mine).await.unwrap();
    std::fs::remove_dir_all(&mine).unwrap();
    worker.get("/fill/4");
    let sum = worker.get("/sum");
    let whole = worker.snapshot_dir("whole");
    assert!(!worker.checkpoint_with(1, &whole, Scope::Full, false).await.unwrap().1);
    worker.reset().await;
    worker.restore("a", 2, with, &whole).await.unwrap();
    assert_eq!(worker.get("/sum"), sum);
}

#[tokio::test]
async fn the_older_qemu_leaves_the_golden_as_it_was_and_saves_what_differs() {
    let with = (&sandbox(OLD, "{}"), &usual().1);
    let mut worker = worker().await;
    worker.run("golden", 1, with).await.unwrap();
    let golden = worker.snapshot_dir("golden");
    worker.checkpoint(1, &golden, Scope::Full).await.unwrap();
    worker.reset().await;
    let untouched = copy(&golden, worker.dir.path().join("untouched"));
    worker.prepare_for(with, Some(&golden), true).await.unwrap();
    worker.restore("a", 1, with, &golden).await.unwrap();
    worker.get("/fill/4");
    for round in 1..=3 {
        worker.get(&format!("/touch/{round}"));
        let sum = worker.get("/sum");
        let delta = worker.snapshot_dir(&format!("delta{round}"));
        assert!(worker.checkpoint_with(round, &delta, Scope::Full, true).await.unwrap().1);
        assert!(size(&delta, "pages") < MEMORY / 8, "{}", size(&delta, "pages"));
        worker.reset().await;
        worker.restore_with_base("a", round + 1, with, &delta, Some(&golden)).await.unwrap();
        assert_eq!(worker.get("/sum"), sum, "round {round}");
    }
    // It opens the file for writing, being too old for anything else.
    let same = Command::new("cmp").arg(golden.join("memory")).arg(untouched.join("memory")).status().unwrap();
    assert!(same.success());
}
