//! A machine in use: booted or restored, woken, frozen, saved.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ate_api::{Error, Reason};
use ate_guest::protocol::{self, Answer, ENTROPY, Request, Wake};
use ateom::{
    Checkpoint, Checkpointed, Snapshot, data,
    driver::{Activation, Scope, SnapshotFile},
    identity, readiness,
    steps::Steps,
};
use tokio::time::Instant;

use crate::{
    error::{blocking, failed, io},
    guest::{Guest, pieces},
    logs::{ContainerEnd, Logs},
    memory::{self, Memory},
    plan::Plan,
    record::{self, Record},
    vmm::Vmm,
};

/// The agent answers within milliseconds, once its machine gets to run at all.
const AGENT: Duration = Duration::from_secs(20);
/// The guest's kernel boots within seconds; on a busy machine without hardware support, within tens.
const BOOT: Duration = Duration::from_secs(120);
/// Durable directories, through the agent.
const ARCHIVE: Duration = Duration::from_secs(10 * 60);

pub(crate) struct Machine {
    pub(crate) vmm: Vmm,
    guest: Guest,
    pub(crate) logs: Logs,
    plan: Plan,
    record: Record,
    /// What its memory is mapped from; none after a boot.
    base: Option<Snapshot>,
    /// The VMM does not execute the guest.
    stopped: bool,
}

impl Machine {
    /// From the images: the kernel boots, the agent makes everything ready, nothing of the actor runs yet.
    pub(crate) async fn boot(
        mut vmm: Vmm,
        plan: &Plan,
        scratch: &Path,
        tsc_khz: u64,
        resolv_conf: &[u8],
        activation: &Activation,
    ) -> Result<Self, Error> {
        let bytes = plan.memory_bytes();
        let zero = tempfile::NamedTempFile::new_in(scratch).map_err(io("create the memory file"))?;
        zero.as_file().set_len(bytes).map_err(io("create the memory file"))?;
        vmm.bind(zero.path(), bytes, &plan.disks()).await?;
        // The machine has it; nobody else needs its name. Without a machine it goes as well.
        zero.close().map_err(io("remove the memory file"))?;
        let mut machine = Self::take(vmm, plan, Record::of(plan, tsc_khz), None)?;
        machine.vmm.go().await?;
        machine.stopped = false;
        match machine.guest.ask(&Request::Hello, BOOT).await {
            Ok(Answer::Hello { protocol: protocol::VERSION, .. }) => {}
            Ok(Answer::Hello { protocol, .. }) => {
                let version = protocol::VERSION;
                return Err(failed(format!("the guest agent speaks protocol {protocol}, needed is {version}")));
            }
            Ok(other) => return Err(unexpected(&other)),
            Err(e) => return Err(machine.vmm.explain(e).await),
        }
        let boot = plan.boot(resolv_conf, wake(Some(activation))?);
        if let Err(e) = machine.guest.ask(&Request::Boot(Box::new(boot)), BOOT).await {
            return Err(machine.vmm.explain(e).await);
        }
        let archive = &activation.data_archive;
        if !archive.is_empty() {
            machine.unpack(PathBuf::from(archive)).await?;
        }
        Ok(machine)
    }

    /// From a snapshot, into a machine that is bound to the memory of `base`: that of the snapshot itself, or of what it
    /// was saved against.
    pub(crate) async fn restore(
        mut vmm: Vmm,
        plan: &Plan,
        record: Record,
        snapshot: &Snapshot,
        base: Snapshot,
    ) -> Result<Self, Error> {
        if base != *snapshot {
            let pages = snapshot.dir.join(record::PAGES);
            let memory = vmm.take_memory()?;
            vmm.put_memory(blocking(move || memory::load(&memory, &pages).map(|_| memory)).await?);
        }
        let dir = snapshot.dir.clone();
        let devices = blocking(move || record::devices(&dir)).await?;
        vmm.load(&devices).await?;
        Self::take(vmm, plan, record, Some(base))
    }

    fn take(mut vmm: Vmm, plan: &Plan, record: Record, base: Option<Snapshot>) -> Result<Self, Error> {
        let taken = || failed("the machine's channels are in use");
        let guest = Guest::new(vmm.control.take().ok_or_else(taken)?);
        let log = vmm.log.take().ok_or_else(taken)?;
        let logs = Logs::start(log, &plan.workload).map_err(io("open the actor's output"))?;
        Ok(Machine { vmm, guest, logs, plan: plan.clone(), record, base, stopped: true })
    }

