//! Machines that wait for somebody.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ateom::driver::stats_response::State;
use ateom_harness::{LIMIT, Worker, kill};

use crate::assets::{copy, golden, usual, worker};

const QEMU: &str = "qemu-system";

fn machines(worker: &Worker) -> BTreeSet<u32> {
    worker.find(QEMU).into_iter().collect()
}

/// Returns when they have been reaped.
async fn kill_machines(worker: &Worker) {
    let deadline = Instant::now() + LIMIT;
    for pid in machines(worker) {
        kill("-KILL", pid);
        while Path::new("/proc").join(pid.to_string()).exists() {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn an_empty_a_bound_and_a_standby_machine_are_each_used() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut worker = worker().await;
    for (number, (prepared_for, standby, waiting)) in
        [(None, false, 1), (Some(golden), false, 2), (Some(golden), true, 3)].into_iter().enumerate()
    {
        worker.prepare_for(with, prepared_for, standby).await.unwrap();
        assert_eq!(worker.stats().await.state(), State::Prepared);
        let before = machines(&worker);
        assert_eq!(before.len(), waiting);
        let outcome = worker.restore("a", number as u64 + 1, with, golden).await.unwrap();
        assert!(outcome.prepared, "{outcome:?}");
        assert_eq!(machines(&worker), before, "nothing was started");
        let loaded = outcome.steps_us.contains_key("load") || outcome.steps_us.contains_key("bind");
        assert_eq!(loaded, !standby, "{outcome:?}");
        assert_eq!(worker.get("/"), "1", "nobody has asked it before");
        assert_eq!(worker.get("/read/run/ate/name"), "a");
        assert_eq!(worker.get("/read/run/ate/activation"), (number + 1).to_string());
        worker.reset().await;
    }
}

#[tokio::test]
async fn a_standby_of_one_golden_is_not_used_for_another_and_disturbs_nobody() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut worker = worker().await;
    let other = copy(golden, worker.dir.path().join("other"));
    worker.prepare_for(with, Some(&other), true).await.unwrap();
    let outcome = worker.restore("a", 1, with, golden).await.unwrap();
    assert!(outcome.steps_us.contains_key("load"), "{outcome:?}");
    assert_eq!(worker.get("/"), "1");
    worker.reset().await;
    // An actor of another workload, which nobody prepared for.
    worker.prepare_for(with, Some(golden), true).await.unwrap();
    let mut another = workload.clone();
    another.key = "another".into();
    worker.run("b", 1, (&sandbox, &another)).await.unwrap();
    assert_eq!(worker.get("/"), "1");
    assert_eq!(worker.get("/read/run/ate/name"), "b");
}

#[tokio::test]
async fn machines_that_were_killed_while_they_waited_are_not_used() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut worker = worker().await;
    worker.prepare_for(with, Some(golden), true).await.unwrap();
    kill_machines(&worker).await;
    let outcome = worker.restore("a", 1, with, golden).await.unwrap();
    assert!(!outcome.prepared, "{outcome:?}");
    assert_eq!(worker.get("/"), "1");
    worker.reset().await;
    // And they are replaced.
    worker.prepare_for(with, Some(golden), true).await.unwrap();
    kill_machines(&worker).await;
    worker.prepare_for(with, Some(golden), false).await.unwrap();
    worker.prepare_for(with, Some(golden), true).await.unwrap();
    let outcome = worker.restore("a", 2, with, golden).await.unwrap();
    assert!(outcome.prepared && !outcome.steps_us.contains_key("load"), "{outcome:?}");
}

#[tokio::test]
async fn ten_clones_of_one_golden_draw_other_numbers_and_know_time_and_name() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut worker = worker().await;
    let mut drawn = BTreeSet::new();
    for clone in 0..10u64 {
        let standby = clone % 2 == 0;
        worker.prepare_for(with, Some(golden), standby).await.unwrap();
        let outcome = worker.restore(&format!("clone{clone}"), 1, with, golden).await.unwrap();
        assert_eq!(!outcome.steps_us.contains_key("load"), standby);
        drawn.insert(worker.get("/random"));
        let inside: u128 = worker.get("/now").parse().unwrap();
        let outside = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!(inside.abs_diff(outside) < 2000, "{inside} {outside}");
        assert_eq!(worker.get("/read/run/ate/name"), format!("clone{clone}"));
        assert_eq!(worker.get("/read/run/ate/uid"), format!("uid-clone{clone}"));
        worker.reset().await;
    }
    assert_eq!(drawn.len(), 10, "each its own: {drawn:?}");
}
