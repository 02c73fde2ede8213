//! One sandbox: its namespace, root filesystems, bundles and runsc calls, from creation to removal.

mod snapshot;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use ate_api::{Error, Reason};
use ateom::{
    Ended, data,
    driver::{Activation, Container, Workload},
    failed, identity,
    logs::{ContainerLog, Stdio},
    network::Netns,
    process::{Exit, Processes, Watch, end_of},
    readiness,
    rootfs::Rootfs,
    steps::Steps,
};
use rustix::process::Pid;

use crate::{
    runsc::Runsc,
    spec::{Placement, spec},
};

/// Limits of single calls. The whole operation has a deadline of its own; these only keep a call from hanging.
const CREATE: Duration = Duration::from_secs(30);
const START: Duration = Duration::from_secs(30);
/// Reading or writing the memory of a large actor.
const IMAGE: Duration = Duration::from_secs(10 * 60);
/// A container of the sandbox.
struct Member {
    container: Container,
    id: String,
    bundle: PathBuf,
    log: ContainerLog,
    /// Until the container is created, which takes them over.
    stdio: Option<Stdio>,
}

pub(crate) struct Sandbox {
    runsc: Runsc,
    /// On a tmpfs: bundles, mounts, identity, runsc's state.
    run: PathBuf,
    /// On disk: durable directories.
    disk: PathBuf,
    pub(crate) netns: Netns,
    identity: PathBuf,
    rootfs: Vec<Rootfs>,
    volumes: BTreeMap<String, PathBuf>,
    members: Vec<Member>,
    created: bool,
    /// The sandbox process, once there is one.
    process: Option<Watch>,
    /// Binaries of the older generation end the sandbox with a checkpoint.
    ended_in: Option<PathBuf>,
}

/// What a sandbox is built from.
pub(crate) struct Build<'a> {
    pub(crate) id: &'a str,
    pub(crate) workload: &'a Workload,
    pub(crate) resolv_conf: &'a [u8],
}

impl Sandbox {
    /// Nothing is laid out yet; [`Self::remove`] is good from here on.
    pub(crate) fn new(runsc: Runsc, run: PathBuf, disk: PathBuf, netns: Netns) -> Self {
        Sandbox {
            identity: run.join("identity"),
            runsc,
            run,
            disk,
            netns,
            rootfs: Vec::new(),
            volumes: BTreeMap::new(),
            members: Vec::new(),
            created: false,
            process: None,
            ended_in: None,
        }
    }

    /// Lays everything out; starts nothing.
    pub(crate) fn build(&mut self, build: &Build<'_>) -> Result<(), Error> {
        let Build { workload, .. } = build;
        fs::create_dir_all(&self.identity).map_err(failed("create the identity directory"))?;
        self.volumes = data::lay_out(workload, &self.disk.join("volumes"))?;
        for (i, container) in workload.containers.iter().enumerate() {
            self.add(container, build, i)?;
        }
        Ok(())
    }

    fn add(&mut self, c: &Container, build: &Build<'_>, i: usize) -> Result<(), Error> {
        let resolv_conf = build.resolv_conf;
        // runsc takes an id for a prefix too: none may be the beginning of another.
        let id = |i: usize| format!("{}-{i:03}", build.id);
        let bundle = self.run.join("bundles").join(&c.name);
        fs::create_dir_all(&bundle).map_err(failed("create a bundle"))?;
        let layers: Vec<PathBuf> = c.layers.iter().map(PathBuf::from).collect();
        let rootfs = Rootfs::mount(&layers, &bundle)?;
        let made = rootfs.furnish(c, resolv_conf);
        let placement = Placement {
            sandbox: &id(0),
            is_root: i == 0,
            rootfs: rootfs.path(),
            netns: self.netns.path(),
            identity: &self.identity,
            volumes: &self.volumes,
        };
        let spec = spec(c, &placement);
        self.rootfs.push(rootfs);
        made?;
        fs::write(bundle.join("config.json"), spec.to_string()).map_err(failed("write a bundle"))?;
        let (log, stdio) = ContainerLog::start(&c.name).map_err(failed("open a container's output"))?;
        self.members.push(Member { container: c.clone(), id: id(i), bundle, log, stdio: Some(stdio) });
        Ok(())
    }

    /// Starts the sandbox process and creates its containers, which then wait to be started or restored.
    pub(crate) async fn create(&mut self, processes: &Processes) -> Result<(), Error> {
        for i in 0..self.members.len() {
            let args = self.create_args("create", i);
            self.runsc.call(args, self.members[i].stdio.as_ref(), CREATE).await?;
            if i == 0 {
                self.watch(processes)?;
            }
        }
        self.created = true;
        Ok(())
    }

    /// Whether containers can be created before it is known what they will do.
    pub(crate) fn can_wait(&self) -> bool {
        self.runsc.binary.is_modern()
    }

