//! The state machine of one worker, in a task of its own. Nothing else touches its herder.
//!
//! ```text
//! Idle → Starting → Running ⇄ Capturing → Frozen ─→ Running (thaw)
//!   ^        └→ Failed ←┘ (the actor ended)
//!   └── Cleaning ←── release, from any of them (I3)
//! ```
//!
//! A herder that dies, does not clean up or cannot thaw ends the worker: it is reported lost and replaced. One that ran
//! or prepared anything under a binary that is revoked ends as soon as it holds no actor: what it may keep dies with it.

use std::{collections::BTreeSet, future::pending, pin::Pin, time::Duration};

use ate_agent::{Captured, Held, HeldStage, NodeEvent, PoolSpec, PrepareKey, WorkerPhase, WorkerReport};
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, Uid, WorkerId},
};
use ate_failpoint::{again, step, step_now};
use ate_snapshot::manifest::Driver;
use ateom::driver as pb;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Context,
    client::{Client, Start},
    herder::Herder,
    kept::{Kept, Seated},
    seat::{Begun, Capturing, Command, Reply, Seat, Started, fenced},
    state::State,
    verified::Changes,
    watcher,
};

/// The herder allows itself 60 s; a sandbox that takes longer than this to end is ended with its herder.
const RESET: Duration = Duration::from_secs(20);

/// What an operation of the herder came to.
enum Done {
    Prepared(PrepareKey, Result<(), Error>, Reply<()>),
    Started(Result<pb::Outcome, Error>),
    Thawed(Result<(), Error>, Box<dyn FnOnce(Result<(), Error>) + Send>),
    Reset(Result<(), Error>),
}

type Operation = Pin<Box<dyn Future<Output = Done> + Send>>;

/// Why a worker ended.
pub(super) enum End {
    /// Somebody wanted it to.
    Stopped,
    Lost(String),
}

pub(super) struct Worker {
    id: WorkerId,
    context: Context,
    client: Client,
    herder: Herder,
    spec: watch::Receiver<PoolSpec>,
    configs: Changes,
    state: State,
    prepared: Option<PrepareKey>,
    /// What it was last released from: a late start of the same activation must not take the seat again (I1).
    released: Option<(Uid, Activation)>,
    /// Operations under way. Dropped by a release; the herder's Reset ends them on its side.
    operations: FuturesUnordered<Operation>,
    ended: mpsc::Receiver<pb::Event>,
    /// An end that was heard of before the start's own answer.
    ended_early: Option<pb::Event>,
    /// Why the herder cannot be kept.
    beyond_use: Option<String>,
    /// Binaries the herder was ever told to use.
    used: BTreeSet<Digest>,
    /// It must not be kept, for it used what is revoked since.
    tainted: bool,
    /// Its pod is about to go.
    leaving: CancellationToken,
    /// Who waits until nothing revoked is left here.
    purging: Vec<Reply<()>>,
}

impl Worker {
    /// `kept`: what is known of the herder from before this node agent; nothing, of one that was just started.
    pub(super) fn new(
        id: WorkerId,
        context: Context,
        herder: Herder,
        kept: Kept,
        spec: watch::Receiver<PoolSpec>,
        leaving: CancellationToken,
    ) -> Self {
        let state = match kept.seated {
            None => State::Idle,
            Some(Seated { seat, started, pins }) => {
                context.pins.pin_again(&id, pins);
                context.fence.seated(&seat.actor.uid, seat.activation);
                State::Running { seat: Box::new(seat), started }
            }
        };
        Worker {
            ended: watcher::watch(herder.client().clone()),
            ended_early: None,
            client: herder.client().clone(),
            configs: context.verified.changes(),
            state,
            prepared: None,
            released: None,
            operations: FuturesUnordered::new(),
            beyond_use: None,
            used: kept.used,
            tainted: false,
            leaving,
            purging: Vec::new(),
            id,
            context,
            herder,
            spec,
        }
    }

