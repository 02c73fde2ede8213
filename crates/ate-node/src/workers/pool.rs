//! One pool: keeps the wanted number of workers alive, replaces lost ones with a growing pause. Where workers are pods
//! somebody else keeps their number, and this keeps up with which there are.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use ate_agent::{PoolSpec, WorkerPhase, WorkerReport};
use ate_api::{
    Error, Reason,
    id::{ObjectName, WorkerId},
};
use ate_failpoint::{period, step};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Context, Directory, PodPlaces,
    attached::{Attached, Place},
    client::of_class,
    herder::Herder,
    kept::Kept,
    local::Local,
    seat::Command,
    worker::{End, Worker},
};

/// A pod is seen before the herder in it listens: for so long that is nothing to warn of.
const HERDER_UP: Duration = Duration::from_secs(10);
const BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A worker that lived this long did not fail because of how it was started.
const SETTLED: Duration = Duration::from_secs(60);
/// Commands that wait for a worker to look at them; it never takes long to look.
const COMMANDS: usize = 32;
/// Of a pool's name, in the names of its workers.
const NAME_LEN: usize = 24;

pub(super) struct Pool {
    spec: watch::Sender<PoolSpec>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    verifying: JoinHandle<()>,
}

impl Pool {
    pub(super) fn start(spec: PoolSpec, context: Context, directory: Directory) -> Self {
        let (tx, rx) = watch::channel(spec);
        let stop = CancellationToken::new();
        let verifying = tokio::spawn(keep_verified(context.clone(), rx.clone()));
        let keeper = Keeper {
            context,
            directory,
            spec: rx,
            stop: stop.clone(),
            tasks: JoinSet::new(),
            members: HashMap::new(),
            losses: 0,
        };
        Pool { spec: tx, stop, task: tokio::spawn(keeper.run()), verifying }
    }

    pub(super) fn set(&self, spec: PoolSpec) {
        self.spec.send_if_modified(|old| {
            let changed = *old != spec;
            *old = spec;
            changed
        });
    }

    pub(super) fn sandbox(&self) -> ate_sandbox::SandboxRef {
        self.spec.borrow().sandbox.clone()
    }

    /// Ends all workers; each has its own bound.
    pub(super) async fn end(self) {
        self.verifying.abort();
        self.stop.cancel();
        let _ = self.task.await;
    }
}

struct Member {
    class: String,
    /// Leaves when it is idle; cancelled with the pool's `stop`.
    retire: CancellationToken,
    /// Ends whatever it holds: its pod is gone, or the pool is.
    stop: CancellationToken,
    /// Its pod is about to go.
    leaving: CancellationToken,
    /// Of its pod, when it was looked for.
    address: Option<Ipv4Addr>,
    /// Its pod has another address now.
    moved: CancellationToken,
}

struct Keeper {
    context: Context,
    directory: Directory,
    spec: watch::Receiver<PoolSpec>,
    stop: CancellationToken,
    tasks: JoinSet<(WorkerId, Ended)>,
    members: HashMap<WorkerId, Member>,
    /// In a row, without one that settled.
    losses: u32,
}

struct Ended {
    end: End,
    settled: bool,
}

