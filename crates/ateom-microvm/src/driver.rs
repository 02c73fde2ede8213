//! The driver of class microvm: at most one machine in use, and machines that wait.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use ate_api::{Error, Reason};
use ateom::{
    Checkpoint, Checkpointed, Driver, Ended, Info, Place, Preparation, Probed, Snapshot, Source, Start, config,
    driver::{Sandbox, Workload},
    steps::Steps,
};

use crate::{
    binary::Binary,
    describe::{CLASS, DRIVER, INITRD, KERNEL, VMM},
    error::{blocking, failed},
    idle::{Golden, Idle, Taken, network},
    logs::ContainerEnd,
    machine::{self, Machine},
    plan::Plan,
    record::{MEMORY, Record},
    seen::Seen,
    tsc,
    vmm::{Vmm, Words},
};

/// The kernel frees the memory of a large machine before it reports its end.
const KILL: Duration = Duration::from_secs(30);
/// A golden snapshot that takes longer to get going is not worth waiting for ahead of time.
const STANDBY: Duration = Duration::from_secs(20);
/// Times that a standby goes on and is held again. Much of what it runs after it was held is new to it the first time.
const WARM_UPS: usize = 2;

pub(crate) struct MicrovmDriver {
    place: Place,
    /// By digests of VMM, kernel and configuration: each is asked once.
    binaries: HashMap<[String; 3], Arc<Binary>>,
    idle: Idle,
    machine: Option<Machine>,
    /// Of the machine that was launched last: what there is to say of one that did not come up.
    words: Words,
    /// Something was begun and has not ended well: processes may be left that nobody holds.
    unsure: bool,
}

impl MicrovmDriver {
    pub(crate) fn new(place: Place) -> Self {
        // Takes a moment, and nobody waits for it yet.
        tokio::task::spawn_blocking(tsc::khz);
        MicrovmDriver {
            place,
            binaries: HashMap::new(),
            idle: Idle::default(),
            machine: None,
            words: Words::default(),
            unsure: false,
        }
    }

    async fn binary(&mut self, sandbox: &Sandbox) -> Result<Arc<Binary>, Error> {
        let digest = |name| config::asset(sandbox, name).map(|(_, digest)| digest.to_owned());
        let key = [digest(VMM)?, digest(KERNEL)?, sandbox.config_digest.clone()];
        if let Some(binary) = self.binaries.get(&key) {
            return Ok(binary.clone());
        }
        let binary = Arc::new(Binary::ask(&self.place.processes, sandbox).await?);
        self.binaries.insert(key, binary.clone());
        Ok(binary)
    }

    async fn plan(&mut self, sandbox: &Sandbox, workload: &Workload) -> Result<Plan, Error> {
        let path = |name| config::asset(sandbox, name).map(|(path, _)| path);
        // First, because asking the binary takes its time.
        let seen = Seen::of(&[&path(VMM)?, &path(KERNEL)?, &path(INITRD)?])?;
        Plan::new(sandbox, workload, self.binary(sandbox).await?, seen)
    }

    /// A machine without contents. `boot`: for the kernel, at this rate of the time stamp counter.
    async fn launch(&mut self, plan: &Plan, boot: Option<u64>) -> Result<Vmm, Error> {
        let tap = self.place.network.tap().await.map_err(network)?;
        self.words = Words::default();
        let vmm = Vmm::launch(&plan.launch(boot)?, &self.place.processes, tap).await?;
        self.words = vmm.words();
        Ok(vmm)
    }

    /// A machine with memory and disks of the golden snapshot, and whether somebody had thought of it.
    async fn bound(&mut self, plan: &Plan, golden: &Golden) -> Result<(Vmm, bool), Error> {
        let (mut vmm, taken) = match self.idle.take(&plan.kind, golden) {
            Some((vmm, Taken::Bound)) => return Ok((vmm, true)),
            Some((vmm, Taken::Empty)) => (vmm, true),
            None => (self.launch(plan, None).await?, false),
        };
        vmm.bind(&golden.snapshot.dir.join(MEMORY), plan.memory_bytes(), &plan.disks()).await?;
        Ok((vmm, taken))
    }

