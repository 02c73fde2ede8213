//! Workers of the simulated machine come and go, and tell who listens.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use ate_agent::{NodeEvent, NodeEvents, PoolSpec, WorkerPhase, WorkerReport};
use ate_api::id::{ObjectName, WorkerId};
use ate_snapshot::manifest::Platform;
use tokio::sync::mpsc;

use super::worker::{Seat, Worker};
use crate::world::World;

const BACKLOG: usize = 4096;
/// Before a lost worker is replaced.
const REPLACE: Duration = Duration::from_millis(200);

impl World {
    /// A stream that begins with all workers there are.
    pub(super) fn listen(&self) -> NodeEvents {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let mut s = self.machine.lock();
        for worker in s.workers.values() {
            let _ = sender.try_send(NodeEvent::Worker(worker.report.clone()));
        }
        let _ = sender.try_send(NodeEvent::Listed);
        s.listeners.push(sender);
        receiver
    }

    /// In order; perhaps twice, one right after the other.
    fn tell(&self, event: &NodeEvent) {
        let times = 1 + usize::from(self.weather.event_twice(&self.chance));
        self.note(|| match event {
            NodeEvent::Worker(r) => format!("event x{times}: {} is {:?}", r.id, r.phase),
            other => format!("event x{times}: {other:?}"),
        });
        let mut s = self.machine.lock();
        s.listeners.retain(|l| (0..times).all(|_| l.try_send(event.clone()).is_ok()));
    }

    /// The binaries of a configuration are here now.
    pub(super) fn verified(&self, label: String) {
        let ids: Vec<WorkerId> = {
            let mut s = self.machine.lock();
            if !s.verified.insert(label.clone()) {
                return;
            }
            let without = s.workers.values_mut().filter(|w| !w.report.configs.contains(&label));
            without
                .map(|w| {
                    w.report.configs.push(label.clone());
                    w.report.id.clone()
                })
                .collect()
        };
        ids.iter().for_each(|id| self.report_worker(id));
    }

    /// Tells of a worker as it is now.
    pub(super) fn report_worker(&self, id: &WorkerId) {
        let report = self.machine.lock().workers.get_mut(id).map(|w| {
            w.report.phase = w.phase();
            w.report.holds = w.holds();
            w.report.clone()
        });
        if let Some(report) = report {
            self.tell(&NodeEvent::Worker(report));
        }
    }

    pub(super) async fn set_pool(self: Arc<Self>, spec: PoolSpec) {
        self.machine.lock().pools.insert(spec.name.clone(), spec.clone());
        self.balance(&spec.name);
    }

    pub(super) async fn remove_pool(self: Arc<Self>, name: ObjectName) {
        let gone: Vec<WorkerId> = {
            let mut s = self.machine.lock();
            s.pools.remove(&name);
            s.workers.values().filter(|w| w.report.pool == name).map(|w| w.report.id.clone()).collect()
        };
        gone.iter().for_each(|id| self.end_worker(id, "the pool was removed"));
    }

    /// Starts workers, or lets some go: those that hold nobody first, and who holds somebody when it is released.
    fn balance(self: &Arc<Self>, pool: &ObjectName) {
        let (surplus, missing) = {
            let mut s = self.machine.lock();
            let wanted = s.pools.get(pool).map_or(0, |p| p.replicas as usize);
            let mut staying: Vec<&mut Worker> =
                s.workers.values_mut().filter(|w| w.report.pool == *pool && !w.retires).collect();
            staying.sort_by_key(|w| !w.is_idle());
            let surplus = staying.len().saturating_sub(wanted);
            let missing = wanted.saturating_sub(staying.len());
            staying.iter_mut().take(surplus).for_each(|w| w.retires = true);
            let gone: Vec<WorkerId> = staying.iter().take(surplus).map(|w| w.report.id.clone()).collect();
            (gone, missing)
        };
        surplus.iter().for_each(|id| self.retire(id));
        (0..missing).for_each(|_| self.start_worker(pool));
    }

