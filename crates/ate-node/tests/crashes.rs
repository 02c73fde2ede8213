//! Bad luck: killed herders, a killed node, damaged files, a full disk. Nothing is lost, nothing leaks.

#[path = "support/node.rs"]
mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ate_agent::{CaptureTarget, NodeAgent, NodeEvent, Source};
use ate_api::{Reason, id::Activation};
use ate_node::Node;
use rustix::process::{Pid, Signal, kill_process};
use support::*;

/// The shim and the herder inside, by worker.
fn herders(dir: &Path) -> Vec<[Pid; 2]> {
    let workers = fs::read_dir(dir.join("node/workers")).unwrap().flatten();
    let records = workers.filter_map(|w| fs::read(w.path().join("herder.json")).ok());
    let pid = |v: &serde_json::Value| Pid::from_raw(v["pid"].as_i64().unwrap().try_into().unwrap()).unwrap();
    records
        .map(|record| {
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
            [pid(&record["processes"][0]), pid(&record["processes"][1])]
        })
        .collect()
}

fn nothing_left(dir: &Path) -> Result<(), Vec<String>> {
    let traces = traces(dir);
    if traces.is_empty() { Ok(()) } else { Err(traces) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_herder_leaves_nothing_and_is_replaced_and_its_actor_can_start_elsewhere() {
    let mut machine = Machine::with_workers(1).await;
    let (worker, counter) = (machine.ready().remove(0), actor("counter"));
    machine.boot(&worker, &counter, 1).await;
    let before = traces(machine.dir.path());
    for kind in ["process", "link", "directory"] {
        assert!(before.iter().any(|t| t.starts_with(kind)), "the test sees no {kind}: {before:?}");
    }

    kill_process(herders(machine.dir.path())[0][1], Signal::KILL).unwrap();
    let event = machine.until_event(|e| matches!(e, NodeEvent::WorkerLost { .. })).await;
    assert!(matches!(&event, NodeEvent::WorkerLost { id, .. } if *id == worker), "{event:?}");
    machine.workers.clear();
    machine.until(|m| m.ready().len() == 1).await;
    let replacement = machine.ready().remove(0);
    assert_ne!(replacement, worker);
    assert_eq!(traces(machine.dir.path()).iter().filter(|t| t.contains(&worker.0)).count(), 0);
    assert_eq!(reason(machine.node.release(&worker, &counter.uid, Activation(1)).await), Reason::WorkerLost);
    count(machine.boot(&replacement, &counter, 2).await.address);

    machine.node.shutdown().await;
    eventually("everything is gone", || nothing_left(machine.dir.path())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herder_that_hangs_in_a_release_is_replaced() {
    let mut machine = Machine::with_workers(1).await;
    let (worker, counter) = (machine.ready().remove(0), actor("counter"));
    machine.boot(&worker, &counter, 1).await;
    kill_process(herders(machine.dir.path())[0][1], Signal::STOP).unwrap();
    let released = machine.node.release(&worker, &counter.uid, Activation(1)).await;
    assert!(released.is_ok(), "what was asked for is done, nothing of the actor is left: {released:?}");
    machine.workers.clear();
    machine.until(|m| m.ready().iter().any(|w| *w != worker)).await;
    machine.node.shutdown().await;
    eventually("everything is gone", || nothing_left(machine.dir.path())).await;
}

/// Runs itself a second time as the node to be killed.
#[tokio::test(flavor = "multi_thread")]
async fn herders_of_a_node_that_was_killed_are_ended_when_it_starts_again() {
    const CHILD: &str = "ATE_TEST_NODE_TO_BE_KILLED";
    if let Some(dir) = std::env::var_os(CHILD) {
        let node = Node::start(options(Path::new(&dir))).await.unwrap();
        let mut events = node.events();
        let name = ate_api::id::ObjectName::new("default", "pool");
        let sandbox = sandbox(&runsc());
        let labels = Default::default();
        node.set_pool(ate_agent::PoolSpec { name, labels, replicas: 2, sandbox }).await.unwrap();
        let mut ready = std::collections::BTreeSet::new();
        while ready.len() < 2 {
            if let Some(NodeEvent::Worker(w)) = events.recv().await
                && w.phase == ate_agent::WorkerPhase::Ready
            {
                ready.insert(w.id);
            }
        }
        println!("\nboth ready");
        return std::future::pending().await;
    }

    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "herders_of_a_node_that_was_killed_are_ended_when_it_starts_again", "--nocapture"])
        .env(CHILD, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|l| l.is_ok_and(|l| l.contains("both ready"))), "the node to be killed never came up");
    let refused = Node::start(options(dir.path())).await.map(|_| ());
    assert_eq!(reason(refused), Reason::InUse);

    // Stopped, they cannot notice by themselves that the node is gone.
    let stopped = herders(dir.path());
    assert_eq!(stopped.len(), 2);
    for pid in stopped.into_iter().flatten() {
        kill_process(pid, Signal::STOP).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!traces(dir.path()).is_empty());

    let node = Node::start(options(dir.path())).await.unwrap();
    eventually("everything is gone", || nothing_left(dir.path())).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_with_a_flipped_byte_is_never_restored() {
    let machine = Machine::with_workers(1).await;
    let (worker, counter) = (machine.ready().remove(0), actor("counter"));
    machine.boot(&worker, &counter, 1).await;
    let captured = machine.node.capture(capture(&worker, &counter, 1, CaptureTarget::Local)).await.unwrap();
    machine.release(&worker, &counter, 1).await;

    let largest =
        files(&machine.dir.path().join("node/snapshots")).into_iter().max_by_key(|f| f.metadata().unwrap().len());
    let file = largest.unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, bytes).unwrap();

    let refused = machine.node.activate(machine.activate(&worker, &counter, 2, restored(&captured))).await;
    assert_eq!(reason(refused), Reason::SnapshotCorrupt);
    machine.release(&worker, &counter, 2).await;
    count(machine.boot(&worker, &counter, 3).await.address);
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_refused_for_another_actor_and_under_other_binaries() {
    let machine = Machine::with_workers(1).await;
    let (worker, counter, stranger) = (machine.ready().remove(0), actor("counter"), actor("stranger"));
    machine.boot(&worker, &counter, 1).await;
    let captured = machine.node.capture(capture(&worker, &counter, 1, external())).await.unwrap();
    machine.release(&worker, &counter, 1).await;

    let stolen = machine.activate(&worker, &stranger, 1, restored(&captured));
    assert_eq!(reason(machine.node.activate(stolen).await), Reason::ManifestInvalid);
    let mut other = machine.activate(&worker, &counter, 2, restored(&captured));
    let trixie = repository().join(".cache/runsc/20240729-trixie/runsc").canonicalize().expect("run script/setup");
    other.sandbox = sandbox(&trixie);
    assert_eq!(reason(machine.node.activate(other).await), Reason::ManifestInvalid);
    machine.node.shutdown().await;
}

struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        Self::mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], at);
        Mounted(at.to_owned())
    }

    fn resize(&self, size: &str) {
        Self::mount(&["-o", &format!("remount,size={size}")], &self.0);
    }

    fn mount(args: &[&str], at: &Path) {
        assert!(Command::new("mount").args(args).arg(at).status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_goes_on_when_the_disk_is_full_and_is_captured_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Mounted::tmpfs(&dir.path().join("node/snapshots"), "512k");
    let mut machine = Machine::start(dir).await;
    machine.node.set_pool(machine.pool(1)).await.unwrap();
    machine.until(|m| m.ready().len() == 1).await;
    let (worker, counter) = (machine.ready().remove(0), actor("counter"));
    let address = machine.boot(&worker, &counter, 1).await.address;
    let (first, boot) = count(address);

    let full = machine.node.capture(capture(&worker, &counter, 1, CaptureTarget::Local)).await;
    assert_eq!(reason(full), Reason::DiskFull);
    assert_eq!(count(address), (first + 1, boot.clone()));
    assert_eq!(files(&disk.0).iter().filter(|f| f.metadata().unwrap().len() > 4096).count(), 0);

    disk.resize("1g");
    let captured = machine.node.capture(capture(&worker, &counter, 1, CaptureTarget::Local)).await.unwrap();
    machine.release(&worker, &counter, 1).await;
    let activated = machine.node.activate(machine.activate(&worker, &counter, 2, restored(&captured))).await.unwrap();
    assert_eq!(count(activated.address), (first + 2, boot));
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_come_and_go_with_their_pool_and_wait_for_their_binaries() {
    let mut machine = Machine::start(tempfile::tempdir().unwrap()).await;
    let mut pool = machine.pool(2);
    pool.sandbox.assets[0].urls = vec!["file:///nowhere/runsc".into()];
    machine.node.set_pool(pool).await.unwrap();
    machine
        .until(|m| m.workers.values().any(|w| w.message.contains("runsc") && !w.message.starts_with("waiting")))
        .await;
    assert!(machine.ready().is_empty());

    machine.node.set_pool(machine.pool(2)).await.unwrap();
    machine.until(|m| m.ready().len() == 2).await;
    let busy = machine.ready().remove(0);
    let counter = actor("counter");
    let address = machine.boot(&busy, &counter, 1).await.address;
    machine.until(|m| m.ready().len() == 1).await;

    // The one that holds nobody leaves first, the other when it is released.
    machine.node.set_pool(machine.pool(1)).await.unwrap();
    machine.until(|m| m.workers.len() == 1).await;
    count(address);
    machine.node.set_pool(machine.pool(0)).await.unwrap();
    count(address);
    machine.release(&busy, &counter, 1).await;
    machine.until(|m| m.workers.is_empty()).await;
    eventually("everything is gone", || nothing_left(machine.dir.path())).await;

    let lost = machine.node.activate(machine.activate(&busy, &counter, 2, Source::Boot)).await;
    assert_eq!(reason(lost), Reason::WorkerLost);
    let mut unknown = machine.pool(1);
    unknown.sandbox.class = "../gvisor".into();
    assert_eq!(reason(machine.node.set_pool(unknown).await), Reason::UnknownSandboxClass);
    machine.node.shutdown().await;
}

/// All plain files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
    entries.flat_map(|p| if p.is_dir() { files(&p) } else { vec![p] }).collect()
}