    async fn prepare_all(&mut self, plan: &Plan, golden: Option<&Golden>, standby: bool) -> Result<(), Error> {
        self.idle.keep(&plan.kind, golden).await?;
        if let Some(golden) = golden {
            if standby && self.idle.standby.is_none() {
                match tokio::time::timeout(STANDBY, self.standby(plan, golden)).await {
                    Ok(Ok(machine)) => self.idle.standby = Some((golden.clone(), machine)),
                    // Waking works without; what was begun ends, the rest is made again.
                    Ok(Err(e)) => self.give_up_standby(plan, golden, &e).await?,
                    Err(_) => self.give_up_standby(plan, golden, &failed("it took too long")).await?,
                }
            }
            if self.idle.bound.is_none() {
                let (vmm, _) = self.bound(plan, golden).await?;
                self.idle.bound = Some((golden.clone(), vmm));
            }
        }
        if self.idle.empty.is_none() {
            self.idle.empty = Some(self.launch(plan, None).await?);
        }
        Ok(())
    }

    /// The golden snapshot, all but running.
    async fn standby(&mut self, plan: &Plan, golden: &Golden) -> Result<Machine, Error> {
        let snapshot = &golden.snapshot;
        let record = read_record(snapshot, plan).await?;
        let (vmm, _) = self.bound(plan, golden).await?;
        let mut machine = Machine::restore(vmm, plan, record, snapshot, snapshot.clone()).await?;
        self.place.network.connect(&machine.vmm.tap).await.map_err(network)?;
        for _ in 0..WARM_UPS {
            machine.go(None, &mut Steps::default()).await?;
            machine.hold().await?;
        }
        self.place.network.disconnect(&machine.vmm.tap).await.map_err(network)?;
        Ok(machine)
    }

    async fn give_up_standby(&mut self, plan: &Plan, golden: &Golden, e: &Error) -> Result<(), Error> {
        tracing::warn!("no standby: {e}");
        self.kill_all().await?;
        self.idle.keep(&plan.kind, Some(golden)).await
    }

    async fn boot(&mut self, start: &Start, plan: &Plan, steps: &mut Steps) -> Result<bool, Error> {
        let tsc_khz = blocking(|| Ok(tsc::khz())).await?;
        let vmm = self.launch(plan, Some(tsc_khz)).await?;
        steps.mark("launch");
        self.place.network.connect(&vmm.tap).await.map_err(network)?;
        let Place { scratch, resolv_conf, .. } = &self.place;
        let machine = Machine::boot(vmm, plan, scratch, tsc_khz, resolv_conf, &start.activation).await?;
        steps.mark("boot");
        self.machine.insert(machine).start(&start.activation, steps).await?;
        Ok(false)
    }

    async fn restore(
        &mut self,
        start: &Start,
        plan: &Plan,
        (snapshot, base): (&Snapshot, Option<&Snapshot>),
        steps: &mut Steps,
    ) -> Result<bool, Error> {
        let golden = Golden::of(base.unwrap_or(snapshot), plan);
        let standby = match base {
            None => self.idle.take_standby(&plan.kind, &golden),
            Some(_) => None,
        };
        let (machine, prepared) = match standby {
            Some(machine) => (machine, true),
            None => {
                let record = read_record(snapshot, plan).await?;
                let (vmm, prepared) = self.bound(plan, &golden).await?;
                steps.mark("bind");
                let machine = Machine::restore(vmm, plan, record, snapshot, golden.snapshot).await?;
                steps.mark("load");
                (machine, prepared)
            }
        };
        self.place.network.connect(&machine.vmm.tap).await.map_err(network)?;
        steps.mark("connect");
        self.machine.insert(machine).go(Some(&start.activation), steps).await?;
        Ok(prepared)
    }

