//! The driver: at most one actor, booted from its images, with its durable directories as its only memory.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use async_trait::async_trait;
use ate_api::{Error, Reason};
use ateom::{
    Checkpoint, Checkpointed, Driver, Ended, Info, Place, Probed, Source, Start,
    cli::Class,
    config, data,
    driver::{Activation, Container, Sandbox, Scope},
    failed, identity,
    logs::ContainerLog,
    network::Netns,
    process::{self, Processes, Watch},
    readiness,
    rootfs::Rootfs,
    steps::Steps,
};
use rustix::{
    fs::{FileType, Mode, makedev, mknodat},
    mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount},
};

use crate::{Process, enter};

const FREEZE: Duration = Duration::from_secs(10);
const KILL: Duration = Duration::from_secs(30);
/// What programs expect in /dev: names and minor numbers, the major number being 1.
const DEVICES: [(&str, u32); 5] = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];

pub(crate) struct ProcessDriver {
    pub(crate) place: Place,
    pub(crate) actor: Option<Actor>,
    pub(crate) count: u64,
}

/// One actor, and what is to be removed of it.
pub(crate) struct Actor {
    /// A tmpfs of its own: identity, and root directories with what is written to them.
    run: PathBuf,
    /// On disk: durable directories.
    disk: PathBuf,
    netns: Netns,
    volumes: BTreeMap<String, PathBuf>,
    logs: Vec<ContainerLog>,
    /// The first container: when it ends, the actor ends.
    main: Option<Watch>,
}

impl Actor {
    /// Everything but the processes. Answers with the containers' root directories.
    fn lay_out(&mut self, start: &Start, resolv_conf: &[u8]) -> Result<Vec<PathBuf>, Error> {
        let made = fs::create_dir_all(&self.disk).and_then(|()| fs::create_dir_all(&self.run));
        made.and_then(|()| Ok(tmpfs(&self.run)?)).map_err(failed("make the actor's directories"))?;
        self.volumes = data::lay_out(&start.workload, &self.disk)?;
        let identity = self.run.join("identity");
        let written = fs::create_dir(&identity).and_then(|()| identity::write(&identity, &start.activation));
        written.map_err(failed("write the identity"))?;
        let containers = start.workload.containers.iter();
        containers.map(|c| self.root(c, &identity, resolv_conf)).collect()
    }

    fn root(&self, c: &Container, identity: &Path, resolv_conf: &[u8]) -> Result<PathBuf, Error> {
        let layers: Vec<PathBuf> = c.layers.iter().map(PathBuf::from).collect();
        let root = Rootfs::mount(&layers, &self.run.join("roots").join(&c.name))?;
        root.furnish(c, resolv_conf)?;
        root.mount_on(Path::new("/proc"), |at| mount("proc", at, "proc", MountFlags::empty(), None))?;
        root.mount_on(Path::new("/dev"), tmpfs)?;
        for (name, minor) in DEVICES {
            let (dev, mode) = (root.create_dir(Path::new("/dev"))?, Mode::from_raw_mode(0o666));
            let made = mknodat(dev, name, FileType::CharacterDevice, mode, makedev(1, minor));
            made.map_err(|e| failed("make a device")(e.into()))?;
        }
        root.mount_on(Path::new(identity::MOUNT_POINT), |at| mount_bind(identity, at))?;
        for m in &c.mounts {
            root.mount_on(Path::new(&m.path), |at| mount_bind(&self.volumes[&m.volume], at))?;
        }
        Ok(root.path().to_owned())
    }

    fn spawn(&mut self, c: &Container, root: &Path, who: &Activation, processes: &Processes) -> io::Result<()> {
        let (log, output) = ContainerLog::start(&c.name)?;
        log.assign(who);
        self.logs.push(log);
        let gids: Vec<String> = c.additional_gids.iter().map(u32::to_string).collect();
        let mut command = Command::new("/proc/self/exe");
        command.arg(enter::VERB).args([self.netns.path(), root, Path::new(&c.cwd)]);
        command.args([c.uid.to_string(), c.gid.to_string(), gids.join(",")]).args(&c.args);
        command.env_clear().envs(c.env.iter().filter_map(|v| v.split_once('=')));
        let (watch, _) = processes.spawn(command.stdin(Stdio::null()).stdout(output.stdout).stderr(output.stderr))?;
        self.main.get_or_insert(watch);
        Ok(())
    }

