//! One QEMU process: started without a machine's contents, given them, loaded, run, saved.
//!
//! ```text
//! launch → Empty ── bind ──→ Bound ── load ──→ Loaded ── go ──→ running ⇄ stop
//!                              └── (a boot has nothing to load) ──┘
//! ```

mod command_line;
pub(crate) mod launch;
mod qmp;
mod words;

use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use ate_api::{Error, Reason};
use ateom::{
    network::Tap,
    process::{Exit, Processes, Watch, pipe_to_child},
};
use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
};

pub(crate) use command_line::{Kernel, disk_serial};
pub(crate) use launch::Access;
use qmp::Qmp;
pub(crate) use words::Words;

use crate::{
    accelerator::Chosen,
    config::Config,
    error::{corrupt, failed, io},
    memory::Memory,
};

/// Numbers of the descriptors a VMM has besides its standard ones.
pub(crate) mod fds {
    pub(crate) const QMP: i32 = 3;
    pub(crate) const CONTROL: i32 = 4;
    pub(crate) const LOG: i32 = 5;
    pub(crate) const TAP: i32 = 6;
    /// The state of its devices, to be loaded and when it is saved.
    pub(crate) const LOAD: i32 = 7;
    pub(crate) const SAVE: i32 = 8;
}

/// From the start of the process to its greeting; 50 ms on an idle machine.
const GREET: Duration = Duration::from_secs(20);
/// One command; the slowest builds the machine.
const CALL: Duration = Duration::from_secs(20);
/// The kernel frees the memory of a large machine before it reports its end.
const KILL: Duration = Duration::from_secs(20);
/// The state of the devices is some 30 KiB.
pub(crate) const MAX_DEVICES: usize = 16 << 20;
/// From the first sign of an end to the end.
const ENDING: Duration = Duration::from_millis(100);

/// The unpacked bundle of a VMM.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) bundle: PathBuf,
    pub(crate) access: Access,
}

/// How the VMM of a bundle is started: by the bundle's own loader, so that nothing of the host's libraries is used.
pub(crate) fn program(bundle: &Path) -> [OsString; 4] {
    let (loader, libraries) = (bundle.join("lib/ld-linux-x86-64.so.2"), bundle.join("lib"));
    [loader.into(), "--library-path".into(), libraries.into(), bundle.join("bin/qemu-system-x86_64").into()]
}

/// Where its firmware is.
pub(crate) fn firmware(bundle: &Path) -> PathBuf {
    bundle.join("share/qemu")
}

pub(crate) struct Vmm {
    watch: Watch,
    qmp: Qmp,
    /// The guest's two ports. Whoever talks to the guest takes them.
    pub(crate) control: Option<UnixStream>,
    pub(crate) log: Option<UnixStream>,
    pub(crate) tap: Tap,
    load: Option<pipe::Sender>,
    save: pipe::Receiver,
    words: Words,
    listeners: [tokio::task::JoinHandle<()>; 2],
    access: Access,
    /// Where its memory comes from, once it is bound.
    memory: Option<Memory>,
}

/// What to launch.
pub(crate) struct Launch<'a> {
    pub(crate) files: &'a Files,
    pub(crate) config: &'a Config,
    pub(crate) accelerator: Chosen,
    pub(crate) disks: usize,
    /// Given for a boot; without, the machine waits for a state to load.
    pub(crate) kernel: Option<Kernel<'a>>,
}