    async fn start_now(&mut self, start: &Start, steps: &mut Steps) -> Result<bool, Error> {
        let plan = self.plan(&start.sandbox, &start.workload).await?;
        let work = async {
            match &start.source {
                Source::Boot => self.boot(start, &plan, steps).await,
                Source::Snapshot { snapshot, base } => {
                    let from = (snapshot, base.as_ref());
                    let somebody_waited = !self.idle.is_empty();
                    match self.restore(start, &plan, from, steps).await {
                        // A machine that waited may have died a moment ago. Nothing of the actor has run yet.
                        Err(e) if somebody_waited && self.machine.is_none() && e.reason == Reason::SandboxFailed => {
                            tracing::warn!("a machine that waited was of no use: {e}");
                            self.kill_all().await?;
                            self.restore(start, &plan, from, steps).await
                        }
                        done => done,
                    }
                }
            }
        };
        match tokio::time::timeout_at(start.deadline, work).await {
            Ok(result) => result,
            Err(_) => Err(match &self.machine {
                Some(machine) => machine.not_ready(),
                None => {
                    let late = Error::new(Reason::DeadlineExceeded, "the machine did not come up in time");
                    self.words.add_to(late)
                }
            }),
        }
    }

    /// Every process here, whoever holds it.
    async fn kill_all(&mut self) -> Result<(), Error> {
        let killed = self.place.processes.kill_all(KILL).await;
        killed.map_err(|e| failed(format!("the machines' processes {e}")))?;
        self.idle.end().await
    }

    fn machine(&mut self) -> Result<&mut Machine, Error> {
        self.machine.as_mut().ok_or_else(|| Error::new(Reason::WrongState, "there is no machine"))
    }
}

/// The snapshot's record, if a machine of this plan can go on from it.
async fn read_record(snapshot: &Snapshot, plan: &Plan) -> Result<Record, Error> {
    let (dir, plan) = (snapshot.dir.clone(), plan.clone());
    blocking(move || {
        let record = Record::read(&dir)?;
        record.check(&plan)?;
        Ok(record)
    })
    .await
}

#[async_trait]
impl Driver for MicrovmDriver {
    fn info(&self) -> Info {
        Info {
            sandbox_class: CLASS.into(),
            driver_name: DRIVER.into(),
            driver_version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    async fn probe(&mut self, sandbox: &Sandbox) -> Result<Probed, Error> {
        Ok(self.binary(sandbox).await?.probed())
    }

    async fn prepare(&mut self, preparation: &Preparation) -> Result<(), Error> {
        let Preparation { sandbox, workload, snapshot, standby } = preparation;
        let plan = self.plan(sandbox, workload).await?;
        let golden = snapshot.as_ref().map(|s| Golden::of(s, &plan));
        self.unsure = true;
        self.prepare_all(&plan, golden.as_ref(), *standby).await?;
        self.unsure = false;
        Ok(())
    }

    async fn start(&mut self, start: &Start, steps: &mut Steps) -> Result<bool, Error> {
        self.unsure = true;
        let prepared = self.start_now(start, steps).await?;
        self.unsure = false;
        Ok(prepared)
    }

    async fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<Checkpointed, Error> {
        self.machine()?.checkpoint(checkpoint).await
    }

    async fn thaw(&mut self) -> Result<(), Error> {
        self.machine()?.thaw().await
    }

    async fn reset(&mut self) -> Result<(), Error> {
        if self.unsure {
            self.kill_all().await?;
        }
        if let Some(machine) = self.machine.take() {
            machine.end().await?;
        }
        self.unsure = false;
        Ok(())
    }

    async fn tidy(&mut self) {}

    async fn ended(&mut self) -> Ended {
        let Some(machine) = &mut self.machine else { return std::future::pending().await };
        let Machine { vmm, logs, .. } = machine;
        let (kind, message) = tokio::select! {
            exit = vmm.ended() => {
                let e = vmm.explain(failed(format!("the machine ended: {exit}"))).await;
                ("killed", e.message)
            }
            end = logs.ended() => {
                let kind = if matches!(end, ContainerEnd::Signal(_)) { "killed" } else { "exited" };
                (kind, format!("the actor ended: {}", machine::said(end)))
            }
        };
        Ended { kind, message }
    }

    fn sandbox_pid(&self) -> Option<u32> {
        Some(self.machine.as_ref()?.vmm.pid())
    }
}
