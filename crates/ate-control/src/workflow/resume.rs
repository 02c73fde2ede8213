//! Resume: claim a worker, record the activation, start, show that it runs.
//!
//! On the clock: one read, one commit (the claim), one call of the node.

use std::{sync::Arc, time::Instant};

use ate_agent::{Activate, Activated, ActorIdentity};
use ate_api::{
    Error, Reason,
    id::{Activation, ActorName, Uid, WorkerId},
};
use ate_failpoint::{again, step, step_now};
use ate_store::Transaction;

use crate::{
    core::{Core, Running},
    db::Stored,
    records::{ActorRecord, Phase, Seat, Snapshot, keys},
    scheduler::{Claim, Prepared, Stage},
    usage,
    workflow::{
        start::{Start, being_deleted},
        suspend::discard,
        turns::{Flight, Kind, Outcome},
    },
};

/// Workers an actor is tried on before its resume fails.
const MAX_ATTEMPTS: usize = 3;

impl Core {
    /// Brings an actor to life, or finds it alive. Many callers at once cause one activation.
    pub(crate) async fn resume(
        self: &Arc<Self>,
        name: &ActorName,
        boot: bool,
        deadline: Instant,
    ) -> Result<Running, Error> {
        if let Some(running) = self.running(name).filter(|_| !boot) {
            return Ok(running);
        }
        let done = self.resume_record(name, boot, deadline).await?;
        running_of(&done.value, self.default_port(&done.value)).ok_or_else(|| lost_again(name))
    }

    pub(crate) async fn resume_record(self: &Arc<Self>, name: &ActorName, boot: bool, deadline: Instant) -> Outcome {
        let kind = if boot { Kind::Boot } else { Kind::Resume };
        let (core, actor) = (self.clone(), name.clone());
        let work = move |flight: Flight| async move { core.run_resume(&actor, boot, &flight).await };
        self.turns.take(name, kind, deadline, work).await
    }

    pub(crate) fn default_port(&self, actor: &ActorRecord) -> u16 {
        self.catalog.template(&actor.template, &actor.template_uid).map_or(80, |t| t.value.default_port)
    }

    pub(crate) async fn run_resume(
        self: &Arc<Self>,
        name: &ActorName,
        boot: bool,
        flight: &Flight,
    ) -> Result<Stored<ActorRecord>, Error> {
        let mut actor = self.settled(name).await?;
        if actor.value.phase == Phase::Running {
            if boot {
                return Err(Error::new(Reason::WrongState, "the actor is running; it cannot be booted anew")
                    .on(format!("actor/{name}"))
                    .hint("suspend it first"));
            }
            // Its traffic may have been closed for a suspend that then did not happen.
            self.open_traffic(name);
            self.write_soon(name);
            return Ok(actor);
        }
        let start =
            self.plan_start(name, &actor.value, boot, flight).await.map_err(|e| e.on(format!("actor/{name}")))?;
        let mut failed: Vec<WorkerId> = Vec::new();
        let mut last_error: Option<Error> = None;
        loop {
            let need = Arc::new(start.need(name, &actor.value));
            let claim = match step!("resume.claim", self.claim_worker(&need, &failed, flight), held) {
                Ok(claim) => claim,
                // What went wrong on the workers that were tried says more than that there is no other.
                Err(e) => return Err(last_error.unwrap_or(e).on(format!("actor/{name}"))),
            };
            // After the claim, by which a revocation finds us: it is seen here, or we are among those who run.
            if let Err(e) = self.check_trust(&claim.sandbox.reference) {
                self.give_back(claim.worker(), &need.uid, need.activation);
                return Err(e.on(format!("actor/{name}")));
            }
            actor = self.record_claim(name, actor, &claim, &start).await?;
            match self.activate(name, &actor.value, &claim, &start, flight).await {
                Ok(activated) => {
                    return step_now!(
                        "resume.show",
                        self.record_running(name, actor, &claim, &start, &activated),
                        plain
                    );
                }
                Err(e) => {
                    tracing::warn!(actor = %name, worker = %claim.worker(), error = %e, "activation failed");
                    actor = self.record_failure(name, actor, &claim, &e).await?;
                    failed.push(claim.worker().clone());
                    if !is_workers_fault(e.reason) || failed.len() >= MAX_ATTEMPTS || flight.is_cancelled() {
                        return Err(e.on(format!("actor/{name}")));
                    }
                    last_error = Some(e);
                }
            }
        }
    }

    /// The activation number is durable before the node hears of it (I1).
    async fn record_claim(
        self: &Arc<Self>,
        name: &ActorName,
        actor: Stored<ActorRecord>,
        claim: &Claim,
        start: &Start,
    ) -> Result<Stored<ActorRecord>, Error> {
        let timeout = self.options.activate_timeout;
        let mut record = actor.value;
        record.activation = Activation(record.activation.0 + 1);
        record.enter(Phase::Resuming, Some(timeout));
        record.seat = Some(Seat {
            worker: claim.worker().clone(),
            pool: claim.report.pool.clone(),
            address: None,
            sandbox: claim.sandbox.key(),
            platform: claim.platform.clone(),
            parent: start.parent.clone(),
        });
        let (uid, activation) = (record.uid.clone(), record.activation);
        // Beyond the node's own timeout, so that this one is only a safety net.
        let deadline = Instant::now() + timeout + self.options.release_timeout;
        self.scheduler.set_stage(claim.worker(), &uid, activation, Stage::Claimed, Some(deadline));
        let tx = Transaction::new().put(keys::busy(name), &b""[..]);
        let written = step!("resume.record", self.write(name, actor.version, record, tx));
        written.inspect_err(|_| {
            // Whether it was written is unknown.
            self.give_back(claim.worker(), &uid, activation);
            self.recover_soon(name);
        })
    }

