//! Workers that are pods: the herder is there before the node agent and after it, and so is who is on it.

#[path = "support/node.rs"]
mod support;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use ate_agent::{HeldStage, NodeAgent, NodeEvent, PoolSpec, Source, WorkerPhase};
use ate_api::{
    Reason,
    id::{Activation, Digest, ObjectName, WorkerId},
};
use ate_node::{Node, Options, Pods, WorkerPod};
use ateom_harness::pod::Pod;
use support::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
};

/// Of nobody: what a pod had before it was restarted.
const STALE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// What watches the pods of a machine says.
struct Kubelet(watch::Sender<Pods>);

impl Kubelet {
    fn new() -> Self {
        Kubelet(watch::Sender::new(Some(BTreeMap::new())))
    }

    fn tell(&self, pod: &Pod, leaving: bool) {
        self.tell_address(pod, pod.network.address, leaving);
    }

    fn tell_address(&self, pod: &Pod, address: Ipv4Addr, leaving: bool) {
        let told = WorkerPod {
            name: "pool-x".into(),
            pool: ObjectName::new("default", "pool"),
            address: Some(address),
            leaving,
        };
        self.0.send_modify(|pods| drop(pods.get_or_insert_default().insert(pod.uid.clone(), told)));
    }

    fn forget(&self, pod: &Pod) {
        self.0.send_modify(|pods| drop(pods.get_or_insert_default().remove(&pod.uid)));
    }
}

/// A node agent over the directory of one that may have been there before.
async fn start(dir: tempfile::TempDir, kubelet: &Kubelet) -> Machine {
    start_with(dir, kubelet, |_| ()).await
}

async fn start_with(dir: tempfile::TempDir, kubelet: &Kubelet, change: impl Fn(&mut PoolSpec)) -> Machine {
    let workers = ate_node::Source::Pods(kubelet.0.subscribe());
    let begun = Instant::now();
    let node = loop {
        match Node::start(Options { workers: workers.clone(), ..options(dir.path()) }).await {
            Ok(node) => break node,
            // The last tasks of the former one are still ending.
            Err(e) if e.reason == Reason::InUse && begun.elapsed() < LONG => tokio::task::yield_now().await,
            Err(e) => panic!("{e}"),
        }
    };
    let (sandbox, template) = (sandbox(&runsc()), template(&node, serde_json::json!([])).await);
    let mut machine = Machine { dir, events: node.events(), node, sandbox, template, workers: BTreeMap::new() };
    let mut pool = machine.pool(0);
    change(&mut pool);
    machine.node.set_pool(pool).await.unwrap();
    // As a control plane does: it listens once it has told what pools there are.
    machine.events = machine.node.events();
    machine
}

/// A machine with one pod, whose worker is ready.
async fn with_one_worker(kubelet: &Kubelet) -> (Machine, Pod, WorkerId) {
    let mut machine = start(tempfile::tempdir().unwrap(), kubelet).await;
    let worker_pod = pod(&machine);
    kubelet.tell(&worker_pod, false);
    machine.until(|m| m.ready().len() == 1).await;
    let worker = machine.ready().remove(0);
    (machine, worker_pod, worker)
}

fn pod(machine: &Machine) -> Pod {
    Pod::start(&programs().join("ateom-gvisor"), &machine.dir.path().canonicalize().unwrap(), &uuid())
}

fn uuid() -> String {
    ate_api::id::Uid::generate().to_string()
}

/// The node agent ends, and its herders notice nothing.
async fn replaced(machine: Machine, kubelet: &Kubelet) -> Machine {
    replaced_with(machine, kubelet, |_| ()).await
}

async fn replaced_with(machine: Machine, kubelet: &Kubelet, change: impl Fn(&mut PoolSpec)) -> Machine {
    machine.node.shutdown().await;
    let (dir, template) = (machine.dir, machine.template);
    drop((machine.node, machine.events));
    Machine { template, ..start_with(dir, kubelet, change).await }
}

/// The pool is of a class that this herder is not of.
fn of_another_class(pool: &mut PoolSpec) {
    pool.sandbox.class = "another".into();
}

