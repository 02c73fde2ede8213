//! The driver of class gvisor: at most one sandbox, prepared or in use.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ate_api::{Error, Reason};
use ate_failpoint::step;
use ateom::{
    Checkpoint, Checkpointed, Driver, Ended, Info, Place, Preparation, Probed, Snapshot, Source, Start, config, data,
    driver::{self as pb, Workload},
    network::Netns,
    program::Program,
    readiness,
    steps::Steps,
};

use crate::{
    binary::Binary,
    config::Config,
    describe::{self, ASSET},
    runsc::Runsc,
    sandbox::{Build, Sandbox},
};

/// The kernel frees the memory of a large sandbox before it reports its end.
const KILL: Duration = Duration::from_secs(30);
/// To bring back an actor that its own snapshot ended.
const THAW: Duration = Duration::from_secs(25);
/// On our own tmpfs: short, because runsc's control socket must fit into 108 bytes.
const RUN: &str = "/run/ateom";

pub(crate) struct GvisorDriver {
    place: Place,
    /// By digest: a binary is opened, hashed and asked once.
    binaries: HashMap<String, (Arc<Program>, Arc<Binary>)>,
    sandbox: Option<Sandbox>,
    /// What runs in it.
    last: Option<Start>,
    /// Namespaces whose sandbox is gone; removed when there is time, but before the next one is connected.
    used: Vec<Netns>,
    count: u64,
}

impl GvisorDriver {
    pub(crate) fn new(place: Place) -> Self {
        GvisorDriver { place, binaries: HashMap::new(), sandbox: None, last: None, used: Vec::new(), count: 0 }
    }

    async fn binary(&mut self, sandbox: &pb::Sandbox) -> Result<(Arc<Program>, Arc<Binary>), Error> {
        let (path, digest) = config::asset(sandbox, ASSET)?;
        if let Some(known) = self.binaries.get(digest) {
            return Ok(known.clone());
        }
        let program = Arc::new(pinned(path, digest.to_owned()).await?);
        let binary = Arc::new(Binary::ask(&self.place.processes, &program).await?);
        self.binaries.insert(digest.to_owned(), (program.clone(), binary.clone()));
        Ok((program, binary))
    }

    async fn build(&mut self, sandbox: &pb::Sandbox, workload: &Workload) -> Result<(), Error> {
        let config = config::of::<Config>(sandbox)?;
        let (program, binary) = self.binary(sandbox).await?;
        if workload.containers.len() > 1 && !binary.is_modern() {
            let message = format!("runsc {} cannot save or restore more than one container", binary.version);
            return Err(Error::new(Reason::MissingCapability, message)
                .on(format!("sandboxconfig/{}", sandbox.config_name))
                .hint("use a SandboxConfig with a newer runsc, or one container"));
        }
        self.remove_used().await;
        self.count += 1;
        let id = format!("s{}", self.count);
        let run = Path::new(RUN).join(&id);
        let disk = self.place.scratch.join(&id);
        for dir in [&run, &disk, &self.trash()] {
            fs::create_dir_all(dir)
                .map_err(|e| Error::new(Reason::SandboxFailed, format!("cannot create {}: {e}", dir.display())))?;
        }
        let runsc = Runsc::new(program, binary, &config, &run, &disk, self.place.processes.clone())?;
        let netns = self.place.network.take().await?;
        let resolv_conf = self.place.resolv_conf.clone();
        let sandbox = self.sandbox.insert(Sandbox::new(runsc, run, disk, netns));
        sandbox.build(&Build { id: &id, workload, resolv_conf: &resolv_conf })
    }

    fn trash(&self) -> PathBuf {
        self.place.scratch.join("trash")
    }

    async fn remove_used(&mut self) {
        for netns in std::mem::take(&mut self.used) {
            if let Err(e) = self.place.network.remove(netns).await {
                tracing::warn!("{e}");
            }
        }
    }

    fn sandbox(&mut self) -> Result<&mut Sandbox, Error> {
        self.sandbox.as_mut().ok_or_else(|| Error::new(Reason::WrongState, "there is no sandbox"))
    }
}

