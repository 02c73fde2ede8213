//! Suspend and pause: close the traffic, capture, flip the reference in one transaction, free the worker.
//!
//! Until the flip the previous generation is current and intact; after it the old one goes to the deletion queue
//! in the same transaction (I2). On any error before the flip the actor runs on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ate_agent::{ActorIdentity, Capture, CaptureTarget, Captured, SnapshotLocation};
use ate_api::{
    Error, Reason,
    id::{ActorName, GOLDEN_ATESPACE},
    resource::template::Scope,
};
use ate_failpoint::{again, step};
use ate_sandbox::capability;
use ate_store::{Expect, Transaction};

use crate::{
    core::Core,
    db::Stored,
    records::{
        ActorRecord, Base, ConfigKey, Location, Phase, Seat, Snapshot, SnapshotRecord, TemplateRecord, keys, now_ms,
        pack, to_json,
    },
    scheduler::Stage,
    usage,
    workflow::{
        live::WORTH_WRITING,
        turns::{Flight, Kind, Outcome},
        verify,
    },
};

/// Commits of the flip that are tried while the store is away, before the actor is let run on.
const FLIP_ATTEMPTS: u32 = 3;

impl Core {
    /// Stores the actor in object storage (`Kind::Suspend`, or `Kind::Files` for its durable directories only) or on
    /// its node (`Kind::Pause`) and frees its worker.
    /// It is the actor's next step when this returns, before the future is polled.
    pub(crate) fn suspend(
        self: &Arc<Self>,
        name: &ActorName,
        kind: Kind,
        deadline: Instant,
        drain: Duration,
    ) -> impl Future<Output = Outcome> + Send + 'static {
        let (core, actor) = (self.clone(), name.clone());
        let work = move |flight: Flight| async move { core.run_suspend(&actor, kind, drain, &flight).await };
        self.turns.take(name, kind, deadline, work)
    }

    pub(crate) async fn run_suspend(
        self: &Arc<Self>,
        name: &ActorName,
        kind: Kind,
        drain: Duration,
        flight: &Flight,
    ) -> Result<Stored<ActorRecord>, Error> {
        let mut actor = self.settled(name).await?;
        match (actor.value.phase, kind) {
            (Phase::Suspended, Kind::Suspend) | (Phase::Paused, Kind::Pause) => return Ok(actor),
            (Phase::Suspended | Phase::Paused, Kind::Files) => return Ok(actor),
            (Phase::Suspended, _) => {
                return Err(Error::new(
                    Reason::WrongState,
                    "the actor is suspended already, which is more than paused",
                )
                .on(format!("actor/{name}")));
            }
            // Its memory has to come to object storage: that way leads through a worker.
            (Phase::Paused, _) => actor = self.run_resume(name, false, flight).await?,
            _ => {}
        }
        let Some(seat) = actor.value.seat.clone() else {
            return Err(Error::new(Reason::Internal, "a running actor without a worker").on(format!("actor/{name}")));
        };
        let actor = self.leave(name, actor, &seat, kind, drain).await;
        let (actor, captured) = self.capture_and_write(name, actor, &seat, kind).await;
        match captured {
            Ok(snapshot) => self.record_captured(name, actor, &seat, kind, snapshot).await,
            Err(e) => Err(self.run_on(name, actor, &seat, e).await),
        }
    }

    /// From here on the actor gets no requests.
    async fn leave(
        self: &Arc<Self>,
        name: &ActorName,
        mut actor: Stored<ActorRecord>,
        seat: &Seat,
        kind: Kind,
        drain: Duration,
    ) -> Stored<ActorRecord> {
        let timeout = self.options.capture_timeout;
        let activation = actor.value.activation;
        actor.value.last_generation += 1;
        actor.value.enter(if kind == Kind::Pause { Phase::Pausing } else { Phase::Suspending }, Some(timeout + drain));
        let deadline = Instant::now() + timeout + drain + self.options.release_timeout;
        self.scheduler.set_stage(&seat.worker, &actor.value.uid, activation, Stage::Leaving, Some(deadline));
        self.show(name, &actor);
        step!("suspend.close", self.traffic.close(name, activation, drain), plain);
        actor
    }

    /// Captures, and writes the transient phase meanwhile if that takes long enough to be worth it.
    async fn capture_and_write(
        self: &Arc<Self>,
        name: &ActorName,
        actor: Stored<ActorRecord>,
        seat: &Seat,
        kind: Kind,
    ) -> (Stored<ActorRecord>, Result<Snapshot, Error>) {
        let record = actor.value.clone();
        let mut capture = std::pin::pin!(self.capture(name, &record, seat, kind));
        tokio::select! {
            captured = &mut capture => return (actor, captured),
            () = tokio::time::sleep(WORTH_WRITING) => {}
        }
        let write =
            async { step!("suspend.phase", self.write(name, actor.version, actor.value.clone(), Transaction::new())) };
        let (written, captured) = tokio::join!(write, capture);
        match written {
            Ok(written) => (written, captured),
            // Perhaps written, perhaps not: the store knows which version is to be replaced.
            Err(_) => match self.db.find_actor(name).await {
                Ok(Some(now)) if is_same(&now.value, &actor.value) => {
                    (Stored { version: now.version, value: actor.value }, captured)
                }
                _ => (actor, captured),
            },
        }
    }

    pub(crate) fn reopen(&self, name: &ActorName, actor: &ActorRecord) {
        if let Some(seat) = &actor.seat
            && let Some(address) = seat.address
        {
            self.scheduler.set_running(&seat.worker, &actor.uid, actor.activation, address);
            self.open_traffic(name);
        }
    }

    /// Requests may come, if the actor runs.
    pub(crate) fn open_traffic(&self, name: &ActorName) {
        if let Some(running) = self.running(name) {
            self.traffic.open(name, running.activation, running.address, running.default_port);
        }
    }

    async fn capture(&self, name: &ActorName, actor: &ActorRecord, seat: &Seat, kind: Kind) -> Result<Snapshot, Error> {
        let template = self.catalog.template(&actor.template, &actor.template_uid).ok_or_else(|| {
            Error::new(Reason::NotFound, "the template of the actor is gone")
                .on(format!("actortemplate/{}", actor.template))
        })?;
        let snapshots = &template.value.resource.spec.snapshots_config;
        let scope = match kind {
            _ if name.atespace == GOLDEN_ATESPACE => self.golden_scope(&seat.sandbox),
            Kind::Pause => snapshots.on_pause,
            Kind::Files => Scope::Data,
            _ => snapshots.on_commit,
        };
        let target = match kind {
            Kind::Pause => CaptureTarget::Local,
            _ => CaptureTarget::External { location: snapshots.location.clone() },
        };
        let timeout = self.options.capture_timeout;
        let base = self.base_for(actor, seat, &template.value).filter(|_| scope == Scope::Full);
        let capture = Capture {
            worker: seat.worker.clone(),
            actor: ActorIdentity { name: name.clone(), uid: actor.uid.clone() },
            activation: actor.activation,
            generation: actor.last_generation,
            scope,
            parent: seat.parent.clone(),
            base: base.as_ref().map(Base::reference),
            target,
            timeout,
        };
        let call = async { step!("suspend.capture", self.node.capture(again!(capture)), repeatable) };
        let captured = tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| {
            Err(Error::new(Reason::DeadlineExceeded, format!("the snapshot was not written within {timeout:?}")))
        })?;
        let offered = base.as_ref().map(|b| &b.manifest);
        verify::captured(&captured, &actor.uid, actor.activation, actor.last_generation, offered)?;
        Ok(self.snapshot_of(actor, seat, scope, base, captured))
    }

    /// What a snapshot of this activation may rest on: the golden one it began from, or the base of its own one it
    /// began from. One that began from a whole snapshot of its own writes a whole one: nothing else keeps that.
    fn base_for(&self, actor: &ActorRecord, seat: &Seat, template: &TemplateRecord) -> Option<Base> {
        let parent = seat.parent.as_ref()?;
        let revision = self.catalog.revisions.get(&seat.sandbox)?;
        if !revision.value.capabilities.iter().any(|c| c == capability::SNAPSHOT_BASE) {
            return None;
        }
        match actor.snapshot.iter().chain(&actor.fallback).find(|s| s.manifest == *parent) {
            Some(own) => own.base.clone(),
            None => template.goldens().find(|g| g.manifest == *parent)?.as_base(),
        }
    }

    /// Everybody starts from the golden one, so it holds all that the class can keep.
    fn golden_scope(&self, sandbox: &ConfigKey) -> Scope {
        let revision = self.catalog.revisions.get(sandbox);
        revision.map_or(Scope::Full, |r| capability::golden_scope(&r.value.capabilities))
    }

    /// The capture failed: the actor goes on, if it still can.
    async fn run_on(self: &Arc<Self>, name: &ActorName, actor: Stored<ActorRecord>, seat: &Seat, e: Error) -> Error {
        let e = e.on(format!("actor/{name}"));
        let activation = actor.value.activation;
        let thawed = if matches!(e.reason, Reason::WorkerLost | Reason::ActorExited) {
            Err(e.clone())
        } else {
            let generation = actor.value.last_generation;
            let (worker, uid) = (&seat.worker, &actor.value.uid);
            let thaw = async { step!("suspend.thaw", self.node.thaw(worker, uid, activation, generation), repeatable) };
            let limit = self.options.release_timeout;
            tokio::time::timeout(limit, thaw).await.unwrap_or_else(|_| {
                Err(Error::new(Reason::DeadlineExceeded, format!("thaw took longer than {limit:?}")))
            })
        };
        if let Err(thaw) = thawed {
            tracing::warn!(actor = %name, error = %thaw, "actor could not go on after a failed capture");
            let why = format!("its snapshot failed ({}) and it could not go on ({})", e.message, thaw.message);
            if self.put_to_rest(name, actor, e.reason.as_str(), &why).await.is_err() {
                self.recover_soon(name);
            }
            return e;
        }
        let mut record = actor.value;
        record.enter(Phase::Running, None);
        record.tell(e.reason.as_str(), format!("could not be suspended and runs on: {}", e.message));
        let running = Stored { version: actor.version, value: record };
        let record = running.value.clone();
        match step!("suspend.run-on", self.write(name, actor.version, record, Transaction::new())) {
            Ok(written) => self.reopen(name, &written.value),
            // Nothing was written, and may not be for long; the actor serves meanwhile.
            Err(full) if full.reason == Reason::DiskFull => {
                self.show(name, &running);
                self.reopen(name, &running.value);
                self.recover_soon(name);
            }
            Err(_) => self.recover_soon(name),
        }
        e
    }

    async fn record_captured(
        self: &Arc<Self>,
        name: &ActorName,
        actor: Stored<ActorRecord>,
        seat: &Seat,
        kind: Kind,
        snapshot: Snapshot,
    ) -> Result<Stored<ActorRecord>, Error> {
        let activation = actor.value.activation;
        let mut actor = actor;
        let mut attempt = 1;
        let (written, old) = loop {
            let (record, tx, old) = self.flip(name, actor.value.clone(), kind, snapshot.clone())?;
            match step!("suspend.flip", self.write(name, actor.version, record, tx)) {
                Ok(written) => break (written, old),
                Err(e) if e.reason == Reason::Unavailable && attempt < FLIP_ATTEMPTS => attempt += 1,
                // A write of the phase it is in, given up before, has come to be after all.
                Err(e) if e.reason == Reason::Conflict && attempt < FLIP_ATTEMPTS => {
                    match self.db.find_actor(name).await {
                        Ok(Some(now)) if is_same(&now.value, &actor.value) => actor.version = now.version,
                        _ => return self.flip_failed(name, actor, seat, snapshot, &old, e).await,
                    }
                    attempt += 1;
                }
                // The store looks for room before it begins, so nothing was written and nothing will be.
                Err(e) if e.reason == Reason::DiskFull && attempt == 1 => {
                    return Err(self.run_on(name, actor, seat, e).await);
                }
                Err(e) => return self.flip_failed(name, actor, seat, snapshot, &old, e).await,
            }
        };
        self.catalog_platform(seat, written.version);
        self.garbage.add(&old);
        self.clean(&seat.worker, &written.value.uid, activation).await;
        Ok(written)
    }

    fn snapshot_of(
        &self,
        actor: &ActorRecord,
        seat: &Seat,
        scope: Scope,
        base: Option<Base>,
        captured: Captured,
    ) -> Snapshot {
        Snapshot {
            manifest: captured.manifest,
            scope,
            location: match captured.location {
                SnapshotLocation::Local { node } => Location::Node(node),
                SnapshotLocation::External { prefix } => Location::Url(prefix),
            },
            generation: actor.last_generation,
            sandbox: seat.sandbox.clone(),
            platform: seat.platform.clone(),
            size: captured.size,
            created_ms: now_ms(),
            base: base.filter(|_| captured.needs_base),
            quarantined: None,
        }
    }

    /// The one transaction that makes a generation current. It holds only if the actor is as this activation
    /// wrote it (I1).
    fn flip(
        &self,
        name: &ActorName,
        mut record: ActorRecord,
        kind: Kind,
        snapshot: Snapshot,
    ) -> Result<(ActorRecord, Transaction, Vec<Snapshot>), Error> {
        let index = SnapshotRecord {
            actor: name.clone(),
            actor_uid: record.uid.clone(),
            template: record.template.clone(),
            snapshot: snapshot.clone(),
        };
        let mut tx = Transaction::new()
            .put(keys::snapshot(&snapshot.manifest), pack(&index)?)
            .put(keys::by_config(&snapshot.sandbox, &snapshot.manifest), &b""[..])
            .delete(keys::busy(name));
        if let Some(base) = &snapshot.base {
            tx = tx.put(keys::by_base(&base.manifest, &snapshot.manifest), &b""[..]);
            // The entry of a snapshot before this one has kept it until now; otherwise it must not be leaving.
            let kept = |s: &Snapshot| s.base.as_ref().is_some_and(|b| b.manifest == base.manifest);
            if !record.snapshot.iter().chain(&record.fallback).any(kept) {
                tx = tx.check(keys::snapshot(&base.manifest), Expect::Present);
            }
        }
        if let Some(seat) = &record.seat
            && self.catalog.platforms.get(&seat.platform).is_none()
            && let Some(worker) = self.scheduler.worker(&seat.worker)
        {
            tx = tx.put(keys::platform(&seat.platform), to_json(&worker.report.platform)?);
        }
        tx = usage::note(tx, name, record.snapshot.as_ref(), Some(&snapshot));
        // A node-local snapshot dies with its node: the last one in object storage is kept beside it.
        let previous = record.snapshot.take();
        let is_local = |s: &Snapshot| matches!(s.location, Location::Node(_));
        let old: Vec<Snapshot> = if !is_local(&snapshot) {
            previous.into_iter().chain(record.fallback.take()).collect()
        } else if previous.as_ref().is_some_and(|p| !is_local(p)) {
            std::mem::replace(&mut record.fallback, previous).into_iter().collect()
        } else {
            previous.into_iter().collect()
        };
        for old in &old {
            tx = discard(tx, old)?;
        }
        record.snapshot = Some(snapshot);
        record.enter(if kind == Kind::Pause { Phase::Paused } else { Phase::Suspended }, None);
        record.seat = None;
        record.message.clear();
        Ok((record, tx, old))
    }

    /// Nothing was flipped, or nobody knows, or it is still going to be. Only a later write of the actor rules that out,
    /// so the actor is not thawed, and what was captured is not given up, before there is one (I2).
    async fn flip_failed(
        self: &Arc<Self>,
        name: &ActorName,
        actor: Stored<ActorRecord>,
        seat: &Seat,
        snapshot: Snapshot,
        old: &[Snapshot],
        e: Error,
    ) -> Result<Stored<ActorRecord>, Error> {
        let activation = actor.value.activation;
        let same = actor.value.clone();
        if let Ok(unflipped) = step!("suspend.unflip", self.write(name, actor.version, same, Transaction::new())) {
            return Err(self.run_on(name, unflipped, seat, e).await);
        }
        if let Ok(Some(now)) = self.db.find_actor(name).await
            && now.value.snapshot.as_ref().is_some_and(|s| s.manifest == snapshot.manifest)
        {
            self.garbage.add(old);
            self.clean(&seat.worker, &now.value.uid, activation).await;
            return Ok(now);
        }
        // Fenced, or the store does not answer.
        self.clean(&seat.worker, &actor.value.uid, activation).await;
        self.give_up_soon(name, snapshot);
        Err(e.on(format!("actor/{name}")))
    }

    /// Recovers the actor, which settles what is current; what was captured is garbage if it is not that.
    fn give_up_soon(self: &Arc<Self>, name: &ActorName, captured: Snapshot) {
        let (core, name) = (self.clone(), name.clone());
        self.spawn(async move {
            core.recover_patiently(&name).await;
            let discard = || core.discard_unused(&captured);
            core.insist(&name, "a void snapshot could not be given up yet", discard).await;
        });
    }

    async fn discard_unused(&self, captured: &Snapshot) -> Result<(), Error> {
        let tx = Transaction::new()
            .check(keys::snapshot(&captured.manifest), Expect::Absent)
            .put(keys::garbage(&captured.manifest), pack(&captured.garbage())?);
        match step!("suspend.disown", self.db.commit(tx)) {
            Ok(_) => self.garbage.add(std::slice::from_ref(captured)),
            // It is indexed: somebody's.
            Err(e) if e.reason == Reason::Conflict => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn catalog_platform(&self, seat: &Seat, version: u64) {
        if self.catalog.platforms.get(&seat.platform).is_none()
            && let Some(worker) = self.scheduler.worker(&seat.worker)
        {
            self.catalog.platforms.set(seat.platform.clone(), version, worker.report.platform.clone());
        }
    }
}

/// The activation that was captured is what is recorded.
fn is_same(recorded: &ActorRecord, captured: &ActorRecord) -> bool {
    !recorded.phase.is_at_rest() && recorded.uid == captured.uid && recorded.activation == captured.activation
}

/// Takes a snapshot out of the indexes and puts it into the deletion queue.
pub(crate) fn discard(mut tx: Transaction, old: &Snapshot) -> Result<Transaction, Error> {
    if let Some(base) = &old.base {
        tx = tx.delete(keys::by_base(&base.manifest, &old.manifest));
    }
    Ok(tx
        .delete(keys::snapshot(&old.manifest))
        .delete(keys::by_config(&old.sandbox, &old.manifest))
        .put(keys::garbage(&old.manifest), pack(&old.garbage())?))
}