    async fn unpack(&mut self, archive: PathBuf) -> Result<(), Error> {
        let (tx, rx) = pieces();
        let read = blocking(move || {
            let mut reader = data::open(&archive).map_err(data::error)?;
            let mut total = 0u64;
            loop {
                let mut piece = vec![0; protocol::MAX_DATA];
                let n = std::io::Read::read(&mut reader, &mut piece)
                    .map_err(|e| data::error(data::DataError::Unpack(e)))?;
                total += n as u64;
                if total > data::MAX_BYTES {
                    let why = format!("more than {} bytes", data::MAX_BYTES);
                    return Err(data::error(data::DataError::Refused(why)));
                }
                piece.truncate(n);
                if n == 0 || tx.blocking_send(piece).is_err() {
                    return Ok(());
                }
            }
        });
        let (read, sent) = tokio::join!(read, self.guest.send(rx, ARCHIVE));
        read?;
        sent.map_err(|e| Error::new(Reason::ArchiveInvalid, e.message))
    }

    /// Starts the containers of a booted machine and waits until they are ready.
    pub(crate) async fn start(&mut self, activation: &Activation, steps: &mut Steps) -> Result<(), Error> {
        self.logs.assign(activation);
        if let Err(e) = self.guest.ask(&Request::Start, BOOT).await {
            return Err(self.vmm.explain(e).await);
        }
        steps.mark("start");
        self.ready().await?;
        steps.mark("ready");
        Ok(())
    }

    /// Lets a restored machine go on as this activation: time, identity and entropy first, then its containers.
    /// Without an activation, as nobody: to warm it up.
    pub(crate) async fn go(&mut self, activation: Option<&Activation>, steps: &mut Steps) -> Result<(), Error> {
        if let Some(activation) = activation {
            self.logs.assign(activation);
        }
        // The request waits in the port until the guest runs: it is the first thing it sees.
        let deadline = Instant::now() + AGENT;
        self.guest.tell(&Request::Wake(wake(activation)?), deadline).await?;
        self.vmm.go().await?;
        self.stopped = false;
        steps.mark("go");
        // Containers are still frozen, so a probe that arrives early waits for them.
        let Machine { guest, logs, vmm, plan, .. } = self;
        let containers = &plan.workload.containers;
        let (awake, ready) = (guest.answer(deadline), readiness::all_ready(containers, readiness::Way::There));
        tokio::pin!(awake, ready);
        let (mut is_awake, mut is_ready) = (false, !readiness::asks(containers));
        while !(is_awake && is_ready) {
            tokio::select! {
                answer = &mut awake, if !is_awake => {
                    match answer? {
                        Answer::Awake => is_awake = true,
                        other => return Err(unexpected(&other)),
                    }
                    steps.mark("awake");
                }
                () = &mut ready, if !is_ready => is_ready = true,
                end = logs.ended() => return Err(exited_early(end)),
                exit = vmm.ended() => return Err(vmm.explain(failed(format!("the machine ended: {exit}"))).await),
            }
        }
        steps.mark("ready");
        Ok(())
    }

    async fn ready(&mut self) -> Result<(), Error> {
        let Machine { logs, vmm, plan, .. } = self;
        tokio::select! {
            () = readiness::all_ready(&plan.workload.containers, readiness::Way::There) => Ok(()),
            end = logs.ended() => Err(exited_early(end)),
            exit = vmm.ended() => Err(vmm.explain(failed(format!("the machine ended: {exit}"))).await),
        }
    }

    /// Stops containers and machine: what a standby is.
    pub(crate) async fn hold(&mut self) -> Result<(), Error> {
        self.freeze().await?;
        self.vmm.stop().await?;
        self.stopped = true;
        Ok(())
    }

