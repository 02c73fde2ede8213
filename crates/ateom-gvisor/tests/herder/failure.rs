//! Bad input and bad luck.

use std::{path::Path, process::Command, time::Instant};

use ate_api::{Error, Reason};
use ateom::driver::{self as pb, Scope, stats_response::State};
use ateom_harness::tmpfs::Tmpfs;

use crate::worker::{LIMIT, NEW, OLD, container, digest_of, sandbox, worker, workload};

#[tokio::test]
async fn a_full_disk_fails_the_snapshot_and_the_actor_runs_on() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    worker.get("/fill/8");
    assert_eq!(worker.get("/"), "1");
    let small = worker.snapshot_dir("small");
    let tmpfs = Tmpfs::mount(&small, "size=4m", worker.pid);
    let error = worker.checkpoint(1, &small, Scope::Full).await.unwrap_err();
    assert_eq!(error.reason, Reason::DiskFull, "{error}");
    assert_eq!(worker.stats().await.state(), State::Running);
    assert_eq!(worker.get("/"), "2", "it runs on");
    drop(tmpfs);
    let elsewhere = worker.snapshot_dir("elsewhere");
    worker.checkpoint(1, &elsewhere, Scope::Full).await.unwrap();
    worker.reset().await;
    worker.restore("a", 2, with, &elsewhere).await.unwrap();
    assert_eq!(worker.get("/"), "3");
}

#[tokio::test]
async fn an_open_connection_costs_the_older_generation_its_snapshot_but_not_the_actor() {
    let with = (&sandbox(OLD, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    assert_eq!(worker.get("/"), "1");
    let held = std::net::TcpStream::connect((worker.address, 8080)).unwrap();
    let snapshot = worker.snapshot_dir("snapshot");
    let error = worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap_err();
    assert!(error.message.contains("open connection"), "{error}");
    drop(held);
    assert_eq!(worker.get("/"), "2");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
}

#[tokio::test]
async fn an_open_connection_does_not_keep_the_newer_generation_from_saving() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    let held = std::net::TcpStream::connect((worker.address, 8080)).unwrap();
    let snapshot = worker.snapshot_dir("snapshot");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    worker.reset().await;
    worker.restore("a", 2, with, &snapshot).await.unwrap();
    assert_eq!(worker.get("/"), "1");
    drop(held);
}

#[tokio::test]
async fn a_killed_sandbox_is_reported_and_the_worker_usable_again() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    let mut events = worker.client.events(pb::EventsRequest {}).await.unwrap().into_inner();
    worker.run("a", 5, with).await.unwrap();
    let sandbox = worker.processes().into_iter().find(|(_, name)| name.contains("boot")).unwrap().0;
    Command::new("kill").args(["-9", &sandbox.to_string()]).status().unwrap();
    let event = tokio::time::timeout(LIMIT, events.message()).await.unwrap().unwrap().unwrap();
    assert_eq!((event.activation, event.actor_uid.as_str(), event.kind.as_str()), (5, "uid-a", "killed"));
    assert_eq!(worker.stats().await.state(), State::Ended);
    let error = worker.checkpoint(5, &worker.snapshot_dir("s"), Scope::Full).await.unwrap_err();
    assert_eq!(error.reason, Reason::WrongState);
    worker.reset().await;
    worker.run("a", 6, with).await.unwrap();
    assert_eq!(worker.get("/"), "1");
}

#[tokio::test]
async fn a_prepared_sandbox_that_dies_is_not_used() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.prepare(with).await.unwrap();
    let sandbox = worker.processes().into_iter().find(|(_, name)| name.contains("boot")).unwrap().0;
    Command::new("kill").args(["-9", &sandbox.to_string()]).status().unwrap();
    let deadline = Instant::now() + LIMIT;
    while worker.stats().await.state() != State::Idle {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    assert!(!worker.run("a", 1, with).await.unwrap().prepared);
    assert_eq!(worker.get("/"), "1");
}

#[tokio::test]
async fn an_actor_that_ends_by_itself_is_reported() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    let mut events = worker.client.events(pb::EventsRequest {}).await.unwrap().into_inner();
    worker.run("a", 1, with).await.unwrap();
    let _ = worker.try_get("/exit/3", LIMIT);
    let event = tokio::time::timeout(LIMIT, events.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.kind, "exited");
}

#[tokio::test]
async fn an_actor_that_ends_before_it_is_ready_fails_at_once() {
    let mut main = container("main", 8080);
    main.args = vec!["/nothing".into()];
    let mut worker = worker().await;
    let since = Instant::now();
    let error = worker.run("a", 1, (&sandbox(NEW, "{}"), &workload(vec![main]))).await.unwrap_err();
    assert!(matches!(error.reason, Reason::SandboxFailed | Reason::ActorExited), "{error}");
    assert!(since.elapsed() < LIMIT / 2, "{error}");
    assert_eq!(worker.stats().await.state(), State::Idle);
}

#[tokio::test]
async fn an_actor_that_never_becomes_ready_fails_with_that_reason() {
    let mut main = container("main", 8080);
    main.readyz = Some(pb::Readyz { path: "/readyz".into(), port: 4444 });
    let mut worker = worker().await;
    let mut activation = worker.activation("a", 1);
    activation.timeout_ms = 1500;
    let request = pb::RunRequest {
        activation: Some(activation),
        sandbox: Some(sandbox(NEW, "{}")),
        workload: Some(workload(vec![main])),
    };
    let error = Error::from(&worker.client.run(request).await.unwrap_err());
    assert_eq!(error.reason, Reason::NotReady, "{error}");
    assert!(error.message.contains("4444"), "{error}");
    assert_eq!(worker.processes().len(), 1, "only the herder is left");
}

