//! Bad luck.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use ate_api::{Error, Reason};
use ateom::driver::{self as pb, Event, Scope, stats_response::State};
use ateom_harness::{LIMIT, Worker, kill, leftovers::inventory, tmpfs::Tmpfs};

use crate::assets::{NEW, container, golden, sandbox, usual, worker, workload};

const QEMU: &str = "qemu-system";

/// Kills the machine that runs, or comes to run.
async fn kill_machine(worker: &Worker) {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let [machine] = worker.find(QEMU)[..] {
            return kill("-KILL", machine);
        }
        assert!(Instant::now() < deadline, "no machine");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn next(events: &mut tonic::Streaming<Event>) -> Event {
    tokio::time::timeout(LIMIT, events.message()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn a_machine_that_is_killed_at_any_step_is_a_typed_error_or_an_event_and_no_more() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut worker = worker().await;
    let mut events = worker.client.events(pb::EventsRequest {}).await.unwrap().into_inner();
    let failed = |error: Error, step: &str| assert_eq!(error.reason, Reason::SandboxFailed, "{step}: {error}");

    // During a boot.
    let (mut client, request) = (worker.client.clone(), worker.run_request("a", 1, with));
    let booting = tokio::spawn(async move { client.run(request).await });
    kill_machine(&worker).await;
    failed(Error::from(&booting.await.unwrap().unwrap_err()), "boot");
    assert_eq!((worker.stats().await.state(), worker.processes().len()), (State::Idle, 1));

    // During a restore.
    let (mut client, request) = (worker.client.clone(), worker.restore_request("a", 2, with, golden));
    let restoring = tokio::spawn(async move { client.restore(request).await });
    kill_machine(&worker).await;
    failed(Error::from(&restoring.await.unwrap().unwrap_err()), "restore");
    assert_eq!((worker.stats().await.state(), worker.processes().len()), (State::Idle, 1));

    // While it runs.
    worker.restore("a", 3, with, golden).await.unwrap();
    kill_machine(&worker).await;
    let event = next(&mut events).await;
    assert_eq!((event.activation, event.actor_uid.as_str(), event.kind.as_str()), (3, "uid-a", "killed"));
    assert_eq!(worker.stats().await.state(), State::Ended);
    let error = worker.checkpoint(3, &worker.snapshot_dir("ended"), Scope::Full).await.unwrap_err();
    assert_eq!(error.reason, Reason::WrongState);
    worker.reset().await;
    assert_eq!(worker.processes().len(), 1);

    // While it is frozen.
    worker.restore("a", 4, with, golden).await.unwrap();
    worker.checkpoint(4, &worker.snapshot_dir("frozen"), Scope::Full).await.unwrap();
    kill_machine(&worker).await;
    assert_eq!((next(&mut events).await.activation, worker.stats().await.state()), (4, State::Ended));
    assert_eq!(worker.thaw(4).await.unwrap_err().reason, Reason::WrongState);
    worker.reset().await;

    // While it is being saved: stopped, so that it does not finish before it is killed.
    worker.restore("a", 5, with, golden).await.unwrap();
    kill("-STOP", worker.find(QEMU)[0]);
    let dir = worker.snapshot_dir("saved");
    let (mut client, to) = (worker.client.clone(), dir.to_string_lossy().into_owned());
    let request = pb::CheckpointRequest { activation: 5, dir: to, scope: Scope::Full.into(), may_need_base: false };
    let saving = tokio::spawn(async move { client.checkpoint(request).await });
    // Until others have to wait for it.
    let mut other = worker.client.clone();
    let mut ask = async || other.probe(pb::ProbeRequest { sandbox: Some(sandbox.clone()) }).await;
    while tokio::time::timeout(Duration::from_millis(100), ask()).await.is_ok() {
        assert!(!saving.is_finished());
    }
    kill_machine(&worker).await;
    failed(Error::from(&saving.await.unwrap().unwrap_err()), "checkpoint");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    assert_eq!(next(&mut events).await.activation, 5);
    worker.reset().await;

    worker.restore("a", 6, with, golden).await.unwrap();
    assert_eq!(worker.get("/"), "1");
    worker.reset().await;
    assert_eq!(worker.processes().len(), 1);
}

#[tokio::test]
async fn a_full_disk_fails_the_snapshot_and_the_actor_runs_on() {
    let (sandbox, workload) = usual();
    let with = (&sandbox, &workload);
    let golden = golden().await;
    let mut worker = worker().await;
    worker.restore("a", 1, with, golden).await.unwrap();
    worker.get("/fill/4");
    let small = worker.snapshot_dir("small");
    for may_need_base in [false, true] {
        let tmpfs = Tmpfs::mount(&small, "size=160k", worker.pid);
        let error = worker.checkpoint_with(1, &small, Scope::Full, may_need_base).await.unwrap_err();
        assert_eq!(error.reason, Reason::DiskFull, "{error}");
        assert_eq!(worker.stats().await.state(), State::Running);
        let inside = format!("/proc/{}/root{}", worker.pid, small.display());
        assert_eq!(std::fs::read_dir(inside).unwrap().count(), 0, "nothing is left of it");
        drop(tmpfs);
    }
    assert_eq!(worker.get("/"), "1", "it runs on");
    let elsewhere = worker.snapshot_dir("elsewhere");
    worker.checkpoint(1, &elsewhere, Scope::Full).await.unwrap();
    worker.reset().await;
    worker.restore("a", 2, with, &elsewhere).await.unwrap();
    assert_eq!(worker.get("/"), "2");
}

#[tokio::test]
async fn a_kernel_that_does_not_come_up_is_an_error_with_its_last_words() {
    let workload = workload(vec![container("main", 8080)]);
    let mut worker = worker().await;
    worker.probe(usual().0).await.unwrap(); // answers when the worker is up
    let before = inventory(&worker).disk;
    // It dies.
    let dead = sandbox(NEW, r#"{"kernelArgs":"rdinit=/nonexistent"}"#);
    let error = worker.run("a", 1, (&dead, &workload)).await.unwrap_err();
    assert_eq!(error.reason, Reason::SandboxFailed, "{error}");
    assert!(error.message.contains("Kernel panic"), "{error}");
    // Its agent dies.
    let dead = sandbox(NEW, r#"{"kernelArgs":"initcall_blacklist=virtio_console_init"}"#);
    let error = worker.run("a", 2, (&dead, &workload)).await.unwrap_err();
    assert_eq!(error.reason, Reason::SandboxFailed, "{error}");
    assert!(error.message.contains("Attempted to kill init") && error.message.contains("ate-guest: "), "{error}");
    // It waits for what never comes.
    let args = "rdinit=/nonexistent root=/dev/nothing rootwait loglevel=7";
    let silent = sandbox(NEW, &format!(r#"{{"kernelArgs":"{args}"}}"#));
    let mut request = worker.run_request("a", 3, (&silent, &workload));
    request.activation.as_mut().unwrap().timeout_ms = 6000;
    let since = Instant::now();
    let error = Error::from(&worker.client.run(request).await.unwrap_err());
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert_eq!(error.reason, Reason::DeadlineExceeded, "{error}");
    assert!(error.message.contains("Waiting for root device"), "{error}");
    assert_eq!(worker.processes().len(), 1, "only the herder is left");
    assert_eq!(inventory(&worker).disk, before);
}

#[tokio::test]
async fn a_kernel_that_panics_is_reported_with_its_last_words() {
    // An actor that takes too much is usually only ended itself.
    let with =
        (&sandbox(NEW, r#"{"kernelArgs":"sysctl.vm.panic_on_oom=2"}"#), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    let mut events = worker.client.events(pb::EventsRequest {}).await.unwrap().into_inner();
    worker.run("a", 1, with).await.unwrap();
    while worker.try_get("/fill/40", LIMIT).is_some() {}
    let event = next(&mut events).await;
    assert_eq!(event.kind, "killed");
    assert!(event.message.contains("Kernel panic"), "{}", event.message);
    worker.reset().await;
    assert_eq!(worker.processes().len(), 1);
}

#[tokio::test]
async fn a_machine_larger_than_the_host_allows_is_a_typed_error() {
    let with = (&sandbox(NEW, r#"{"memoryMiB":32768}"#), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.probe(usual().0).await.unwrap(); // answers when the worker is up
    let before = inventory(&worker).disk;
    let limit = (16u64 << 30).to_string();
    let limited = Command::new("prlimit").args(["--pid", &worker.pid.to_string(), &format!("--as={limit}")]).status();
    assert!(limited.unwrap().success());
    let error = worker.run("a", 1, with).await.unwrap_err();
    assert_eq!(error.reason, Reason::SandboxFailed, "{error}");
    assert!(error.message.contains("allocate memory"), "{error}");
    assert_eq!(worker.processes().len(), 1, "only the herder is left");
    assert_eq!(inventory(&worker).disk, before);
    let (sandbox, workload) = usual();
    worker.restore("a", 2, (&sandbox, &workload), golden().await).await.unwrap();
}
