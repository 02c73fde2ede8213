//! The state machine of a worker: one operation at a time, in the order they arrive.
//!
//! ```text
//! Idle ⇄ Prepared → Starting → Running ⇄ Frozen      Reset: any → Idle, also in the middle of an operation
//!   └──────────────────^          └→ Ended ←┘
//! ```
//!
//! Fencing: per actor the highest activation seen is kept; a lower one is refused. An operation runs to its end even
//! when its caller goes away; only Reset cuts it short.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    time::Duration,
};

use ate_api::{Error, Reason};
use ate_failpoint::step;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    driver::{
        self as pb, CheckpointRequest, Event, Outcome, PrepareRequest, Sandbox, Scope, Workload, stats_response::State,
    },
    sandbox::{Checkpoint, Checkpointed, Driver, Ended, Preparation, Probed, Snapshot, Start},
    steps::Steps,
};

/// A start that names no limit.
const DEFAULT_START: Duration = Duration::from_secs(60);
const MAX_START: Duration = Duration::from_secs(15 * 60);
/// How much later than its own deadline a driver is cut short.
const CUT: Duration = Duration::from_secs(2);
/// Writing the memory of a large actor to a slow disk. Drivers have limits of their own, below this: one that is cut
/// short here leaves its actor frozen.
const CHECKPOINT: Duration = Duration::from_secs(20 * 60);
const PREPARE: Duration = Duration::from_secs(60);
const THAW: Duration = Duration::from_secs(30);
const RESET: Duration = Duration::from_secs(60);
/// Actors whose highest activation is remembered; the oldest are forgotten first. 100 bytes each.
const FENCED_ACTORS: usize = 65_536;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Error>>;

pub(crate) enum Command {
    Probe(Sandbox, Reply<Probed>),
    Prepare(PrepareRequest, Reply<()>),
    Start(Box<Start>, Reply<Outcome>),
    Checkpoint(CheckpointRequest, Reply<Checkpointed>),
    Thaw(u64, Reply<()>),
}

/// What others may see at any time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) state: State,
    pub(crate) activation: u64,
    pub(crate) actor_uid: String,
    pub(crate) prepared_key: String,
    pub(crate) sandbox_pid: Option<u32>,
}

/// What makes a preparation fit.
#[derive(PartialEq, Eq, Clone)]
struct Prepared {
    config_digest: String,
    assets: Vec<(String, String)>,
    key: String,
}

/// What was prepared, and how far.
#[derive(PartialEq, Eq, Clone)]
struct Ahead {
    fits: Prepared,
    snapshot: Option<Snapshot>,
    standby: bool,
}

pub(crate) struct Worker<D> {
    driver: D,
    status: watch::Sender<Status>,
    events: broadcast::Sender<Event>,
    seen: Fence,
    prepared: Option<Ahead>,
    started: Option<Outcome>,
    frozen: Option<(PathBuf, Checkpointed)>,
}