#[tokio::test]
async fn a_reset_cuts_short_a_start_that_would_take_for_ever() {
    let mut main = container("main", 8080);
    main.readyz = Some(pb::Readyz { path: "/readyz".into(), port: 4444 });
    let with = (sandbox(NEW, "{}"), workload(vec![main]));
    let mut worker = worker().await;
    let activation = Some(worker.activation("a", 1));
    let request = pb::RunRequest { activation, sandbox: Some(with.0), workload: Some(with.1) };
    let mut client = worker.client.clone();
    let starting = tokio::spawn(async move { client.run(request).await });
    let deadline = Instant::now() + LIMIT;
    while worker.stats().await.state() != State::Starting {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    worker.reset().await;
    let error = Error::from(&starting.await.unwrap().unwrap_err());
    assert_eq!(error.reason, Reason::Conflict);
    assert_eq!(worker.stats().await.state(), State::Idle);
    assert_eq!(worker.processes().len(), 1);
}

#[tokio::test]
async fn a_damaged_snapshot_is_an_error_and_never_a_hang() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    worker.run("a", 1, with).await.unwrap();
    let snapshot = worker.snapshot_dir("snapshot");
    worker.checkpoint(1, &snapshot, Scope::Full).await.unwrap();
    worker.reset().await;
    for file in ["pages.img", "pages_meta.img", "checkpoint.img"] {
        let path = snapshot.join(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let error = worker.restore("a", 2, with, &snapshot).await.unwrap_err();
        assert!(matches!(error.reason, Reason::SandboxFailed | Reason::ActorExited), "{file}: {error}");
        assert!(error.message.len() < 4096);
        std::fs::write(&path, whole).unwrap();
    }
    worker.restore("a", 3, with, &snapshot).await.unwrap();
}

#[tokio::test]
async fn an_activation_from_the_past_changes_nothing() {
    let with = (&sandbox(NEW, "{}"), &workload(vec![container("main", 8080)]));
    let mut worker = worker().await;
    let outcome = worker.run("a", 7, with).await.unwrap();
    assert_eq!(worker.run("a", 7, with).await.unwrap(), outcome, "asked again, it answers the same");
    assert_eq!(worker.run("a", 6, with).await.unwrap_err().reason, Reason::Fenced);
    assert_eq!(worker.run("a", 8, with).await.unwrap_err().reason, Reason::WrongState);
    assert_eq!(worker.checkpoint(6, &worker.snapshot_dir("s"), Scope::Full).await.unwrap_err().reason, Reason::Fenced);
    assert_eq!(worker.thaw(6).await.unwrap_err().reason, Reason::Fenced);
    assert_eq!(worker.get("/"), "1");
    worker.reset().await;
    assert_eq!(worker.run("a", 7, with).await.unwrap_err().reason, Reason::Fenced, "8 was seen");
}

#[tokio::test]
async fn several_containers_need_a_binary_that_can_save_them() {
    let with = (&sandbox(OLD, "{}"), &workload(vec![container("main", 8080), container("side", 8081)]));
    let mut worker = worker().await;
    let error = worker.run("a", 1, with).await.unwrap_err();
    assert_eq!(error.reason, Reason::MissingCapability);
    assert_eq!(worker.processes().len(), 1, "nothing was started");
}

#[tokio::test]
async fn a_configuration_that_is_not_what_its_digest_says_starts_nothing() {
    let mut altered = sandbox(NEW, "{}");
    altered.config_json = br#"{"platform":"ptrace"}"#.to_vec();
    let unknown = sandbox(NEW, r#"{"rootfs":"/"}"#);
    let mut worker = worker().await;
    for bad in [&altered, &unknown] {
        let error = worker.run("a", 1, (bad, &workload(vec![container("main", 8080)]))).await.unwrap_err();
        assert_eq!(error.reason, Reason::Invalid, "{error}");
    }
}

#[tokio::test]
async fn binaries_are_asked_what_they_can_do() {
    let mut worker = worker().await;
    let new = worker.probe(sandbox(NEW, "{}")).await.unwrap();
    let all = ["checkpoint.leave-running", "prepare", "snapshot.data", "snapshot.full", "snapshot.multi-container"];
    assert_eq!(new.capabilities, all);
    assert_eq!(new.versions["runsc"], "0.0~20240729.0");
    let old = worker.probe(sandbox(OLD, "{}")).await.unwrap();
    assert_eq!(old.capabilities, ["snapshot.data", "snapshot.full"]);
    assert_eq!(old.versions["runsc"], "0.0~20221219.0");
    let systrap = worker.probe(sandbox(OLD, r#"{"platform":"systrap"}"#)).await.unwrap_err();
    assert_eq!(systrap.reason, Reason::MissingCapability);
    let mut other = sandbox(NEW, "{}");
    other.asset_paths.insert("runsc".into(), "/bin/true".into());
    other.asset_digests.insert("runsc".into(), digest_of(Path::new("/bin/true")));
    assert_eq!(worker.probe(other).await.unwrap_err().reason, Reason::SandboxFailed);
}
