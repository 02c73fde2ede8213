//! All containers of the machine: laid out, started, reaped.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use ate_guest::protocol::{self, Boot, Container, Event, MAX_CONTAINERS};
use rustix::{
    mount::MountFlags,
    process::{Pid, WaitOptions},
    thread::UnshareFlags,
};

use crate::{
    STATE,
    identity::Identity,
    logs::Logs,
    network,
    program::{self, Spec},
};

/// Block devices appear while their driver starts.
const APPEAR: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(2);

pub(crate) struct Containers {
    logs: Arc<Logs>,
    volumes: BTreeMap<String, PathBuf>,
    specs: Vec<PathBuf>,
    started: bool,
}

impl Containers {
    pub(crate) fn new(logs: Arc<Logs>) -> Self {
        Containers { logs, volumes: BTreeMap::new(), specs: Vec::new(), started: false }
    }

    pub(crate) fn volumes(&self) -> &BTreeMap<String, PathBuf> {
        &self.volumes
    }

    /// Makes everything ready; nothing runs yet.
    pub(crate) fn boot(&mut self, boot: &Boot, identity: &mut Identity) -> Result<()> {
        ensure!(self.specs.is_empty(), "this machine has booted already");
        ensure!(boot.containers.len() <= MAX_CONTAINERS, "more than {MAX_CONTAINERS} containers");
        identity.assume(&boot.wake)?;
        network::configure(&boot.network).context("cannot configure the network")?;
        for volume in &boot.volumes {
            let dir = Path::new(STATE).join("volumes").join(&volume.name);
            fs::create_dir_all(&dir)?;
            std::os::unix::fs::chown(&dir, Some(volume.uid), Some(volume.gid))?;
            self.volumes.insert(volume.name.clone(), dir);
        }
        for (i, container) in boot.containers.iter().enumerate() {
            let spec = self.lay_out(boot, i, container);
            self.specs.push(spec.with_context(|| format!("container `{}`", container.name))?);
        }
        Ok(())
    }

    /// The image, and a place for what is written over it; and the paper that says what runs there.
    fn lay_out(&self, boot: &Boot, i: usize, container: &Container) -> Result<PathBuf> {
        let dir = Path::new(STATE).join("containers").join(i.to_string());
        for sub in ["image", "upper", "work", "root"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        let flags = MountFlags::RDONLY | MountFlags::NODEV;
        rustix::mount::mount(disk(&container.disk)?, dir.join("image"), "erofs", flags, None)
            .context("cannot mount its image")?;
        let shown = dir.display();
        let options = format!("lowerdir={shown}/image,upperdir={shown}/upper,workdir={shown}/work");
        let options = std::ffi::CString::new(options)?;
        rustix::mount::mount("overlay", dir.join("root"), "overlay", MountFlags::NODEV, Some(options.as_c_str()))
            .context("cannot mount its root")?;
        let volume = |name: &String| {
            self.volumes.get(name).cloned().with_context(|| format!("it mounts `{name}`, which is no volume"))
        };
        let spec = Spec {
            root: dir.join("root"),
            hostname: boot.hostname.clone(),
            files: vec![
                ("/etc/hosts".into(), boot.hosts.clone()),
                ("/etc/hostname".into(), format!("{}\n", boot.hostname)),
                ("/etc/resolv.conf".into(), boot.resolv_conf.clone()),
            ],
            binds: container.mounts.iter().map(|m| Ok((volume(&m.volume)?, m.path.clone()))).collect::<Result<_>>()?,
            container: container.clone(),
        };
        let path = dir.join("spec");
        fs::write(&path, protocol::encode(&spec)?)?;
        Ok(path)
    }

    /// Starts all of them; their ends are told on the log port.
    pub(crate) fn start(&mut self) -> Result<()> {
        ensure!(!self.started, "the containers have been started already");
        ensure!(!self.specs.is_empty(), "nothing to start");
        self.started = true;
        let running = Arc::new(Mutex::new(HashMap::new()));
        for (i, spec) in self.specs.iter().enumerate() {
            // Held over the start, so that an end is not seen before its process is known.
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            let (pid, out, err) = spawn(spec)?;
            running.insert(pid, i);
            for (stream, from) in [(1, out), (2, err)] {
                let logs = self.logs.clone();
                thread::Builder::new().name("log".into()).spawn(move || logs.copy(i, stream, from))?;
            }
        }
        let logs = self.logs.clone();
        thread::Builder::new().name("reaper".into()).spawn(move || reap(&running, &logs))?;
        Ok(())
    }
}

/// The first process of a container, in namespaces of its own.
fn spawn(spec: &Path) -> Result<(i32, OwnedFd, OwnedFd)> {
    let spec = spec.to_owned();
    // A thread of its own takes its next child into new namespaces, and ends.
    let spawned = thread::spawn(move || -> Result<_> {
        unshare()?;
        let mut child = Command::new("/init")
            .arg(program::VERB)
            .arg(spec)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start a container's first process")?;
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else { bail!("no pipes") };
        Ok((i32::try_from(child.id())?, out.into(), err.into()))
    });
    spawned.join().map_err(|_| anyhow::anyhow!("the thread that starts a container failed"))?
}

#[allow(unsafe_code)]
fn unshare() -> Result<()> {
    let flags = UnshareFlags::NEWPID
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    // SAFETY: unsafe only for CLONE_FILES, which would break the ownership of file descriptors; it is not passed.
    unsafe { rustix::thread::unshare_unsafe(flags) }.context("cannot make namespaces")
}

/// As PID 1: everything that ends is ours to reap, whoever started it.
fn reap(running: &Mutex<HashMap<i32, usize>>, logs: &Logs) {
    loop {
        let (pid, status) = match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            // No child is left, and none can come.
            Err(_) => return,
        };
        let known = running.lock().unwrap_or_else(PoisonError::into_inner).remove(&Pid::as_raw(Some(pid)));
        if let Some(container) = known {
            let (code, signal) = (status.exit_status(), status.terminating_signal());
            let _ = logs.tell(&Event::Exited { container, code, signal });
        }
    }
}

/// The block device with this serial number.
fn disk(serial: &str) -> Result<PathBuf> {
    let deadline = Instant::now() + APPEAR;
    loop {
        for entry in fs::read_dir("/sys/block")?.flatten() {
            if fs::read_to_string(entry.path().join("serial")).is_ok_and(|s| s.trim() == serial) {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        if Instant::now() > deadline {
            bail!("there is no disk {serial}");
        }
        thread::sleep(POLL);
    }
}