impl Keeper {
    async fn run(mut self) {
        let mut may_start = Instant::now();
        let mut pods = self.context.pods.clone();
        loop {
            self.spec.mark_unchanged();
            match &mut pods {
                None => self.balance(Instant::now() >= may_start),
                Some(places) => {
                    places.pods.mark_unchanged();
                    let ours = places.of(&self.spec.borrow().name);
                    self.keep_up(&ours, Instant::now() >= may_start);
                }
            }
            let pause = may_start.saturating_duration_since(Instant::now());
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = self.spec.changed() => if changed.is_err() { break },
                () = changed(&mut pods) => (),
                Some(ended) = self.tasks.join_next() => {
                    if let Some(pause) = self.gone(ended) {
                        may_start = Instant::now() + pause;
                    }
                }
                () = sleep(pause), if !pause.is_zero() => (),
            }
        }
        while let Some(ended) = self.tasks.join_next().await {
            self.gone(ended);
        }
    }

    /// Starts and retires until the number is right.
    fn balance(&mut self, may_start: bool) {
        let spec = self.spec.borrow().clone();
        for member in self.members.values().filter(|m| m.class != spec.sandbox.class) {
            member.retire.cancel();
        }
        let mut staying: Vec<WorkerId> =
            self.members.iter().filter(|(_, m)| !m.retire.is_cancelled()).map(|(id, _)| id.clone()).collect();
        let wanted = spec.replicas as usize;
        // Those that hold nobody leave first.
        staying.sort_by_key(|id| match self.context.hub.worker(id).map(|r| r.phase) {
            None | Some(WorkerPhase::Starting) => 0,
            Some(WorkerPhase::Ready) => 1,
            Some(WorkerPhase::Busy) => 2,
        });
        for id in staying.iter().take(staying.len().saturating_sub(wanted)) {
            self.members[id].retire.cancel();
        }
        if may_start {
            for _ in staying.len()..wanted {
                self.add(&spec, new_id(&spec.name), None);
            }
        }
    }

    /// Looks for the herders of pods that are new, and lets go of those that are gone.
    fn keep_up(&mut self, pods: &BTreeMap<WorkerId, (Place, bool)>, may_start: bool) {
        let spec = self.spec.borrow().clone();
        for (id, (place, _)) in pods {
            if may_start && !self.members.contains_key(id) {
                self.add(&spec, id.clone(), Some(place.clone()));
            }
        }
        for (id, member) in &self.members {
            match pods.get(id) {
                None => member.stop.cancel(),
                // A pod keeps its uid when its machine restarts, and gets another address. Once this one has ended it is
                // looked for anew.
                Some((place, _)) if member.address != Some(place.address) => {
                    member.moved.cancel();
                    member.retire.cancel();
                }
                Some((_, true)) => member.leaving.cancel(),
                Some((_, false)) => {}
            }
        }
    }

    fn add(&mut self, spec: &PoolSpec, id: WorkerId, place: Option<Place>) {
        let stop = self.stop.child_token();
        let (retire, leaving, moved) = (stop.child_token(), CancellationToken::new(), CancellationToken::new());
        let address = place.as_ref().map(|place| place.address);
        let (tx, commands) = mpsc::channel(COMMANDS);
        self.directory.lock().insert(id.clone(), tx);
        let life = Life {
            id: id.clone(),
            context: self.context.clone(),
            spec: self.spec.clone(),
            class: spec.sandbox.class.clone(),
            commands,
            stop: stop.clone(),
            retire: retire.clone(),
            leaving: leaving.clone(),
            moved: moved.clone(),
            place,
        };
        let class = spec.sandbox.class.clone();
        self.members.insert(id.clone(), Member { class, retire, stop, leaving, address, moved });
        self.tasks.spawn(async move {
            let ended = life.live().await;
            (id, ended)
        });
    }

    /// Forgets a worker. The pause before the next may start, if it was lost.
    fn gone(&mut self, ended: Result<(WorkerId, Ended), tokio::task::JoinError>) -> Option<Duration> {
        let (id, Ended { end, settled }) = match ended {
            Ok(ended) => ended,
            Err(e) => {
                // The panic took the worker's id with it; the directory's entry is closed and answers "lost".
                tracing::error!("a worker's task failed: {e}");
                return Some(MAX_BACKOFF);
            }
        };
        self.members.remove(&id);
        self.directory.lock().remove(&id);
        let message = match end {
            End::Stopped => {
                self.context.hub.lost(&id, "stopped".to_owned());
                return None;
            }
            End::Lost(message) => message,
        };
        tracing::warn!(worker = %id, "worker lost: {message}");
        self.context.hub.lost(&id, message);
        self.losses = if settled { 1 } else { self.losses.saturating_add(1) };
        Some(period(MAX_BACKOFF.min(BACKOFF * 2u32.saturating_pow(self.losses - 1))))
    }
}

