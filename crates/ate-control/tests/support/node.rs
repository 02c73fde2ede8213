//! The scripted node agent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use ate_agent::*;
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, ObjectName, Uid, WorkerId},
    resource::template::Scope,
};
use ate_sandbox::{Revocations, SandboxRef, Verification};
use ate_snapshot::manifest::Platform;
use tokio::sync::mpsc;

/// What a call does when the script says something about it.
#[derive(Debug, Clone)]
pub enum Fault {
    Fail(Reason),
    /// Never answers.
    Hang,
    /// Answers after this long.
    Slow(Duration),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Seated {
    pub actor: Uid,
    pub activation: Activation,
}

#[derive(Default)]
pub struct State {
    /// Faults by call name, used up from the front.
    pub faults: HashMap<&'static str, Vec<Fault>>,
    /// Every call, in order.
    pub calls: Vec<String>,
    pub seats: BTreeMap<WorkerId, Option<Seated>>,
    pub reports: BTreeMap<WorkerId, WorkerReport>,
    pub snapshots: HashSet<Digest>,
    pub deleted: Vec<Digest>,
    /// The herder writes differences when it may.
    pub differences: bool,
    /// What it rests its snapshots on without being asked to.
    pub unasked: Option<Digest>,
    /// Snapshots that hold only differences, and from what.
    pub bases: HashMap<Digest, Digest>,
    /// Durable directories are inside the memory that is saved.
    pub files_in_memory: bool,
    /// Workers of this pool lack a CPU feature of the others.
    pub weak_pool: Option<String>,
    /// No snapshot comes up again under this configuration (`name@revision`).
    pub refuse_restore_under: Option<String>,
    /// This actor does not come up from its image.
    pub refuse_boot_of: Option<String>,
    /// Bytes of assets, and whether the node has them before it fetches anything.
    pub bytes: HashMap<Digest, (Vec<u8>, bool)>,
    /// The set of the last collection.
    pub live: LiveSet,
    pub capabilities: Vec<String>,
    /// As the real node keeps it, over restarts.
    pub revoked: Revocations,
    pub assets: Vec<AssetReport>,
    pub highest: HashMap<Uid, Activation>,
    /// Actors that were on two workers at once.
    pub doubles: usize,
    /// Configurations whose binaries are here.
    verified: BTreeSet<String>,
    /// Other nodes that see the same object storage.
    others: Vec<Script>,
    /// It cannot be reached.
    away: bool,
    /// It is back, and has not found its workers yet.
    finding: bool,
    subscribers: Vec<mpsc::Sender<NodeEvent>>,
    next_worker: usize,
}

#[derive(Clone)]
pub struct Script(pub Arc<Mutex<State>>, &'static str);

pub const CAPABILITIES: [&str; 3] = ["snapshot.full", "snapshot.data", "snapshot.multi-container"];

impl Script {
    pub fn new() -> Self {
        let state = State { capabilities: CAPABILITIES.map(str::to_owned).to_vec(), ..Default::default() };
        Script(Arc::new(Mutex::new(state)), "node-1")
    }

    /// One of several nodes.
    pub fn named(name: &'static str) -> Self {
        Script(Script::new().0, name)
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    /// What another one has stored, and whom it has seen; not its workers.
    pub fn take_storage(&self, other: &Script) {
        let stored = other.with(|s| (s.snapshots.clone(), s.highest.clone(), s.bases.clone()));
        self.with(|s| {
            s.snapshots.extend(stored.0);
            s.highest.extend(stored.1);
            s.bases.extend(stored.2);
        });
    }

    pub fn fault(&self, call: &'static str, fault: Fault) {
        self.with(|s| s.faults.entry(call).or_default().push(fault));
    }

    pub fn count(&self, call: &str) -> usize {
        self.with(|s| s.calls.iter().filter(|c| c.starts_with(call)).count())
    }

    pub fn send(&self, event: NodeEvent) {
        let subscribers = self.with(|s| s.subscribers.clone());
        for s in subscribers {
            let _ = s.try_send(event.clone());
        }
    }

    /// Tells who is on a worker.
    fn tell(&self, worker: &WorkerId, stage: HeldStage) {
        let report = self.with(|s| {
            let seated = s.seats.get(worker).cloned().flatten();
            let report = s.reports.get_mut(worker)?;
            report.phase = if seated.is_some() { WorkerPhase::Busy } else { WorkerPhase::Ready };
            report.holds = seated.map(|x| Held { actor: x.actor, activation: x.activation, stage });
            Some(report.clone())
        });
        report.into_iter().for_each(|report| self.send(NodeEvent::Worker(report)));
    }

    /// A worker is about to go.
    pub fn leave(&self, worker: &WorkerId) {
        let report = self.with(|s| {
            let report = s.reports.get_mut(worker).unwrap();
            report.leaving = true;
            report.clone()
        });
        self.send(NodeEvent::Worker(report));
    }

    /// The worker vanishes with whatever is on it.
    pub fn lose(&self, worker: &WorkerId) {
        self.with(|s| {
            s.seats.remove(worker);
            s.reports.remove(worker);
        });
        self.send(NodeEvent::WorkerLost { id: worker.clone(), message: "killed by the test".into() });
    }

    /// The worker vanishes with whatever is on it, and is back under its name at once.
    pub fn restart(&self, worker: &WorkerId) {
        let mut report = self.with(|s| s.reports[worker].clone());
        self.lose(worker);
        (report.phase, report.holds) = (WorkerPhase::Ready, None);
        self.with(|s| {
            s.seats.insert(worker.clone(), None);
            s.reports.insert(worker.clone(), report.clone());
        });
        self.send(NodeEvent::Worker(report));
    }

    /// The worker vanishes while nobody listens to the node.
    pub fn lose_unheard(&self, worker: &WorkerId) {
        self.with(|s| {
            s.seats.remove(worker);
            s.reports.remove(worker);
            s.subscribers.clear();
        });
    }

    pub fn seated(&self) -> Vec<(WorkerId, Seated)> {
        self.with(|s| s.seats.iter().filter_map(|(w, x)| Some((w.clone(), x.clone()?))).collect())
    }

    /// Nodes of these names with one object storage.
    pub fn cluster(names: &[&'static str]) -> Vec<Script> {
        let nodes: Vec<Script> = names.iter().map(|name| Script::named(name)).collect();
        for (n, node) in nodes.iter().enumerate() {
            let others = nodes.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, other)| other.clone());
            node.with(|s| s.others = others.collect());
        }
        nodes
    }

    /// From now on nobody reaches the node, and it goes on by itself.
    pub fn go_away(&self) {
        self.with(|s| {
            s.away = true;
            s.subscribers.clear();
        });
    }

    pub fn come_back(&self) {
        self.with(|s| (s.away, s.finding) = (false, true));
    }

    async fn call(&self, name: &'static str, detail: String) -> Result<(), Error> {
        if self.with(|s| s.away) {
            return Err(Error::new(Reason::Unavailable, "the node is away"));
        }
        let fault = self.with(|s| {
            s.calls.push(format!("{name} {detail}"));
            let faults = s.faults.get_mut(name)?;
            (!faults.is_empty()).then(|| faults.remove(0))
        });
        match fault {
            None => Ok(()),
            Some(Fault::Fail(reason)) => Err(Error::new(reason, format!("{name} fails as the script says"))),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
        }
    }

    fn fence(s: &mut State, worker: &WorkerId, actor: &Uid, activation: Activation) -> Result<(), Error> {
        let fenced = || Error::new(Reason::Fenced, "an older activation");
        let highest = s.highest.entry(actor.clone()).or_default();
        if activation < *highest {
            return Err(fenced());
        }
        *highest = activation;
        match s.seats.get(worker).filter(|_| !s.finding) {
            None => Err(Error::new(Reason::WorkerLost, "no such worker")),
            Some(Some(seated)) if seated.actor != *actor => Err(fenced()),
            _ => Ok(()),
        }
    }
}

fn platform(weak: bool) -> Platform {
    let features: &[&str] = if weak { &["sse"] } else { &["avx", "sse"] };
    Platform {
        os: "linux".into(),
        arch: "amd64".into(),
        cpu_features: features.iter().map(|f| (*f).to_owned()).collect(),
        kernel_release: "6.1".into(),
    }
}

#[async_trait]
impl NodeAgent for Script {
    fn name(&self) -> &str {
        self.1
    }

    fn events(&self) -> NodeEvents {
        let (sender, receiver) = mpsc::channel(4096);
        self.with(|s| {
            if s.away {
                return;
            }
            s.finding = false;
            for report in s.reports.values() {
                let _ = sender.try_send(NodeEvent::Worker(report.clone()));
            }
            let _ = sender.try_send(NodeEvent::Listed);
            s.subscribers.push(sender);
        });
        receiver
    }

    async fn set_pool(&self, pool: PoolSpec) -> Result<(), Error> {
        self.call("set_pool", format!("{} {}", pool.name, pool.replicas)).await?;
        let (new, gone) = self.with(|s| {
            let have: Vec<WorkerId> =
                s.reports.values().filter(|r| r.pool == pool.name).map(|r| r.id.clone()).collect();
            let mut idle: Vec<WorkerId> =
                have.iter().filter(|w| s.seats.get(w).is_some_and(Option::is_none)).cloned().collect();
            let surplus = have.len().saturating_sub(pool.replicas as usize);
            let gone: Vec<WorkerId> = idle.drain(..surplus.min(idle.len())).collect();
            for w in &gone {
                s.reports.remove(w);
                s.seats.remove(w);
            }
            let mut new = Vec::new();
            for _ in have.len()..pool.replicas as usize {
                s.next_worker += 1;
                let n = s.next_worker;
                let report = WorkerReport {
                    id: WorkerId(format!("{}-{n:04}.{}", pool.name.name, self.1)),
                    node: self.1.to_owned(),
                    pod: None,
                    pool: pool.name.clone(),
                    labels: pool.labels.clone(),
                    class: pool.sandbox.class.clone(),
                    phase: WorkerPhase::Ready,
                    address: IpAddr::V4(Ipv4Addr::new(10, 0, (n / 250) as u8, (n % 250) as u8 + 1)),
                    platform: platform(s.weak_pool.as_ref() == Some(&pool.name.name)),
                    configs: s.verified.iter().cloned().chain([pool.sandbox.config_label()]).collect(),
                    prepared: None,
                    holds: None,
                    leaving: false,
                    message: String::new(),
                };
                s.reports.insert(report.id.clone(), report.clone());
                s.seats.insert(report.id.clone(), None);
                new.push(report);
            }
            (new, gone)
        });
        for report in new {
            self.send(NodeEvent::Worker(report));
        }
        for id in gone {
            self.send(NodeEvent::WorkerLost { id, message: "scaled down".into() });
        }
        Ok(())
    }

    async fn remove_pool(&self, pool: &ObjectName) -> Result<(), Error> {
        self.call("remove_pool", pool.to_string()).await?;
        let gone: Vec<WorkerId> =
            self.with(|s| s.reports.values().filter(|r| r.pool == *pool).map(|r| r.id.clone()).collect());
        gone.iter().for_each(|w| self.lose(w));
        Ok(())
    }

    async fn check_signatures(&self, sandbox: &SandboxRef, v: &Verification, fetch: bool) -> Result<(), Error> {
        self.call("check_signatures", format!("{} fetch={fetch}", sandbox.config_label())).await?;
        for asset in &sandbox.assets {
            let here = self.with(|s| s.bytes.get(&asset.sha256).cloned());
            match here {
                Some((bytes, local)) if local || fetch => v.verify(&asset.name, bytes.as_slice())?,
                Some(_) => {}
                None if fetch => return Err(Error::new(Reason::AssetUnavailable, "not in this script")),
                None => {}
            }
        }
        Ok(())
    }

    async fn probe(&self, sandbox: &SandboxRef) -> Result<Probed, Error> {
        self.call("probe", sandbox.config_label()).await?;
        let label = sandbox.config_label();
        let (capabilities, changed) = self.with(|s| {
            s.verified.insert(label.clone());
            let without = s.reports.values_mut().filter(|r| !r.configs.contains(&label));
            let changed: Vec<WorkerReport> = without
                .map(|r| {
                    r.configs.push(label.clone());
                    r.clone()
                })
                .collect();
            (s.capabilities.clone(), changed)
        });
        changed.into_iter().for_each(|report| self.send(NodeEvent::Worker(report)));
        Ok(Probed { capabilities, versions: BTreeMap::from([("engine".into(), "1.0".into())]) })
    }

    async fn import_asset(&self, _: AssetUpload) -> Result<(Digest, u64, String, bool), Error> {
        Err(Error::new(Reason::Unimplemented, "not in this script"))
    }

    async fn assets(&self) -> Result<Vec<AssetReport>, Error> {
        Ok(self.with(|s| s.assets.clone()))
    }

    async fn delete_asset(&self, asset: &Digest) -> Result<(), Error> {
        self.call("delete_asset", asset.to_string()).await?;
        self.with(|s| s.assets.retain(|a| a.sha256 != *asset));
        Ok(())
    }

    async fn set_revocations(&self, revocations: Revocations) -> Result<(), Error> {
        self.call("set_revocations", revocations.version.to_string()).await?;
        self.with(|s| {
            if revocations.version < s.revoked.version {
                return Err(Error::new(Reason::Fenced, "an older list"));
            }
            s.revoked = revocations;
            Ok(())
        })
    }

    async fn resolve_image(&self, reference: &str) -> Result<ResolvedImage, Error> {
        self.call("resolve_image", reference.to_owned()).await?;
        Ok(ResolvedImage { digest: Digest::of(reference.as_bytes()), exposed_ports: vec![8080] })
    }

    async fn prepare(&self, prepare: Prepare) -> Result<(), Error> {
        let (worker, template) = (&prepare.worker, &prepare.template.name.name);
        let snapshot = prepare.snapshot.as_ref().map_or("nothing", |s| s.manifest.as_str());
        let how = if prepare.standby { "standby" } else { "plain" };
        self.call("prepare", format!("{worker} {template} {how} {snapshot}")).await
    }

    async fn activate(&self, a: Activate) -> Result<Activated, Error> {
        let from = match &a.source {
            Source::Boot => "boot".to_owned(),
            Source::Snapshot { snapshot, .. } => snapshot.manifest.to_string(),
            Source::Files { snapshot } => format!("files:{}", snapshot.manifest),
        };
        let detail = format!("{} {} {} {from} {}", a.worker, a.actor.name, a.activation, a.sandbox.config_label());
        self.with(|s| {
            Script::fence(s, &a.worker, &a.actor.uid, a.activation)?;
            s.revoked.check(&a.sandbox)?;
            if let Source::Files { snapshot } = &a.source
                && !s.snapshots.contains(&snapshot.manifest)
            {
                return Err(Error::new(Reason::SnapshotNotFound, "the snapshot is not there"));
            }
            if let Source::Files { snapshot } = &a.source
                && s.files_in_memory
                && snapshot.scope == Scope::Full
            {
                return Err(Error::new(Reason::MissingCapability, "the files are inside the memory"));
            }
            if let Source::Snapshot { snapshot, base } = &a.source {
                if !s.snapshots.contains(&snapshot.manifest) {
                    return Err(Error::new(Reason::SnapshotNotFound, "the snapshot is not there"));
                }
                let base = base.as_ref().map(|b| &b.manifest);
                if s.bases.get(&snapshot.manifest) != base || base.is_some_and(|b| !s.snapshots.contains(b)) {
                    return Err(Error::new(Reason::SnapshotCorrupt, "the base is another or not there"));
                }
            }
            let elsewhere =
                s.seats.iter().any(|(w, x)| *w != a.worker && x.as_ref().is_some_and(|x| x.actor == a.actor.uid));
            s.doubles += usize::from(elsewhere);
            s.seats.insert(a.worker.clone(), Some(Seated { actor: a.actor.uid.clone(), activation: a.activation }));
            Ok(())
        })?;
        self.tell(&a.worker, HeldStage::Running);
        self.call("activate", detail).await?;
        let restore = matches!(a.source, Source::Snapshot { .. });
        let refused = self.with(|s| match restore {
            true => s.refuse_restore_under.as_ref() == Some(&a.sandbox.config_label()),
            false => s.refuse_boot_of.as_ref() == Some(&a.actor.name.to_string()),
        });
        if refused {
            return Err(Error::new(Reason::SandboxFailed, "it does not come up, as the script says"));
        }
        let address = self.with(|s| s.reports.get(&a.worker).map(|r| r.address));
        let address = address.ok_or_else(|| Error::new(Reason::WorkerLost, "the worker went away"))?;
        Ok(Activated { address, prepared: false, steps_us: BTreeMap::new() })
    }

    async fn capture(&self, c: Capture) -> Result<Captured, Error> {
        self.with(|s| Script::fence(s, &c.worker, &c.actor.uid, c.activation))?;
        self.call(
            "capture",
            format!("{} {} {} {:?} {:?}", c.actor.name, c.activation, c.generation, c.scope, c.target),
        )
        .await?;
        let unasked = self.with(|s| s.unasked.clone());
        let base = c.base.map(|b| b.manifest).filter(|_| self.with(|s| s.differences)).or(unasked);
        let manifest_json = serde_json::to_vec(&serde_json::json!({
            "generation": c.generation,
            "activation": c.activation,
            "actor": {"uid": c.actor.uid},
            "base": base.as_ref().map(|manifest| serde_json::json!({ "manifest": manifest })),
        }))
        .unwrap();
        let manifest = Digest::of(&manifest_json);
        self.with(|s| {
            s.snapshots.insert(manifest.clone());
            if let Some(base) = &base {
                s.bases.insert(manifest.clone(), base.clone());
            }
        });
        if matches!(c.target, CaptureTarget::External { .. }) {
            for other in self.with(|s| s.others.clone()) {
                other.with(|s| {
                    s.snapshots.insert(manifest.clone());
                    s.bases.extend(base.clone().map(|base| (manifest.clone(), base)));
                });
            }
        }
        let location = match c.target {
            CaptureTarget::Local => SnapshotLocation::Local { node: self.name().to_owned() },
            CaptureTarget::External { location } => SnapshotLocation::External {
                prefix: format!("{location}/actors/{}/{:08}-{}", c.actor.uid, c.generation, c.activation),
            },
        };
        self.tell(&c.worker, HeldStage::Captured { generation: c.generation });
        Ok(Captured { manifest, manifest_json, size: 1000, location, needs_base: base.is_some() })
    }

    async fn thaw(&self, worker: &WorkerId, _: &Uid, activation: Activation, _: u64) -> Result<(), Error> {
        self.call("thaw", format!("{worker} {activation}")).await?;
        self.tell(worker, HeldStage::Running);
        Ok(())
    }

    async fn release(&self, worker: &WorkerId, actor: &Uid, activation: Activation) -> Result<(), Error> {
        self.call("release", format!("{worker} {activation}")).await?;
        self.with(|s| {
            if let Some(seat) = s.seats.get_mut(worker)
                && seat.as_ref().is_some_and(|x| x.actor == *actor)
            {
                *seat = None;
            }
        });
        self.tell(worker, HeldStage::Running);
        Ok(())
    }

    async fn manifest(&self, _: &SnapshotRef) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }

    async fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<(), Error> {
        self.call("delete_snapshot", snapshot.manifest.to_string()).await?;
        self.with(|s| {
            s.snapshots.remove(&snapshot.manifest);
            s.deleted.push(snapshot.manifest.clone());
        });
        Ok(())
    }

    async fn collect(&self, live: LiveSet) -> Result<(), Error> {
        self.with(|s| s.live = live);
        Ok(())
    }

    async fn logs(&self, _: &Uid, _: &str, _: u32, _: bool) -> Result<LogTail, Error> {
        Ok(mpsc::channel(1).1)
    }
}
