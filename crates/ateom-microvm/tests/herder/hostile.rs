//! Actors that take what they can, and try to get what they must not.

use ateom::driver::{self as pb, Scope, stats_response::State};
use ateom_harness::LIMIT;

use crate::assets::{golden, usual, worker};

#[tokio::test]
async fn root_in_a_container_reaches_no_device_and_no_setting_of_the_machine() {
    let (sandbox, workload) = usual();
    let mut worker = worker().await;
    worker.restore("a", 1, (&sandbox, &workload), golden().await).await.unwrap();
    // The disks are virtio (major 254 or so), the ports virtio-ports; memory and console for good measure.
    let numbers = |path: &str| -> Vec<(u32, u32)> {
        let found = worker.get(&format!("/read/{path}"));
        let number = |text: &str| text.trim().parse().ok();
        found.split_once(':').and_then(|(major, minor)| Some((number(major)?, number(minor)?))).into_iter().collect()
    };
    let mut devices = numbers("sys/block/vda/dev");
    for port in 0..8 {
        devices.extend(numbers(&format!("sys/class/virtio-ports/vport{port}p1/dev")));
        devices.extend(numbers(&format!("sys/class/virtio-ports/vport{port}p2/dev")));
    }
    assert!(devices.len() >= 3, "two ports and a disk: {devices:?}");
    devices.extend([(1, 1), (1, 2), (5, 1)]);
    for dir in ["", "dev/", "dev/shm/", "tmp/", "run/"] {
        for (i, (major, minor)) in devices.iter().enumerate() {
            let said = worker.get(&format!("/device/{dir}device{i}/{major}/{minor}"));
            assert!(!said.contains("OPEN"), "{dir} {major}:{minor}: {said}");
        }
    }
    assert!(worker.get("/device/tmp/made/1/3").contains("PermissionDenied"), "not even a harmless one");
    for setting in ["sysrq-trigger/c", "sys/kernel/core_pattern/x", "sys/kernel/modprobe/x", "sys/vm/panic_on_oom/2"] {
        let said = worker.get(&format!("/write/proc/{setting}"));
        assert!(said.starts_with("error"), "{setting}: {said}");
    }
    assert!(worker.get("/write/sys/power/state/mem").starts_with("error"));
    assert_eq!(worker.get("/"), "1");
}

#[tokio::test]
async fn an_actor_that_floods_its_log_is_saved_in_the_middle_of_it_and_fills_two_files() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut worker = worker().await;
    worker.restore("a", 1, with, golden).await.unwrap();
    assert_eq!(worker.get("/flood"), "flooding");
    let mut last = golden.to_owned();
    for round in 1..=3u64 {
        let snapshot = worker.snapshot_dir(&format!("snapshot{round}"));
        worker.checkpoint(round, &snapshot, Scope::Full).await.unwrap();
        worker.reset().await;
        worker.restore("a", round + 1, with, &snapshot).await.unwrap();
        assert_eq!(worker.get("/"), round.to_string());
        assert_eq!(worker.stats().await.state(), State::Running);
        last = snapshot;
    }
    worker.reset().await;
    assert!(last.ends_with("snapshot3"));
    let files = std::fs::read_dir(worker.log_dir()).unwrap().map(|e| e.unwrap().metadata().unwrap().len());
    let sizes: Vec<u64> = files.collect();
    assert!((1..=2).contains(&sizes.len()), "{sizes:?}");
    assert!(sizes.iter().all(|&size| size > 0 && size < ateom::logs::MAX_FILE + 64 * 1024), "{sizes:?}");
}

#[tokio::test]
async fn an_actor_that_fills_the_memory_is_ended_and_reported_while_its_agent_lives() {
    let (sandbox, workload) = usual();
    let mut worker = worker().await;
    let mut events = worker.client.events(pb::EventsRequest {}).await.unwrap().into_inner();
    worker.restore("a", 1, (&sandbox, &workload), golden().await).await.unwrap();
    while worker.try_get("/fill/40", LIMIT).is_some() {}
    let event = tokio::time::timeout(LIMIT, events.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.kind, "killed");
    assert!(event.message.contains("the actor ended: signal 9"), "its machine did not: {}", event.message);
    assert_eq!(worker.stats().await.state(), State::Ended);
    worker.reset().await;
    assert_eq!(worker.processes().len(), 1);
}

#[tokio::test]
async fn an_actor_that_fills_its_disk_is_told_so_goes_on_and_can_be_saved_and_restored() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let mut worker = worker().await;
    worker.restore("a", 1, with, golden().await).await.unwrap();
    assert_eq!(worker.get("/disk/full"), "StorageFull");
    assert_eq!(worker.get("/"), "1");
    let snapshot = worker.snapshot_dir("snapshot");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    worker.thaw(1).await.unwrap();
    assert_eq!(worker.get("/"), "2");
    worker.reset().await;
    worker.restore("another", 2, with, &snapshot).await.unwrap();
    assert_eq!(worker.get("/"), "2");
    assert_eq!(worker.get("/read/run/ate/name"), "another");
}