    /// Serves until told to stop (at once), to retire (when idle), or until the herder is lost. So is one that has moved to
    /// another address, if anybody is on it: nobody would reach him.
    pub(super) async fn run(
        mut self,
        commands: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
        retire: &CancellationToken,
        moved: &CancellationToken,
    ) -> End {
        let mut stopped = stop.is_cancelled();
        while !stopped && self.beyond_use.is_none() {
            self.report();
            let idle = matches!(self.state, State::Idle);
            if idle && self.context.verified.revoked().touches(&self.used) {
                self.tainted = true;
                break;
            }
            let leaves = self.leaving.is_cancelled();
            tokio::select! {
                () = stop.cancelled() => stopped = true,
                () = retire.cancelled(), if idle => stopped = true,
                () = moved.cancelled(), if !idle => {
                    self.beyond_use = Some("its pod has another address now".to_owned());
                }
                why = self.herder.ended() => self.beyond_use = Some(why),
                Some(event) = self.ended.recv() => self.actor_ended(event),
                done = next(&mut self.operations) => self.done(done),
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => stopped = true,
                },
                () = self.configs.next() => (),
                Ok(()) = self.spec.changed() => (),
                () = self.leaving.cancelled(), if !leaves => (),
            }
        }
        let why = self.beyond_use.take();
        let lost = Error::new(Reason::WorkerLost, why.as_deref().unwrap_or("the worker was stopped"));
        let end = why.map_or(End::Stopped, End::Lost);
        self.herder.end(matches!(end, End::Stopped) && !self.tainted).await;
        // Known before anybody is answered, so that nobody takes a worker that is gone for a free one.
        if let End::Lost(message) = &end {
            self.context.hub.lost(&self.id, message.clone());
        }
        self.purging.into_iter().for_each(|waiter| drop(waiter.send(Ok(()))));
        // A release got what it asked for: nothing of the actor is left. Everybody else learns of the loss.
        match self.state {
            State::Cleaning { waiters, .. } => waiters.into_iter().for_each(|w| drop(w.send(Ok(())))),
            State::Starting { waiters, .. } => waiters.into_iter().for_each(|w| drop(w.send(Err(lost.clone())))),
            _ => (),
        }
        end
    }

    fn report(&self) {
        let spec = self.spec.borrow();
        let phase = if matches!(self.state, State::Idle) { WorkerPhase::Ready } else { WorkerPhase::Busy };
        let message = match &self.state {
            State::Failed { error, .. } => error.message.clone(),
            _ => String::new(),
        };
        self.context.hub.report(WorkerReport {
            id: self.id.clone(),
            node: self.context.node.clone(),
            pod: self.herder.pod(),
            pool: spec.name.clone(),
            labels: spec.labels.clone(),
            class: self.herder.info().sandbox_class.clone(),
            phase,
            address: self.herder.address().into(),
            platform: (*self.context.platform).clone(),
            configs: self.context.verified.labels(&self.herder.info().sandbox_class),
            prepared: self.prepared.clone(),
            holds: self.holds(),
            leaving: self.leaving.is_cancelled(),
            message,
        });
    }

    fn holds(&self) -> Option<Held> {
        let (seat, stage) = match &self.state {
            State::Idle | State::Cleaning { .. } => return None,
            State::Starting { seat, .. } => (seat, HeldStage::Starting),
            State::Running { seat, .. } => (seat, HeldStage::Running),
            State::Capturing { seat, generation, .. } | State::Frozen { seat, generation, .. } => {
                (seat, HeldStage::Captured { generation: *generation })
            }
            State::Failed { seat, .. } => (seat, HeldStage::Over),
        };
        Some(Held { actor: seat.actor.uid.clone(), activation: seat.activation, stage })
    }

    /// Writes down what the next node agent has to know. If that fails the actor runs on, and ends with this node agent.
    fn keep(&self) {
        let Some(keep) = self.herder.keep() else { return };
        let seated = match &self.state {
            State::Running { seat, started } => {
                let pins = self.context.pins.of(&self.id);
                Some(Seated { seat: (**seat).clone(), started: started.clone(), pins })
            }
            _ => None,
        };
        if let Err(e) = step_now!("worker.keep", keep.write(&self.used, seated), plain) {
            tracing::warn!(worker = %self.id, "what is on the worker could not be written down: {e}");
        }
    }

    fn obey(&mut self, command: Command) {
        // A caller that has gone away does not mind that nobody hears the answer.
        match command {
            Command::Prepare { key, request, reply } => self.prepare(key, *request, reply),
            Command::Start { seat, start, limit, reply } => self.start(seat, start, limit, reply),
            Command::BeginCapture { actor, activation, generation, reply } => {
                let _ = reply.send(self.begin_capture(&actor, activation, generation));
            }
            Command::EndCapture { actor, activation, generation, captured, reply } => {
                self.end_capture(&actor, activation, generation, captured, reply);
            }
            Command::Thaw { actor, activation, generation, reply } => self.thaw(&actor, activation, generation, reply),
            Command::Release { actor, activation, reply } => self.release(&actor, activation, reply),
            Command::Revoked { reply } => match self.state {
                State::Idle if self.context.verified.revoked().touches(&self.used) => self.purging.push(reply),
                _ => drop(reply.send(Ok(()))),
            },
        }
    }

    fn prepare(&mut self, key: PrepareKey, request: pb::PrepareRequest, reply: Reply<()>) {
        if !matches!(self.state, State::Idle) {
            let _ = reply.send(Err(self.wrong_state("prepare")));
        } else if self.prepared.as_ref() == Some(&key) {
            let _ = reply.send(Ok(()));
        } else if let Err(e) = self.may_use(digests(request.sandbox.as_ref())) {
            let _ = reply.send(Err(e));
        } else {
            self.prepared = None;
            let client = self.client.clone();
            let prepare = async move { step!("worker.prepare", client.prepare(again!(request)), repeatable) };
            let operation = async move { Done::Prepared(key, prepare.await, reply) };
            self.operations.push(Box::pin(operation));
        }
    }

    fn start(&mut self, seat: Box<Seat>, start: Start, limit: Duration, reply: Reply<Started>) {
        let late = self.released.as_ref().is_some_and(|(a, n)| *a == seat.actor.uid && seat.activation <= *n);
        if late {
            let _ = reply.send(Err(fenced(format!("activation {} was released already", seat.activation))));
            return;
        }
        let same = self.state.seat().is_some_and(|s| s.is(&seat.actor.uid, seat.activation));
        match &mut self.state {
            State::Idle => {
                if let Err(e) = self.may_use(seat.sandbox.assets.iter().map(|a| a.sha256.clone()).collect()) {
                    let _ = reply.send(Err(e));
                    return;
                }
                let client = self.client.clone();
                self.prepared = None;
                self.state = State::Starting { seat, waiters: vec![reply] };
                let start = async move { step!("worker.start", client.start(again!(start), limit), repeatable) };
                self.operations.push(Box::pin(async move { Done::Started(start.await) }));
            }
            State::Starting { waiters, .. } if same => waiters.push(reply),
            State::Running { started, .. } if same => drop(reply.send(Ok(started.clone()))),
            State::Failed { error, .. } if same => drop(reply.send(Err(error.clone()))),
            State::Cleaning { .. } => drop(reply.send(Err(self.wrong_state("start an actor")))),
            _ if same => drop(reply.send(Err(self.wrong_state("start an actor")))),
            _ => drop(reply.send(Err(self.taken()))),
        }
    }

    fn begin_capture(&mut self, actor: &Uid, activation: Activation, generation: u64) -> Result<Capturing, Error> {
        self.must_hold(actor, activation)?;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Frozen { seat, started, generation: g, captured } if g == generation => {
                let done = Capturing::Done(captured.clone());
                self.state = State::Frozen { seat, started, generation, captured };
                Ok(done)
            }
            State::Running { seat, started } => {
                let info = self.herder.info();
                let driver = Driver {
                    name: info.driver_name.clone(),
                    version: info.driver_version.clone(),
                    contract: info.contract_version,
                };
                let begun = Begun { client: self.client.clone(), seat: seat.clone(), driver };
                self.state = State::Capturing { seat, started, generation };
                Ok(Capturing::Begun(Box::new(begun)))
            }
            other => {
                self.state = other;
                Err(self.wrong_state("take a snapshot"))
            }
        }
    }

    fn end_capture(
        &mut self,
        actor: &Uid,
        activation: Activation,
        generation: u64,
        captured: Option<Box<Captured>>,
        reply: Reply<()>,
    ) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Capturing { seat, started, generation: g } if g == generation && seat.is(actor, activation) => {
                match captured {
                    Some(captured) => {
                        self.state = State::Frozen { seat, started, generation, captured };
                        let _ = reply.send(Ok(()));
                    }
                    None => {
                        self.state = State::Running { seat, started };
                        self.thaw_herder(activation, Box::new(move |thawed| drop(reply.send(thawed))));
                    }
                }
            }
            other => {
                self.state = other;
                let _ = reply.send(Err(Error::new(Reason::Conflict, "the capture was called off meanwhile")));
            }
        }
    }

    fn thaw(&mut self, actor: &Uid, activation: Activation, generation: u64, reply: Reply<Option<Box<Captured>>>) {
        if let Err(e) = self.must_hold(actor, activation) {
            let _ = reply.send(Err(e));
            return;
        }
        let void = match std::mem::replace(&mut self.state, State::Idle) {
            State::Frozen { seat, started, captured, generation: g } if g == generation => {
                self.state = State::Running { seat, started };
                Some(captured)
            }
            State::Capturing { seat, started, generation: g } if g == generation => {
                self.state = State::Running { seat, started };
                None
            }
            other => {
                self.state = other;
                let _ = reply.send(match &self.state {
                    State::Running { .. } => Ok(None),
                    // A late call, of a capture before this one, which may be committed by now.
                    State::Frozen { .. } | State::Capturing { .. } => {
                        Err(fenced("another capture is under way or done"))
                    }
                    _ => Err(self.wrong_state("thaw an actor")),
                });
                return;
            }
        };
        self.thaw_herder(activation, Box::new(move |thawed| drop(reply.send(thawed.map(|()| void)))));
    }

    fn thaw_herder(&mut self, activation: Activation, answer: Box<dyn FnOnce(Result<(), Error>) + Send>) {
        let client = self.client.clone();
        let thaw = async move { step!("worker.thaw", client.thaw(activation.0), repeatable) };
        self.operations.push(Box::pin(async move { Done::Thawed(thaw.await, answer) }));
    }

    fn release(&mut self, actor: &Uid, activation: Activation, reply: Reply<()>) {
        if let Some(seat) = self.state.seat()
            && (seat.actor.uid != *actor || activation < seat.activation)
        {
            let _ = reply.send(Err(self.taken()));
            return;
        }
        if self.released.as_ref().is_none_or(|(a, n)| a != actor || *n < activation) {
            self.released = Some((actor.clone(), activation));
        }
        let seat = match std::mem::replace(&mut self.state, State::Idle) {
            State::Idle => {
                let _ = reply.send(Ok(()));
                return;
            }
            State::Cleaning { seat, mut waiters } => {
                waiters.push(reply);
                self.state = State::Cleaning { seat, waiters };
                return;
            }
            State::Starting { seat, waiters } => {
                let error = Error::new(Reason::Conflict, "the worker was released meanwhile");
                waiters.into_iter().for_each(|w| drop(w.send(Err(error.clone()))));
                seat
            }
            State::Running { seat, .. }
            | State::Capturing { seat, .. }
            | State::Frozen { seat, .. }
            | State::Failed { seat, .. } => seat,
        };
        self.state = State::Cleaning { seat, waiters: vec![reply] };
        self.operations.clear();
        let client = self.client.clone();
        let reset = async move { step!("worker.reset", client.reset(RESET), repeatable) };
        self.operations.push(Box::pin(async move { Done::Reset(reset.await) }));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Prepared(key, result, reply) => {
                if result.is_ok() && matches!(self.state, State::Idle) {
                    self.prepared = Some(key);
                    self.report();
                }
                let _ = reply.send(result);
            }
            Done::Started(result) => self.started(result),
            Done::Thawed(result, answer) => {
                if let Err(e) = &result {
                    self.beyond_use = Some(format!("a frozen actor could not be thawed: {e}"));
                }
                answer(result);
            }
            Done::Reset(Ok(())) => {
                if let State::Cleaning { waiters, .. } = std::mem::replace(&mut self.state, State::Idle) {
                    self.report(); // before the answer: who is told "free" finds it free
                    waiters.into_iter().for_each(|w| drop(w.send(Ok(()))));
                }
            }
            Done::Reset(Err(e)) => self.beyond_use = Some(format!("the worker could not be cleaned: {e}")),
        }
    }

    fn started(&mut self, result: Result<pb::Outcome, Error>) {
        let State::Starting { seat, waiters } = std::mem::replace(&mut self.state, State::Idle) else { return };
        let result = result.map(|outcome| Started {
            address: self.herder.address(),
            prepared: outcome.prepared,
            steps_us: outcome.steps_us.into_iter().collect(),
        });
        self.state = match &result {
            Ok(started) => State::Running { seat, started: started.clone() },
            Err(e) => State::Failed { seat, error: e.clone() },
        };
        self.keep();
        self.report();
        waiters.into_iter().for_each(|w| drop(w.send(result.clone())));
        if let Some(event) = self.ended_early.take() {
            self.actor_ended(event);
        }
    }

    fn actor_ended(&mut self, event: pb::Event) {
        let current =
            self.state.seat().filter(|s| s.activation.0 == event.activation && s.actor.uid.as_str() == event.actor_uid);
        let Some(seat) = current.cloned() else { return };
        match &self.state {
            State::Running { .. } | State::Frozen { .. } => (),
            State::Starting { .. } => {
                self.ended_early = Some(event);
                return;
            }
            // The operation under way fails by itself and says so; Failed was announced; Cleaning is the cure.
            _ => return,
        }
        let error = Error::new(Reason::ActorExited, format!("the actor ended: {}", event.message));
        self.state = State::Failed { seat: Box::new(seat.clone()), error };
        self.context.hub.send(NodeEvent::ActorEnded {
            worker: self.id.clone(),
            actor: seat.actor.uid,
            activation: seat.activation,
            message: event.message,
        });
    }

    /// The last word before the herder is told to use binaries.
    fn may_use(&mut self, digests: Vec<Digest>) -> Result<(), Error> {
        self.context.verified.revoked().check_digests(&digests)?;
        let before = self.used.len();
        self.used.extend(digests);
        if self.used.len() > before {
            self.keep();
        }
        Ok(())
    }

    fn must_hold(&self, actor: &Uid, activation: Activation) -> Result<(), Error> {
        match self.state.seat() {
            Some(seat) if seat.is(actor, activation) => Ok(()),
            _ => Err(self.taken()),
        }
    }

    fn taken(&self) -> Error {
        match self.state.seat() {
            Some(s) => {
                fenced(format!("worker {} holds activation {} of actor {}", self.id, s.activation, s.actor.name))
            }
            None => fenced(format!("worker {} holds no actor", self.id)),
        }
    }

    fn wrong_state(&self, what: &str) -> Error {
        let message = format!("cannot {what} while the worker is {}", self.state.word());
        Error::new(Reason::WrongState, message).on(format!("worker/{}", self.id))
    }
}

fn digests(sandbox: Option<&pb::Sandbox>) -> Vec<Digest> {
    sandbox.into_iter().flat_map(|s| s.asset_digests.values()).filter_map(|d| Digest::parse(d)).collect()
}

async fn next(operations: &mut FuturesUnordered<Operation>) -> Done {
    match operations.next().await {
        Some(done) => done,
        None => pending().await,
    }
}