    fn start_worker(self: &Arc<Self>, pool: &ObjectName) {
        let id = {
            let mut s = self.machine.lock();
            let Some(spec) = s.pools.get(pool).cloned() else { return };
            s.next_worker += 1;
            let n = s.next_worker;
            let report = WorkerReport {
                id: WorkerId(format!("{}-{n:04}", pool.name)),
                node: "node-1".into(),
                pod: None,
                pool: pool.clone(),
                labels: spec.labels,
                class: spec.sandbox.class.clone(),
                phase: WorkerPhase::Starting,
                address: Ipv4Addr::from(0x0a00_0000 + n).into(),
                platform: platform(),
                configs: s.verified.iter().cloned().chain([spec.sandbox.config_label()]).collect(),
                prepared: None,
                holds: None,
                leaving: false,
                message: String::new(),
            };
            let id = report.id.clone();
            s.workers.insert(id.clone(), Worker { report, seat: Seat::Idle, released: None, retires: false });
            id
        };
        self.report_worker(&id);
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(world.chance.ms(50..800)).await;
            if let Some(w) = world.machine.lock().workers.get_mut(&id) {
                w.report.phase = WorkerPhase::Ready;
            }
            world.report_worker(&id);
        });
    }

    /// Ends a worker that is to leave and holds nobody.
    pub(super) fn retire(self: &Arc<Self>, id: &WorkerId) {
        let leaves = self.machine.lock().workers.get(id).is_some_and(|w| w.retires && w.is_idle());
        if leaves {
            self.end_worker(id, "stopped");
        }
    }

    fn end_worker(&self, id: &WorkerId, message: &str) {
        if self.machine.lock().workers.remove(id).is_some() {
            self.tell(&NodeEvent::WorkerLost { id: id.clone(), message: message.to_owned() });
        }
    }

    /// A worker dies with whatever is on it, and is replaced.
    pub(crate) fn kill_worker(self: &Arc<Self>, id: &WorkerId) {
        let pool = self.machine.lock().workers.get(id).map(|w| w.report.pool.clone());
        let Some(pool) = pool else { return };
        self.end_worker(id, "it died");
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(REPLACE).await;
            world.balance(&pool);
        });
    }

    /// The actor on a worker ends by itself.
    pub(crate) fn end_actor(&self, id: &WorkerId) {
        let event = {
            let mut s = self.machine.lock();
            let Some(worker) = s.workers.get_mut(id) else { return };
            let life = match &worker.seat {
                Seat::Running(life) | Seat::Frozen(life, ..) => life.clone(),
                _ => return,
            };
            let e = ate_api::Error::new(ate_api::Reason::ActorExited, "the actor ended");
            worker.seat = Seat::Failed(life.clone(), e);
            NodeEvent::ActorEnded {
                worker: id.clone(),
                actor: life.uid,
                activation: life.activation,
                message: "exit status 1".to_owned(),
            }
        };
        self.tell(&event);
    }

    /// Whoever listens was too slow and is dropped; what is told until they listen again is not heard.
    pub(crate) fn break_streams(&self) {
        self.note(|| "event streams break".to_owned());
        self.machine.lock().listeners.clear();
    }

    /// The node's copy of a snapshot is gone.
    pub(crate) fn lose_local_copy(&self) {
        let mut s = self.machine.lock();
        let all: Vec<_> = s.storage.local.keys().cloned().collect();
        if let Some(manifest) = self.chance.one_of(&all) {
            self.note(|| format!("the local copy of {} is lost", manifest.short()));
            s.storage.local.remove(manifest);
            if s.storage.find(manifest).is_none() {
                s.storage.lost.insert(manifest.clone());
            }
        }
    }

    /// Workers by pool, as they should be.
    pub(crate) fn wanted_workers(&self) -> BTreeMap<ObjectName, usize> {
        let s = self.machine.lock();
        s.pools.values().map(|p| (p.name.clone(), p.replicas as usize)).collect()
    }
}

fn platform() -> Platform {
    Platform {
        os: "linux".into(),
        arch: "amd64".into(),
        cpu_features: vec!["avx".into(), "sse".into()],
        kernel_release: "6.1".into(),
    }
}