impl Vmm {
    /// Starts the process, with everything a machine has but memory and disks.
    pub(crate) async fn launch(
        what: &Launch<'_>,
        processes: &Processes,
        (tap, tap_fd): (Tap, OwnedFd),
    ) -> Result<Self, Error> {
        let Launch { files, config, accelerator, disks, kernel } = what;
        let pair = || UnixStream::pair().map_err(io("make a channel to the VMM"));
        let ((qmp, qmp_fd), (control, control_fd), (log, log_fd)) = (pair()?, pair()?, pair()?);
        let plain = |stream: UnixStream| -> Result<OwnedFd, Error> {
            let stream = stream.into_std().map_err(io("make a channel to the VMM"))?;
            Ok(stream.into())
        };
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
        let (load_fd, load) = pipe().map_err(|e| io("make a pipe")(e.into()))?;
        let (save, save_fd) = pipe().map_err(|e| io("make a pipe")(e.into()))?;
        let (out, out_fd) = pipe_to_child().map_err(io("make a pipe"))?;
        let (err, err_fd) = pipe_to_child().map_err(io("make a pipe"))?;

        let mut command = Command::new("/proc/self/exe");
        command.args([launch::VERB, files.access.word()]).args(program(&files.bundle));
        command.args(command_line::arguments(files, config, *accelerator, *disks, kernel.as_ref()));
        command.env_clear().stdin(Stdio::null()).stdout(out_fd).stderr(err_fd);
        let map = |child_fd, parent_fd| FdMapping { parent_fd, child_fd };
        let mapped = command.fd_mappings(vec![
            map(fds::QMP, plain(qmp_fd)?),
            map(fds::CONTROL, plain(control_fd)?),
            map(fds::LOG, plain(log_fd)?),
            map(fds::TAP, tap_fd),
            map(fds::LOAD, load_fd),
            map(fds::SAVE, save_fd),
        ]);
        mapped.map_err(|e| failed(format!("cannot pass descriptors to the VMM: {e}")))?;
        let (watch, _) = processes.spawn(&mut command).map_err(io("start the VMM"))?;
        drop(command); // and with it our copies of its descriptors

        let words = Words::default();
        let listeners =
            [tokio::spawn(words.clone().listen(out, config.debug_log)), tokio::spawn(words.clone().listen(err, true))];
        let mut vmm = Vmm {
            watch,
            qmp: Qmp::new(qmp),
            control: Some(control),
            log: Some(log),
            tap,
            load: Some(pipe::Sender::from_owned_fd(load).map_err(io("make a pipe"))?),
            save: pipe::Receiver::from_owned_fd(save).map_err(io("make a pipe"))?,
            words,
            listeners,
            access: files.access,
            memory: None,
        };
        match vmm.qmp.greet(GREET).await {
            Ok(()) => Ok(vmm),
            Err(e) => {
                let e = vmm.explain(e).await;
                vmm.kill().await?;
                Err(e)
            }
        }
    }

    /// Gives the machine its memory, as a private view of a file, and its disks.
    pub(crate) async fn bind(&mut self, memory: &Path, bytes: u64, disks: &[PathBuf]) -> Result<(), Error> {
        let mut backend = json!({
            "qom-type": "memory-backend-file", "id": "ram", "size": bytes, "mem-path": memory, "share": false,
        });
        if self.access == Access::Read {
            backend["readonly"] = json!(true);
            backend["rom"] = json!("off");
        }
        // A missing file would be created.
        let found = std::fs::metadata(memory).map_err(|e| corrupt(format!("there is no memory file: {e}")))?;
        if found.len() != bytes {
            let message = format!("the memory file has {} bytes, the machine {bytes}", found.len());
            return Err(Error::new(Reason::SnapshotCorrupt, message));
        }
        let mut commands = Vec::new();
        for (i, path) in disks.iter().enumerate() {
            let file = json!({ "driver": "file", "filename": path, "locking": "off" });
            let node = command_line::disk_node(i);
            commands
                .push(("blockdev-add", json!({ "driver": "raw", "node-name": node, "read-only": true, "file": file })));
        }
        commands.push(("object-add", backend));
        let machine = json!({ "path": "/machine", "property": "memory-backend", "value": "/objects/ram" });
        commands.push(("qom-set", machine));
        commands.push(("x-exit-preconfig", Value::Null));
        let events = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        commands.push(("migrate-set-capabilities", events));
        self.call(&commands).await?;
        self.memory = Some(Memory::of(self.pid(), memory, bytes)?);
        Ok(())
    }