impl<D: Driver> Worker<D> {
    pub(crate) fn new(driver: D, status: watch::Sender<Status>, events: broadcast::Sender<Event>) -> Self {
        let worker =
            Worker { driver, status, events, seen: Fence::default(), prepared: None, started: None, frozen: None };
        worker.become_state(State::Idle);
        worker
    }

    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut resets: mpsc::Receiver<Reply<()>>) {
        self.driver.tidy().await;
        loop {
            let active = matches!(self.state(), State::Prepared | State::Running | State::Frozen);
            let command = tokio::select! {
                biased;
                reply = resets.recv() => match reply {
                    Some(reply) => { self.reset(reply).await; continue }
                    None => return,
                },
                ended = self.driver.ended(), if active => { self.ended(ended).await; continue }
                command = commands.recv() => match command {
                    Some(command) => command,
                    None => return,
                },
            };
            let interrupted = tokio::select! {
                biased;
                reply = resets.recv() => reply,
                () = self.execute(command) => None,
            };
            // The half-done operation is dropped here, and with it its reply: its caller learns of the reset.
            if let Some(reply) = interrupted {
                self.reset(reply).await;
            }
        }
    }

    async fn execute(&mut self, command: Command) {
        // A caller that has gone away does not mind.
        match command {
            Command::Probe(sandbox, reply) => drop(reply.send(self.driver.probe(&sandbox).await)),
            Command::Prepare(request, reply) => drop(reply.send(self.prepare(request).await)),
            Command::Start(start, reply) => drop(reply.send(self.start(*start).await)),
            Command::Checkpoint(request, reply) => drop(reply.send(self.checkpoint(request).await)),
            Command::Thaw(activation, reply) => drop(reply.send(self.thaw(activation).await)),
        }
    }

    async fn prepare(&mut self, request: PrepareRequest) -> Result<(), Error> {
        let PrepareRequest { sandbox, workload, snapshot, standby } = request;
        let (sandbox, workload) = parts(sandbox, workload)?;
        let snapshot = snapshot.map(self::snapshot).transpose()?;
        let fits = Prepared::of(&sandbox, &workload);
        let wanted = Ahead { fits, snapshot: snapshot.clone(), standby };
        match self.state() {
            State::Prepared if self.prepared.as_ref() == Some(&wanted) => return Ok(()),
            State::Idle => (),
            State::Prepared => self.clean().await?,
            state => return Err(wrong_state("prepare a sandbox", state)),
        }
        let preparation = Preparation { sandbox, workload, snapshot, standby };
        match within(PREPARE, "the preparation", async { step!("driver.prepare", self.driver.prepare(&preparation)) })
            .await
        {
            Ok(()) => {
                self.status.send_modify(|s| s.prepared_key.clone_from(&wanted.fits.key));
                self.prepared = Some(wanted);
                self.become_state(State::Prepared);
                Ok(())
            }
            Err(e) => {
                self.clean().await?;
                Err(e)
            }
        }
    }

    async fn start(&mut self, start: Start) -> Result<Outcome, Error> {
        let number = start.activation.number;
        let uid = start.activation.identity.as_ref().map(|i| i.uid.clone()).unwrap_or_default();
        if uid.is_empty() || number == 0 {
            return Err(Error::new(Reason::Invalid, "an activation needs a number and an actor with a uid"));
        }
        self.seen.admit(&uid, number)?;
        let (same, state) = {
            let status = self.status.borrow();
            (status.activation == number && status.actor_uid == uid, status.state)
        };
        match (state, &self.started) {
            (State::Running | State::Frozen, Some(outcome)) if same => return Ok(outcome.clone()),
            (State::Idle, _) => (),
            (State::Prepared, _) => {
                let fits = Prepared::of(&start.sandbox, &start.workload);
                if self.prepared.as_ref().is_none_or(|p| p.fits != fits) {
                    self.clean().await?;
                }
            }
            (state, _) => return Err(wrong_state("start an actor", state)),
        }
        self.status.send_modify(|s| {
            s.activation = number;
            s.actor_uid.clone_from(&uid);
            s.prepared_key.clear();
        });
        self.prepared = None;
        self.become_state(State::Starting);
        let mut steps = Steps::default();
        // The driver keeps the deadline itself, where it knows what was waited for; this is for the case it does not.
        let limit = start.deadline.duration_since(tokio::time::Instant::now()) + CUT;
        let started = async { step!("driver.start", self.driver.start(&start, &mut steps)) };
        match within(limit, "the start", started).await {
            Ok(prepared) => {
                let outcome = Outcome { prepared, steps_us: steps.into_map() };
                tracing::info!(actor = uid, activation = number, prepared, steps_us = ?outcome.steps_us, "started");
                self.started = Some(outcome.clone());
                self.become_state(State::Running);
                Ok(outcome)
            }
            Err(e) => {
                tracing::warn!(actor = uid, activation = number, "start failed: {e}");
                self.clean().await?;
                Err(e.on(format!("actor/{uid}")))
            }
        }
    }

    async fn checkpoint(&mut self, request: CheckpointRequest) -> Result<Checkpointed, Error> {
        self.current(request.activation)?;
        let dir = PathBuf::from(&request.dir);
        match (self.state(), &self.frozen) {
            (State::Frozen, Some((last, written))) if *last == dir => return Ok(written.clone()),
            (State::Running, _) => (),
            (state, _) => return Err(wrong_state("take a snapshot", state)),
        }
        check_empty(&dir)?;
        let scope = match request.scope() {
            Scope::Unspecified => return Err(Error::new(Reason::Invalid, "the snapshot's scope is missing")),
            scope => scope,
        };
        let checkpoint = Checkpoint { dir: dir.clone(), scope, may_need_base: request.may_need_base };
        let written = async { step!("driver.checkpoint", self.driver.checkpoint(&checkpoint), held) };
        match within(CHECKPOINT, "the snapshot", written).await {
            Ok(written) => {
                self.frozen = Some((dir, written.clone()));
                self.become_state(State::Frozen);
                Ok(written)
            }
            Err(e) => {
                tracing::warn!("snapshot failed: {e}");
                Err(e)
            }
        }
    }

    async fn thaw(&mut self, activation: u64) -> Result<(), Error> {
        self.current(activation)?;
        match self.state() {
            State::Running => return Ok(()),
            State::Frozen => (),
            state => return Err(wrong_state("thaw an actor", state)),
        }
        within(THAW, "thawing", async { step!("driver.thaw", self.driver.thaw()) }).await?;
        self.frozen = None;
        self.become_state(State::Running);
        Ok(())
    }

    async fn reset(&mut self, reply: Reply<()>) {
        let result = if self.state() == State::Idle { Ok(()) } else { self.clean().await };
        let clean = result.is_ok();
        let _ = reply.send(result);
        if clean {
            step!("driver.tidy", self.driver.tidy(), plain);
        }
    }

    /// Ends and removes everything. If even that fails the worker is beyond use: the node agent replaces it.
    async fn clean(&mut self) -> Result<(), Error> {
        self.prepared = None;
        self.started = None;
        self.frozen = None;
        within(RESET, "the clean-up", async { step!("driver.reset", self.driver.reset(), repeatable) })
            .await
            .inspect_err(|e| tracing::error!("clean-up failed: {e}"))?;
        self.status.send_replace(Status::default());
        self.become_state(State::Idle);
        Ok(())
    }

    async fn ended(&mut self, ended: Ended) {
        if self.state() == State::Prepared {
            tracing::warn!("the prepared sandbox is gone: {}", ended.message);
            let _ = self.clean().await;
            return;
        }
        self.become_state(State::Ended);
        let status = self.status.borrow().clone();
        tracing::info!(actor = status.actor_uid, activation = status.activation, "actor ended: {}", ended.message);
        let _ = self.events.send(Event {
            activation: status.activation,
            actor_uid: status.actor_uid,
            kind: ended.kind.to_owned(),
            message: ended.message,
        });
    }

    fn current(&self, activation: u64) -> Result<(), Error> {
        let current = self.status.borrow().activation;
        if activation == current && current != 0 {
            return Ok(());
        }
        let message = format!("activation {activation} is not the one on this worker ({current})");
        Err(Error::new(Reason::Fenced, message))
    }

    fn state(&self) -> State {
        self.status.borrow().state
    }

    fn become_state(&self, state: State) {
        let sandbox_pid = self.driver.sandbox_pid();
        self.status.send_modify(|s| {
            s.state = state;
            s.sandbox_pid = sandbox_pid;
        });
    }
}