/// Hashing takes a tenth of a second.
async fn pinned(path: PathBuf, digest: String) -> Result<Program, Error> {
    let opened = tokio::task::spawn_blocking(move || Program::pinned(&path, &digest)).await;
    opened.unwrap_or_else(|e| Err(Error::new(Reason::Internal, format!("opening runsc failed: {e}"))))
}

#[async_trait]
impl Driver for GvisorDriver {
    fn info(&self) -> Info {
        Info::of(&describe::descriptor())
    }

    async fn probe(&mut self, sandbox: &pb::Sandbox) -> Result<Probed, Error> {
        let config = config::of::<Config>(sandbox)?;
        let (_, binary) = self.binary(sandbox).await?;
        binary.capabilities(&config)
    }

    async fn prepare(&mut self, preparation: &Preparation) -> Result<(), Error> {
        self.build(&preparation.sandbox, &preparation.workload).await?;
        let processes = self.place.processes.clone();
        let sandbox = self.sandbox()?;
        if sandbox.can_wait() { step!("gvisor.create", sandbox.create(&processes)) } else { Ok(()) }
    }

    async fn start(&mut self, start: &Start, steps: &mut Steps) -> Result<bool, Error> {
        let prepared = self.sandbox.is_some();
        let processes = self.place.processes.clone();
        if !prepared {
            self.build(&start.sandbox, &start.workload).await?;
            steps.mark("build");
        }
        let sandbox = self.sandbox()?;
        let (image, archive) = match &start.source {
            Source::Snapshot { snapshot: Snapshot { dir, .. }, .. } => {
                (Some(dir.as_path()), Some(dir.join(data::ARCHIVE)).filter(|a| a.exists()))
            }
            Source::Boot => {
                let archive = &start.activation.data_archive;
                (None, Some(PathBuf::from(archive)).filter(|_| !archive.is_empty()))
            }
        };
        step!("gvisor.admit", sandbox.admit(&start.activation, archive))?;
        steps.mark("admit");
        if !prepared && sandbox.can_wait() {
            sandbox.create(&processes).await?;
            steps.mark("create");
        }
        let go = async { step!("gvisor.go", sandbox.go(image, &processes, steps)) };
        match tokio::time::timeout_at(start.deadline, go).await {
            Ok(result) => result?,
            Err(_) => return Err(readiness::not_ready(&sandbox.containers())),
        }
        self.last = Some(start.clone());
        Ok(prepared)
    }

    async fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<Checkpointed, Error> {
        let files = self.sandbox()?.checkpoint(&checkpoint.dir, checkpoint.scope).await?;
        Ok(Checkpointed { files, needs_base: false })
    }

    async fn thaw(&mut self) -> Result<(), Error> {
        let Some(image) = self.sandbox()?.ended_in() else { return self.sandbox()?.thaw().await };
        let Some(last) = self.last.clone() else { return Err(Error::new(Reason::WrongState, "nothing was started")) };
        self.reset().await?;
        let deadline = tokio::time::Instant::now() + THAW;
        let snapshot = Snapshot { digest: String::new(), dir: image };
        let again = Start { source: Source::Snapshot { snapshot, base: None }, deadline, ..last };
        self.start(&again, &mut Steps::default()).await.map(drop)
    }

    async fn reset(&mut self) -> Result<(), Error> {
        let killed = step!("gvisor.kill", self.place.processes.kill_all(KILL), plain);
        killed.map_err(|e| Error::new(Reason::SandboxFailed, format!("the sandbox's processes {e}")))?;
        if let Some(sandbox) = self.sandbox.take() {
            let netns = step!("gvisor.remove", sandbox.remove(&self.trash()), plain);
            self.used.push(netns);
        }
        Ok(())
    }

    async fn tidy(&mut self) {
        self.remove_used().await;
        if let Err(e) = self.place.network.make_spare().await {
            tracing::warn!("{e}");
        }
    }

    async fn ended(&mut self) -> Ended {
        let exit = match &mut self.sandbox {
            Some(sandbox) => sandbox.ended().await,
            None => std::future::pending().await,
        };
        Ended::by(exit)
    }

    fn sandbox_pid(&self) -> Option<u32> {
        self.sandbox.as_ref()?.pid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned())
    }
}