    /// What is left when no process is.
    async fn remove(self) -> Netns {
        for log in self.logs {
            log.finish().await;
        }
        // All mounts are below it. And no `remove_dir_all` here: it would go on into what might still be mounted.
        let gone = unmount(&self.run, UnmountFlags::DETACH).map_err(io::Error::from);
        let gone = gone.and_then(|()| fs::remove_dir(&self.run)).and_then(|()| fs::remove_dir_all(&self.disk));
        let _ = gone.inspect_err(|e| tracing::warn!("something of the actor stays until the worker ends: {e}"));
        self.netns
    }
}

#[async_trait]
impl Driver for ProcessDriver {
    fn info(&self) -> Info {
        Info::of(&Process::descriptor())
    }

    async fn probe(&mut self, sandbox: &Sandbox) -> Result<Probed, Error> {
        Process::probe(&self.place.processes, sandbox).await
    }

    async fn start(&mut self, start: &Start, steps: &mut Steps) -> Result<bool, Error> {
        let Source::Boot = start.source else { return Err(no_memory()) };
        config::of::<config::NoSettings>(&start.sandbox)?;
        let Start { activation, workload, .. } = start;
        self.count += 1;
        let id = format!("p{}", self.count);
        // From here on `reset` finds what there is to remove.
        let actor = self.actor.insert(Actor {
            run: Path::new("/run/ateom").join(&id),
            disk: self.place.scratch.join(&id),
            netns: self.place.network.take().await?,
            volumes: BTreeMap::new(),
            logs: Vec::new(),
            main: None,
        });
        let roots = actor.lay_out(start, &self.place.resolv_conf)?;
        if !activation.data_archive.is_empty() {
            data::load(PathBuf::from(&activation.data_archive), &actor.volumes).await?;
        }
        steps.mark("build");
        for (c, root) in workload.containers.iter().zip(&roots) {
            actor.spawn(c, root, activation, &self.place.processes).map_err(failed("start the actor"))?;
        }
        let ready = tokio::time::timeout_at(
            start.deadline,
            readiness::all_ready(&workload.containers, readiness::Way::Appearing),
        );
        tokio::select! {
            exit = process::end_of(actor.main.as_mut()) => return Err(Ended::too_early(exit)),
            ready = ready => ready.map_err(|_| readiness::not_ready(&workload.containers))?,
        }
        steps.mark("ready");
        Ok(false)
    }

    async fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<Checkpointed, Error> {
        let actor = self.actor.as_ref().filter(|_| checkpoint.scope == Scope::Data).ok_or_else(no_memory)?;
        process::freeze_all(FREEZE).await?;
        let saved = data::save(&actor.volumes, &checkpoint.dir).await;
        // As if nothing had happened.
        let files = saved.inspect_err(|_| process::thaw_all())?;
        Ok(Checkpointed { files, needs_base: false })
    }

    async fn thaw(&mut self) -> Result<(), Error> {
        process::thaw_all();
        Ok(())
    }

    async fn reset(&mut self) -> Result<(), Error> {
        self.place.processes.kill_all(KILL).await.map_err(|e| failed("end the actor")(io::Error::other(e)))?;
        if let Some(actor) = self.actor.take() {
            self.place.network.remove(actor.remove().await).await?;
        }
        Ok(())
    }

    async fn tidy(&mut self) {
        let _ = self.place.network.make_spare().await.inspect_err(|e| tracing::warn!("{e}"));
    }

    async fn ended(&mut self) -> Ended {
        Ended::by(process::end_of(self.actor.as_mut().and_then(|a| a.main.as_mut())).await)
    }

    fn sandbox_pid(&self) -> Option<u32> {
        let main = self.actor.as_ref()?.main.as_ref()?;
        Some(main.pid.as_raw_nonzero().get().cast_unsigned())
    }
}

fn tmpfs(at: &Path) -> rustix::io::Result<()> {
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), Some(c"mode=0755"))
}

fn no_memory() -> Error {
    Error::new(Reason::MissingCapability, "class process saves and restores durable directories, and no memory")
}