impl Prepared {
    fn of(sandbox: &Sandbox, workload: &Workload) -> Self {
        let mut assets: Vec<_> = sandbox.asset_digests.clone().into_iter().collect();
        assets.sort();
        Prepared { config_digest: sandbox.config_digest.clone(), assets, key: workload.key.clone() }
    }
}

/// The highest activation seen per actor.
#[derive(Default)]
struct Fence {
    highest: HashMap<String, u64>,
    order: VecDeque<String>,
}

impl Fence {
    fn admit(&mut self, uid: &str, number: u64) -> Result<(), Error> {
        if let Some(highest) = self.highest.get_mut(uid) {
            if number < *highest {
                let message = format!("activation {number} is older than {highest}, which this worker has seen");
                return Err(Error::new(Reason::Fenced, message).on(format!("actor/{uid}")));
            }
            *highest = number;
            return Ok(());
        }
        if self.order.len() >= FENCED_ACTORS
            && let Some(oldest) = self.order.pop_front()
        {
            self.highest.remove(&oldest);
        }
        self.order.push_back(uid.to_owned());
        self.highest.insert(uid.to_owned(), number);
        Ok(())
    }
}

pub(crate) fn parts(sandbox: Option<Sandbox>, workload: Option<Workload>) -> Result<(Sandbox, Workload), Error> {
    let missing = |what| Error::new(Reason::Invalid, format!("the request has no {what}"));
    let (sandbox, workload) =
        (sandbox.ok_or_else(|| missing("sandbox"))?, workload.ok_or_else(|| missing("workload"))?);
    if workload.containers.is_empty() {
        return Err(missing("container"));
    }
    Ok((sandbox, workload))
}

/// The time a start may take.
pub(crate) fn start_limit(timeout_ms: u64) -> Duration {
    match timeout_ms {
        0 => DEFAULT_START,
        ms => Duration::from_millis(ms).min(MAX_START),
    }
}

pub(crate) fn snapshot(snapshot: pb::Snapshot) -> Result<Snapshot, Error> {
    let pb::Snapshot { digest, dir } = snapshot;
    let dir = PathBuf::from(dir);
    if dir.is_absolute() && dir.is_dir() {
        return Ok(Snapshot { digest, dir });
    }
    let message = format!("snapshot directory `{}` is not an absolute directory", dir.display());
    Err(Error::new(Reason::SnapshotNotFound, message))
}

fn check_empty(dir: &std::path::Path) -> Result<(), Error> {
    let empty = dir.is_absolute() && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
    if empty {
        return Ok(());
    }
    let message = format!("`{}` is not an empty, absolute directory to write a snapshot to", dir.display());
    Err(Error::new(Reason::Invalid, message))
}

fn wrong_state(what: &str, state: State) -> Error {
    let message = format!("cannot {what} while the worker is {}", state.as_str_name().to_lowercase());
    Error::new(Reason::WrongState, message).hint("reset the worker")
}

async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(Reason::DeadlineExceeded, format!("{what} took longer than {limit:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activation_older_than_one_seen_is_fenced_off() {
        let mut fence = Fence::default();
        fence.admit("a", 3).unwrap();
        fence.admit("a", 3).unwrap();
        assert_eq!(fence.admit("a", 2).unwrap_err().reason, Reason::Fenced);
        fence.admit("b", 1).unwrap();
        fence.admit("a", 4).unwrap();
    }

    #[test]
    fn the_fence_remembers_a_bounded_number_of_actors() {
        let mut fence = Fence::default();
        for i in 0..=FENCED_ACTORS {
            fence.admit(&i.to_string(), 1).unwrap();
        }
        assert_eq!(fence.highest.len(), FENCED_ACTORS);
        assert_eq!(fence.order.len(), FENCED_ACTORS);
    }
}