    /// A worker that was claimed and not touched.
    fn give_back(&self, worker: &WorkerId, uid: &Uid, activation: Activation) {
        if self.scheduler.start_cleaning(worker, uid, activation).is_some() {
            self.scheduler.freed(worker, uid, activation);
        }
    }

    async fn activate(
        &self,
        name: &ActorName,
        actor: &ActorRecord,
        claim: &Claim,
        start: &Start,
        flight: &Flight,
    ) -> Result<Activated, Error> {
        let timeout = self.options.activate_timeout;
        let activate = Activate {
            worker: claim.worker().clone(),
            actor: ActorIdentity { name: name.clone(), uid: actor.uid.clone() },
            activation: actor.activation,
            template: start.template.for_node(),
            sandbox: claim.sandbox.reference.clone(),
            source: start.source.clone(),
            timeout,
        };
        let call = async { step!("resume.activate", self.node.activate(again!(activate)), repeatable) };
        tokio::select! {
            done = tokio::time::timeout(timeout, call) => done.unwrap_or_else(|_| {
                Err(Error::new(Reason::DeadlineExceeded, format!("the actor did not start within {timeout:?}")))
            }),
            () = flight.cancelled() => Err(being_deleted()),
        }
    }

    fn record_running(
        self: &Arc<Self>,
        name: &ActorName,
        actor: Stored<ActorRecord>,
        claim: &Claim,
        start: &Start,
        activated: &Activated,
    ) -> Result<Stored<ActorRecord>, Error> {
        let mut record = actor.value;
        let activation = record.activation;
        record.enter(Phase::Running, None);
        record.message.clear();
        if let Some(seat) = &mut record.seat {
            seat.address = Some(activated.address);
        }
        let running = Stored { version: actor.version, value: record };
        self.show(name, &running);
        self.scheduler.set_running(claim.worker(), &running.value.uid, activation, activated.address);
        // The worker may have died between its answer and now; then there is nobody to route to.
        if self.running(name).is_none_or(|r| r.activation != activation) {
            self.recover_soon(name);
            return Err(lost_again(name));
        }
        self.open_traffic(name);
        self.write_soon(name);
        let prepared = Prepared { template: running.value.template_uid.clone(), sandbox: claim.sandbox.key() };
        self.note_use(prepared, &running.value.template);
        if start.begins {
            self.note_demand(&running.value.template_uid);
        }
        Ok(running)
    }

    /// The worker is cleaned before the actor is at rest again, so that no two copies run at once.
    async fn record_failure(
        self: &Arc<Self>,
        name: &ActorName,
        actor: Stored<ActorRecord>,
        claim: &Claim,
        e: &Error,
    ) -> Result<Stored<ActorRecord>, Error> {
        let mut record = actor.value;
        self.clean(claim.worker(), &record.uid, record.activation).await;
        record.fall_back_to_rest();
        let mut tx = Transaction::new().delete(keys::busy(name));
        let mut gone = Vec::new();
        if is_snapshots_fault(e.reason)
            && let Some(bad) = record.snapshot.clone().filter(|s| s.quarantined.is_none())
        {
            gone.extend(quarantine(&mut record, e));
            tx = usage::note(tx, name, Some(&bad), record.snapshot.as_ref());
        } else {
            record.tell(e.reason.as_str(), format!("activation {} failed: {}", record.activation, e.message));
        }
        for snapshot in &gone {
            tx = discard(tx, snapshot)?;
        }
        let written = step!("resume.fail", self.write(name, actor.version, record, tx));
        let written = written.inspect_err(|_| self.recover_soon(name))?;
        self.garbage.add(&gone);
        Ok(written)
    }
}

/// A snapshot that failed verification is not tried again. If there is an earlier one it becomes current; what
/// happened since it is lost, and is said to be; the bad one is returned, nothing refers to it any more.
fn quarantine(record: &mut ActorRecord, e: &Error) -> Option<Snapshot> {
    let bad = record.generation();
    match record.fallback.take() {
        Some(earlier) => {
            let message = format!(
                "generation {bad} failed verification ({}); back to generation {}, what happened since is lost",
                e.message, earlier.generation
            );
            let bad = record.snapshot.replace(earlier);
            record.lost += 1;
            record.fall_back_to_rest();
            record.tell(Reason::SnapshotCorrupt.as_str(), message);
            bad
        }
        None => {
            if let Some(s) = &mut record.snapshot {
                s.quarantined = Some(e.message.clone());
            }
            record
                .tell(Reason::SnapshotCorrupt.as_str(), format!("generation {bad} failed verification: {}", e.message));
            None
        }
    }
}

/// Another worker may do better.
fn is_workers_fault(reason: Reason) -> bool {
    use Reason as R;
    matches!(reason, R::WorkerLost | R::Unavailable | R::SandboxFailed | R::Internal | R::DeadlineExceeded | R::Fenced)
}

fn is_snapshots_fault(reason: Reason) -> bool {
    use Reason as R;
    matches!(reason, R::SnapshotCorrupt | R::SnapshotNotFound | R::ManifestInvalid | R::ManifestDigestMismatch)
}

pub(crate) fn running_of(actor: &ActorRecord, default_port: u16) -> Option<Running> {
    let address = actor.seat.as_ref()?.address?;
    (actor.phase == Phase::Running).then(|| Running {
        uid: actor.uid.clone(),
        activation: actor.activation,
        address,
        default_port,
    })
}

fn lost_again(name: &ActorName) -> Error {
    Error::new(Reason::WorkerLost, "the worker was lost while the actor started").on(format!("actor/{name}"))
}