    /// Loads the state of the devices. Memory must be as it was when they were saved.
    pub(crate) async fn load(&mut self, devices: &[u8]) -> Result<(), Error> {
        let incoming = [("migrate-incoming", json!({ "uri": format!("fd:{}", fds::LOAD) }))];
        let mut to = self.load.take().ok_or_else(|| failed("the machine has been loaded already"))?;
        let feed = async move {
            to.write_all(devices).await.map_err(io("hand the devices' state to the VMM"))
            // Closed here: the VMM reads to the end.
        };
        let qmp = &mut self.qmp;
        let load = async {
            qmp.all(&incoming, CALL).await?;
            qmp.event(CALL, |name, data| match (name, data.get("status")?.as_str()?) {
                ("MIGRATION", "completed") => Some(Ok(())),
                ("MIGRATION", "failed") => Some(Err(failed("the VMM refused the devices' state"))),
                _ => None,
            })
            .await?
        };
        let loaded = tokio::try_join!(feed, load).map(drop);
        match loaded {
            Ok(()) => Ok(()),
            Err(e) => Err(self.explain(e).await),
        }
    }

    /// Lets the guest run.
    pub(crate) async fn go(&mut self) -> Result<(), Error> {
        self.call(&[("cont", Value::Null)]).await
    }

    pub(crate) async fn stop(&mut self) -> Result<(), Error> {
        self.call(&[("stop", Value::Null)]).await
    }

    /// The state of the devices of a stopped machine.
    pub(crate) async fn save(&mut self) -> Result<Vec<u8>, Error> {
        let to = format!("/proc/self/fd/{}", fds::SAVE);
        let command = [("xen-save-devices-state", json!({ "filename": to, "live": false }))];
        let mut devices = Vec::new();
        {
            let saved = self.qmp.all(&command, CALL);
            tokio::pin!(saved);
            loop {
                tokio::select! {
                    done = &mut saved => break done?,
                    read = self.save.read_buf(&mut devices) => {
                        read.map_err(io("read the devices' state"))?;
                    }
                }
                if devices.len() > MAX_DEVICES {
                    return Err(failed("the devices' state is larger than it can be"));
                }
            }
        }
        // What was written before the answer is in the pipe.
        loop {
            match self.save.try_read_buf(&mut devices) {
                Ok(1..) if devices.len() <= MAX_DEVICES => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(devices),
                Ok(0) | Err(_) => return Err(failed("the VMM ended while it was saved")),
                Ok(_) => return Err(failed("the devices' state is larger than it can be")),
            }
        }
    }

    async fn call(&mut self, commands: &[qmp::Command<'_>]) -> Result<(), Error> {
        match self.qmp.all(commands, CALL).await {
            Ok(()) => Ok(()),
            Err(e) => Err(self.explain(e).await),
        }
    }

    /// Moves the memory to who works with it on another thread.
    pub(crate) fn take_memory(&mut self) -> Result<Memory, Error> {
        self.memory.take().ok_or_else(|| failed("the machine has no memory yet"))
    }

    pub(crate) fn put_memory(&mut self, memory: Memory) {
        self.memory = Some(memory);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.watch.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Resolves when the process ends.
    pub(crate) async fn ended(&mut self) -> Exit {
        self.watch.wait().await
    }

    /// Whether it is still there, whoever may know of its end already.
    pub(crate) fn is_alive(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(rustix::process::waitid(WaitId::Pid(self.watch.pid), options), Ok(None))
    }

    /// Ends the process; returns when it is gone.
    pub(crate) async fn kill(mut self) -> Result<(), Error> {
        // Ours until it has been waited for, so the number is nobody else's.
        if self.is_alive() {
            let _ = rustix::process::kill_process(self.watch.pid, Signal::KILL);
        }
        let gone = tokio::time::timeout(KILL, self.watch.wait()).await;
        gone.map(drop).map_err(|_| failed(format!("the VMM did not end within {KILL:?}")))
    }

    /// An error with what VMM and guest said last.
    pub(crate) async fn explain(&mut self, e: Error) -> Error {
        // Channels close before the process has ended, and what it says of that is read after its end.
        if tokio::time::timeout(ENDING, self.watch.wait()).await.is_ok() {
            for listener in self.listeners.iter_mut().filter(|l| !l.is_finished()) {
                let _ = tokio::time::timeout(ENDING, listener).await;
            }
        }
        self.words.add_to(e)
    }

    /// To be asked when the machine itself cannot be any more.
    pub(crate) fn words(&self) -> Words {
        self.words.clone()
    }
}