    fn pid_file(&self) -> PathBuf {
        self.run.join("pid")
    }

    fn create_args(&self, verb: &str, i: usize) -> Vec<OsString> {
        let member = &self.members[i];
        let mut args: Vec<OsString> = vec![verb.into(), "--bundle".into(), member.bundle.clone().into()];
        if i == 0 {
            args.extend(["--pid-file".into(), self.pid_file().into()]);
        }
        args.push(member.id.clone().into());
        args
    }

    fn watch(&mut self, processes: &Processes) -> Result<(), Error> {
        let text = fs::read_to_string(self.pid_file()).map_err(failed("read the sandbox's pid"))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Error::new(Reason::SandboxFailed, format!("runsc wrote `{text}` as a pid")))?;
        self.process = Some(processes.watch(pid));
        Ok(())
    }

    /// What must be in place before the actor's first instruction.
    pub(crate) async fn admit(&self, activation: &Activation, archive: Option<PathBuf>) -> Result<(), Error> {
        identity::write(&self.identity, activation).map_err(failed("write the identity"))?;
        for member in &self.members {
            member.log.assign(activation);
        }
        match archive {
            Some(archive) => data::load(archive, &self.volumes).await,
            None => Ok(()),
        }
    }

    /// Starts or restores all containers and waits until they are ready.
    pub(crate) async fn go(
        &mut self,
        image: Option<&Path>,
        processes: &Processes,
        steps: &mut Steps,
    ) -> Result<(), Error> {
        for i in 0..self.members.len() {
            let last = i + 1 == self.members.len();
            let (mut call, creates) = self.set_going(i, image)?;
            if last && !creates {
                // The actor may answer before runsc has told us that it restored it.
                self.ready_or_failed(Some(&mut call), steps).await?;
                return Ok(());
            }
            call.finish(if image.is_some() { IMAGE } else { START }).await?;
            steps.mark(if image.is_some() { "restore" } else { "start" });
            if creates && i == 0 {
                self.watch(processes)?;
            }
        }
        self.created = true;
        self.ready_or_failed(None, steps).await
    }

    /// The call that sets container `i` going, and whether it also creates it.
    fn set_going(&mut self, i: usize, image: Option<&Path>) -> Result<(crate::runsc::Call, bool), Error> {
        let created = self.created;
        let args: Vec<OsString> = match image {
            Some(image) => {
                let mut args = self.create_args("restore", i);
                args.insert(1, "--detach".into());
                args.splice(2..2, ["--image-path".into(), image.into()]);
                args
            }
            None if created => vec!["start".into(), self.members[i].id.clone().into()],
            None => {
                let mut args = self.create_args("run", i);
                args.insert(1, "--detach".into());
                args
            }
        };
        let call = self.runsc.start(args, self.members[i].stdio.as_ref())?;
        // The container has them now; ours would keep the pipes open beyond its end.
        self.members[i].stdio = None;
        Ok((call, !created))
    }

    async fn ready_or_failed(
        &mut self,
        mut call: Option<&mut crate::runsc::Call>,
        steps: &mut Steps,
    ) -> Result<(), Error> {
        let containers = self.containers();
        let ready = readiness::all_ready(&containers, readiness::Way::Appearing);
        tokio::pin!(ready);
        let mut called = call.is_none();
        let mut is_ready = !readiness::asks(&containers);
        while !(called && is_ready) {
            let process = &mut self.process;
            tokio::select! {
                result = async { match call.as_mut() { Some(call) => call.finish(IMAGE).await, None => Ok(()) } }, if !called => {
                    result?;
                    called = true;
                    steps.mark("runsc");
                }
                () = &mut ready, if !is_ready => {
                    is_ready = true;
                    steps.mark("ready");
                }
                exit = end_of(process.as_mut()) => {
                    return Err(Ended::too_early(exit));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn containers(&self) -> Vec<Container> {
        self.members.iter().map(|m| m.container.clone()).collect()
    }

    /// Resolves when the sandbox process ends.
    pub(crate) async fn ended(&mut self) -> Exit {
        end_of(self.process.as_mut()).await
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(|p| p.pid)
    }

    /// Removes what is left when no process is. What is slow goes on in the background, out of everybody's way.
    pub(crate) async fn remove(self, trash: &Path) -> Netns {
        for member in self.members {
            member.log.finish().await;
        }
        for rootfs in self.rootfs {
            if let Err(e) = rootfs.unmount() {
                tracing::warn!("{e}");
            }
        }
        let away = trash.join(self.run.file_name().unwrap_or_default());
        let moved = fs::rename(&self.disk, &away);
        let run = self.run;
        tokio::task::spawn_blocking(move || {
            for dir in [Ok(run), moved.map(|()| away)].into_iter().flatten() {
                if let Err(e) = fs::remove_dir_all(&dir) {
                    tracing::warn!("cannot remove {}: {e}", dir.display());
                }
            }
        });
        self.netns
    }
}