async fn until_lost(machine: &mut Machine, worker: &WorkerId) {
    machine.until_event(|e| matches!(e, NodeEvent::WorkerLost { id, .. } if id == worker)).await;
    machine.workers.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_in_a_pod_outlives_the_node_agent_and_is_captured_by_the_next() {
    let kubelet = Kubelet::new();
    let (machine, worker_pod, worker) = with_one_worker(&kubelet).await;
    let counter = actor("counter");
    assert!(worker.0.contains(&worker_pod.uid));
    let address = machine.boot(&worker, &counter, 1).await.address;
    assert_eq!(address, worker_pod.network.address, "the pod's own");
    let (first, boot) = count(address);

    let mut machine = replaced(machine, &kubelet).await;
    // The first that is said of the worker is who is on it.
    let said = machine.until_event(|e| matches!(e, NodeEvent::Worker(_) | NodeEvent::Listed)).await;
    let NodeEvent::Worker(report) = said else { panic!("nothing was said of it: {said:?}") };
    let held = report.holds.expect("somebody is on it");
    assert_eq!((report.id, held.actor, held.activation), (worker.clone(), counter.uid.clone(), Activation(1)));
    assert_eq!((held.stage, report.phase), (HeldStage::Running, WorkerPhase::Busy));
    assert_eq!(count(address), (first + 1, boot.clone()), "the same process, with its memory");

    // The one call that was not answered yet is answered, and the next ones as if nothing had been.
    let again = machine.activate(&worker, &counter, 1, Source::Boot);
    assert_eq!(machine.node.activate(again).await.unwrap().address, address);
    let captured = machine.node.capture(capture(&worker, &counter, 1, external())).await.unwrap();
    machine.release(&worker, &counter, 1).await;
    let restored = machine.activate(&worker, &counter, 2, restored(&captured));
    let address = machine.node.activate(restored).await.unwrap().address;
    assert_eq!(count(address), (first + 2, boot));
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_frozen_for_a_node_agent_that_is_gone_goes_on() {
    let kubelet = Kubelet::new();
    let (machine, _pod, worker) = with_one_worker(&kubelet).await;
    let counter = actor("counter");
    let address = machine.boot(&worker, &counter, 1).await.address;
    let (first, boot) = count(address);
    machine.node.capture(capture(&worker, &counter, 1, external())).await.unwrap();
    let machine = replaced(machine, &kubelet).await;
    eventually("it goes on", || get(address, "/").map(drop).map_err(|e| e.to_string())).await;
    let (now, same) = count(address);
    assert!(now > first && same == boot, "{now} {same}");
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_to_end_waits_for_its_actor_and_an_idle_one_does_not() {
    let kubelet = Kubelet::new();
    let mut machine = start(tempfile::tempdir().unwrap(), &kubelet).await;
    let (mut used, mut idle) = (pod(&machine), pod(&machine));
    kubelet.tell(&used, false);
    kubelet.tell(&idle, false);
    machine.until(|m| m.ready().len() == 2).await;
    let of = |m: &Machine, pod: &Pod| m.ready().into_iter().find(|w| w.0.contains(&pod.uid)).unwrap();
    let (worker, unused, counter) = (of(&machine, &used), of(&machine, &idle), actor("counter"));
    let address = machine.boot(&worker, &counter, 1).await.address;
    let before = count(address);

    for pod in [&used, &idle] {
        kubelet.tell(pod, true);
        pod.ask_to_end();
    }
    machine.until(|m| m.workers.get(&worker).is_some_and(|w| w.leaving) && !m.workers.contains_key(&unused)).await;
    assert!(idle.wait(Duration::from_secs(20)).success());
    assert_eq!(count(address).0, before.0 + 1, "the actor is served until it is moved");
    assert!(used.ended().is_none());

    machine.node.capture(capture(&worker, &counter, 1, external())).await.unwrap();
    machine.release(&worker, &counter, 1).await;
    assert!(used.wait(Duration::from_secs(20)).success(), "it ends by itself");
    machine.until(|m| m.workers.is_empty()).await;
    kubelet.forget(&used);
    assert!(!used.dir.join("driver.sock").exists());
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_herder_that_dies_in_its_pod_is_a_lost_worker_and_the_next_one_is_a_new_one() {
    let kubelet = Kubelet::new();
    let (mut machine, mut worker_pod, worker) = with_one_worker(&kubelet).await;
    let counter = actor("counter");
    machine.boot(&worker, &counter, 1).await;
    worker_pod.start_herder();
    until_lost(&mut machine, &worker).await;
    machine.until(|m| m.ready().len() == 1).await;
    assert!(machine.workers.values().all(|w| w.holds.is_none()));
    count(machine.boot(&worker, &counter, 2).await.address);
    machine.node.shutdown().await;
}

/// A machine with one pod that was found under an address it does not have any more.
async fn with_a_stale_address(kubelet: &Kubelet) -> (Machine, Pod, WorkerId) {
    let mut machine = start(tempfile::tempdir().unwrap(), kubelet).await;
    let worker_pod = pod(&machine);
    kubelet.tell_address(&worker_pod, STALE, false);
    machine.until(|m| m.ready().len() == 1).await;
    let worker = machine.ready().remove(0);
    assert_eq!(machine.workers[&worker].address, STALE);
    (machine, worker_pod, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_gets_another_address_is_found_anew_under_that() {
    let kubelet = Kubelet::new();
    let (mut machine, mut worker_pod, worker) = with_a_stale_address(&kubelet).await;
    kubelet.tell(&worker_pod, false);
    until_lost(&mut machine, &worker).await;
    machine.until(|m| m.ready().len() == 1).await;
    assert_eq!(machine.workers[&worker].address, worker_pod.network.address);
    assert!(worker_pod.ended().is_none(), "nobody was on it");
    count(machine.boot(&worker, &actor("counter"), 1).await.address);
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_was_started_under_an_address_its_pod_has_not_is_gone_with_the_lost_worker() {
    let kubelet = Kubelet::new();
    let (mut machine, mut worker_pod, worker) = with_a_stale_address(&kubelet).await;
    let counter = actor("counter");
    machine.boot(&worker, &counter, 1).await;
    kubelet.tell(&worker_pod, false);
    until_lost(&mut machine, &worker).await;
    worker_pod.wait(Duration::from_secs(20));
    worker_pod.start_herder();
    machine.until(|m| m.ready().len() == 1).await;
    assert!(machine.workers[&worker].holds.is_none());
    count(machine.boot(&worker, &counter, 2).await.address);
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_a_class_that_its_pool_gets_only_later_is_used_from_then_on() {
    let kubelet = Kubelet::new();
    let mut machine = start_with(tempfile::tempdir().unwrap(), &kubelet, of_another_class).await;
    let worker_pod = pod(&machine);
    kubelet.tell(&worker_pod, false);
    machine.until(|m| m.workers.values().any(|w| w.message.contains("class"))).await;
    assert!(machine.ready().is_empty());
    machine.node.set_pool(machine.pool(0)).await.unwrap();
    machine.until(|m| m.ready().len() == 1).await;
    let worker = machine.ready().remove(0);
    assert_eq!(machine.workers[&worker].class, machine.sandbox.class);
    count(machine.boot(&worker, &actor("counter"), 1).await.address);
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_outlives_the_node_agent_also_when_its_pool_is_of_another_class_by_then() {
    let kubelet = Kubelet::new();
    let (machine, _pod, worker) = with_one_worker(&kubelet).await;
    let counter = actor("counter");
    let address = machine.boot(&worker, &counter, 1).await.address;
    let (first, boot) = count(address);
    let mut machine = replaced_with(machine, &kubelet, of_another_class).await;
    machine.until(|m| m.workers.get(&worker).is_some_and(|w| w.holds.is_some())).await;
    assert_eq!(machine.workers[&worker].class, machine.sandbox.class);
    assert_eq!(count(address), (first + 1, boot));
    machine.node.capture(capture(&worker, &counter, 1, external())).await.unwrap();
    machine.release(&worker, &counter, 1).await;
    machine.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_meant_for_a_herder_does_not_reach_the_next_one_in_its_pod() {
    const BODY: &[u8] = b"it takes its time";
    let kubelet = Kubelet::new();
    let (mut machine, mut worker_pod, worker) = with_one_worker(&kubelet).await;
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut activate = machine.activate(&worker, &actor("late"), 1, Source::Boot);
    let mut asset = activate.sandbox.assets[0].clone();
    (asset.name, asset.sha256) = ("slow".into(), Digest::of(BODY));
    asset.urls = vec![format!("http://{}/slow", slow.local_addr().unwrap())];
    activate.sandbox.assets.push(asset);
    let node = machine.node.clone();
    let late = tokio::spawn(async move { node.activate(activate).await });
    let (mut stream, _) = tokio::time::timeout(LONG, slow.accept()).await.unwrap().unwrap();

    worker_pod.start_herder();
    until_lost(&mut machine, &worker).await;
    machine.until(|m| m.ready().len() == 1).await;
    assert!(machine.workers.contains_key(&worker), "the same pod");

    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", BODY.len());
    stream.write_all(&[head.as_bytes(), BODY].concat()).await.unwrap();
    assert_eq!(reason(tokio::time::timeout(LONG, late).await.unwrap().unwrap()), Reason::WorkerLost);
    count(machine.boot(&worker, &actor("next"), 1).await.address);
    machine.node.shutdown().await;
}