/// There are other pods.
async fn changed(pods: &mut Option<PodPlaces>) {
    if let Some(places) = pods
        && places.pods.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Unique among all workers that ever were: 48 random bits behind the pool's name.
fn new_id(pool: &ObjectName) -> WorkerId {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let name: String = pool.name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(NAME_LEN).collect();
    WorkerId(format!("{name}-{}", &random[..12]))
}

/// One worker from its first wish to its end.
struct Life {
    id: WorkerId,
    context: Context,
    spec: watch::Receiver<PoolSpec>,
    /// A pod's: its pool's, until the herder in it says.
    class: String,
    commands: mpsc::Receiver<Command>,
    stop: CancellationToken,
    retire: CancellationToken,
    leaving: CancellationToken,
    moved: CancellationToken,
    /// Its pod; none: the node starts it.
    place: Option<Place>,
}

impl Life {
    async fn live(mut self) -> Ended {
        let Some((herder, kept)) = self.start().await else { return Ended { end: End::Stopped, settled: false } };
        let since = Instant::now();
        let worker = Worker::new(self.id, self.context, herder, kept, self.spec, self.leaving);
        let end = worker.run(&mut self.commands, &self.stop, &self.retire, &self.moved).await;
        Ended { end, settled: since.elapsed() >= SETTLED }
    }

    /// Assets first, then the herder; tries again until both are there or nobody wants the worker any more.
    async fn start(&mut self) -> Option<(Herder, Kept)> {
        let (since, mut pause) = (Instant::now(), BACKOFF);
        let mut revoked = self.context.verified.revoked().changes();
        loop {
            let sandbox = self.spec.borrow_and_update().sandbox.clone();
            if self.place.is_some() {
                self.class.clone_from(&sandbox.class);
            }
            let mut spec = self.spec.clone();
            let names: Vec<&str> = sandbox.assets.iter().map(|a| a.name.as_str()).collect();
            self.report(&format!("waiting for {} of {}", names.join(", "), sandbox.config_label()));
            let started = async {
                let found = match &self.place {
                    None => None,
                    Some(place) => Some(step!("worker.attach", Attached::find(place.clone()), held)?),
                };
                // Who runs is not kept waiting for what others are to run under.
                if let Some((attached, kept @ Kept { seated: Some(_), .. })) = found {
                    return Ok(Some((Herder::Attached(Box::new(attached)), kept)));
                }
                // Its pod may know of a change of the pool before this node does: then the next configuration cures it.
                if let Some((attached, _)) = &found {
                    of_class(&attached.info, &sandbox.class)?;
                }
                tokio::select! {
                    verified = self.context.verified.ensure(&sandbox) => drop(verified?),
                    () = self.retire.cancelled() => return Ok(None),
                    Ok(()) = spec.changed() => {
                        return Err(Error::new(Reason::Unavailable, "its configuration was replaced meanwhile"));
                    }
                }
                if let Some((attached, kept)) = found {
                    return Ok(Some((Herder::Attached(Box::new(attached)), kept)));
                }
                self.report("starting the herder");
                let Context { herders, links, .. } = &self.context;
                let start = Local::start(herders, links, &self.id, &self.class, &self.retire);
                step!("worker.herder", start, held).map(|local| Some((Herder::Local(Box::new(local)), Kept::default())))
            };
            match started.await {
                Ok(herder) => return herder,
                Err(_) if self.retire.is_cancelled() => return None,
                Err(e) => {
                    if self.place.is_some() && since.elapsed() < HERDER_UP {
                        tracing::debug!(worker = %self.id, "worker cannot start yet: {e}");
                    } else {
                        tracing::warn!(worker = %self.id, "worker cannot start, trying again: {e}");
                    }
                    self.report(&e.to_string());
                }
            }
            tokio::select! {
                () = sleep(pause) => pause = MAX_BACKOFF.min(pause * 2),
                () = self.retire.cancelled() => return None,
                // Another configuration may do better, at once, and so may binaries that are not revoked any more.
                Ok(()) = self.spec.changed() => pause = BACKOFF,
                () = revoked.next() => pause = BACKOFF,
            }
        }
    }

    fn report(&self, message: &str) {
        let spec = self.spec.borrow();
        self.context.hub.report(WorkerReport {
            id: self.id.clone(),
            node: self.context.node.clone(),
            pod: self.place.as_ref().map(|place| place.pod.clone()),
            pool: spec.name.clone(),
            labels: spec.labels.clone(),
            class: self.class.clone(),
            phase: WorkerPhase::Starting,
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            platform: (*self.context.platform).clone(),
            configs: Vec::new(),
            prepared: None,
            holds: None,
            leaving: self.leaving.is_cancelled(),
            message: message.to_owned(),
        });
    }
}

/// Keeps the pool's binaries on the node, also when its configuration changes while workers go on under the old one.
async fn keep_verified(context: Context, mut spec: watch::Receiver<PoolSpec>) {
    let mut pause = BACKOFF;
    loop {
        let sandbox = spec.borrow_and_update().sandbox.clone();
        let verified = tokio::select! {
            verified = context.verified.ensure(&sandbox) => verified,
            // Perhaps it is the one that does not come.
            Ok(()) = spec.changed() => continue,
        };
        match verified {
            Ok(_) => {
                pause = BACKOFF;
                if spec.changed().await.is_err() {
                    return;
                }
            }
            Err(e) => {
                tracing::warn!(config = sandbox.config_label(), "assets are missing, trying again: {e}");
                sleep(pause).await;
                pause = MAX_BACKOFF.min(pause * 2);
            }
        }
    }
}