    async fn freeze(&mut self) -> Result<(), Error> {
        match self.guest.ask(&Request::Freeze, AGENT).await? {
            Answer::Frozen => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Freezes and writes. On an error the actor runs on, if it still can, and the directory is empty.
    pub(crate) async fn checkpoint(&mut self, what: &Checkpoint) -> Result<Checkpointed, Error> {
        let written = async {
            self.freeze().await?;
            match what.scope {
                Scope::Data => self.save_data(&what.dir).await,
                _ => self.save(&what.dir, what.may_need_base).await,
            }
        };
        match written.await {
            Ok(written) => Ok(written),
            Err(e) => {
                for entry in std::fs::read_dir(&what.dir).into_iter().flatten().flatten() {
                    let _ = std::fs::remove_file(entry.path());
                }
                if let Err(thaw) = self.thaw().await {
                    tracing::error!("the actor cannot go on after a failed snapshot: {thaw}");
                }
                Err(self.vmm.explain(e).await)
            }
        }
    }

    async fn save(&mut self, dir: &Path, may_need_base: bool) -> Result<Checkpointed, Error> {
        self.logs.hold().await;
        self.vmm.stop().await?;
        self.stopped = true;
        let devices = self.vmm.save().await?;
        std::fs::write(dir.join(record::DEVICES), devices).map_err(io("write the devices' state"))?;
        self.record.write(dir)?;
        let needs_base = may_need_base && self.base.is_some();
        let (memory, untouched) = (self.vmm.take_memory()?, self.base.is_none());
        let (file, media_type) =
            if needs_base { (record::PAGES, record::PAGES_TYPE) } else { (record::MEMORY, record::MEMORY_TYPE) };
        let path = dir.join(file);
        let work = move || -> (Memory, Result<memory::Saved, Error>) {
            let saved = match needs_base {
                true => memory::save_changed(&memory, &path),
                false => memory::save_all(&memory, &path, untouched),
            };
            (memory, saved)
        };
        let (memory, saved) = blocking(move || Ok(work())).await?;
        self.vmm.put_memory(memory);
        tracing::info!(pages = saved?.pages, needs_base, "memory saved");
        let named = |name: &str, media_type: &str| SnapshotFile { name: name.into(), media_type: media_type.into() };
        let files = vec![
            named(record::DEVICES, record::DEVICES_TYPE),
            named(record::RECORD, record::RECORD_TYPE),
            named(file, media_type),
        ];
        Ok(Checkpointed { files, needs_base })
    }

    async fn save_data(&mut self, dir: &Path) -> Result<Checkpointed, Error> {
        if self.plan.workload.volumes.is_empty() {
            return Ok(Checkpointed::default());
        }
        let (tx, mut rx) = pieces();
        let archive = dir.join(data::ARCHIVE);
        let write = blocking(move || {
            let mut writer = data::create(&archive).map_err(data::error)?;
            let wrap = |cause| data::error(data::DataError::Pack { path: archive.clone(), cause });
            while let Some(piece) = rx.blocking_recv() {
                std::io::Write::write_all(&mut writer, &piece).map_err(wrap)?;
            }
            writer.finish().map(drop).map_err(wrap)
        });
        let (received, written) = tokio::join!(self.guest.receive(tx, data::MAX_BYTES, ARCHIVE), write);
        written?;
        received?;
        let file = SnapshotFile { name: data::ARCHIVE.into(), media_type: data::MEDIA_TYPE.into() };
        Ok(Checkpointed { files: vec![file], needs_base: false })
    }

    /// Lets a frozen machine go on as it was.
    pub(crate) async fn thaw(&mut self) -> Result<(), Error> {
        self.logs.release();
        if std::mem::take(&mut self.stopped) {
            self.vmm.go().await?;
        }
        match self.guest.ask(&Request::Wake(wake(None)?), AGENT).await? {
            Answer::Awake => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Ends it. Everything of it is gone then.
    pub(crate) async fn end(self) -> Result<(), Error> {
        let killed = self.vmm.kill().await;
        self.logs.finish().await;
        killed
    }

    /// What to say when the deadline has come.
    pub(crate) fn not_ready(&self) -> Error {
        readiness::not_ready(&self.plan.workload.containers)
    }
}

/// What a machine must be told whenever it goes on.
fn wake(activation: Option<&Activation>) -> Result<Wake, Error> {
    let mut entropy = [0; ENTROPY];
    let got = rustix::rand::getrandom(&mut entropy, rustix::rand::GetRandomFlags::empty());
    if got.map_err(|e| io("draw random numbers")(e.into()))? != ENTROPY {
        return Err(failed("too few random numbers"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| failed("this host's clock is before 1970"))?;
    let identity = activation.map(identity::files).into_iter().flatten();
    Ok(Wake {
        now_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        entropy,
        identity: identity.map(|(name, content)| (name.to_owned(), content)).collect(),
    })
}

fn unexpected(answer: &Answer) -> Error {
    failed(format!("the guest agent gave an answer to another question: {answer:?}"))
}

fn exited_early(end: ContainerEnd) -> Error {
    Error::new(Reason::ActorExited, format!("the actor ended before it was ready ({})", said(end)))
}

/// How a container ended, in words.
pub(crate) fn said(end: ContainerEnd) -> String {
    match end {
        ContainerEnd::Code(code) => format!("exit code {code}"),
        ContainerEnd::Signal(signal) => format!("signal {signal}"),
    }
}
