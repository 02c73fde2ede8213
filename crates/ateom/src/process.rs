//! Starting processes and reaping them, as PID 1 must.
//!
//! One reaper waits for every child, known or adopted, the moment it ends; nobody else ever waits. Who wants an exit
//! status registers for it before the reaper can see it, under the lock that the reaper takes. runsc polls for the
//! disappearance of processes, so a zombie left lying costs seconds.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ate_api::{Error, Reason};
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
    /// It was reaped before anybody asked.
    Unknown,
}

impl Exit {
    pub fn success(self) -> bool {
        self == Exit::Code(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
            Exit::Unknown => f.write_str("unknown exit status"),
        }
    }
}

/// A process being watched.
#[derive(Debug)]
pub struct Watch {
    pub pid: Pid,
    exit: oneshot::Receiver<Exit>,
    ended: Option<Exit>,
}

impl Watch {
    /// Waits for the end. May be called again afterwards, and dropped in between.
    pub async fn wait(&mut self) -> Exit {
        if let Some(exit) = self.ended {
            return exit;
        }
        let exit = (&mut self.exit).await.unwrap_or(Exit::Unknown);
        self.ended = Some(exit);
        exit
    }

    /// Waits for the end, and kills the process if that takes too long.
    pub async fn wait_for(&mut self, limit: Duration) -> Result<Exit, TimedOut> {
        match tokio::time::timeout(limit, self.wait()).await {
            Ok(exit) => Ok(exit),
            Err(_) => {
                let _ = rustix::process::kill_process(self.pid, Signal::KILL);
                Err(TimedOut(limit))
            }
        }
    }
}

/// The end of a process that may not have been started yet. May be dropped and called again.
pub async fn end_of(watch: Option<&mut Watch>) -> Exit {
    match watch {
        Some(watch) => watch.wait().await,
        None => std::future::pending().await,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("did not end within {0:?} and was killed")]
pub struct TimedOut(pub Duration);

#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("cannot start {0}: {1}")]
    Start(String, io::Error),
    #[error("{0} {1}")]
    TimedOut(String, TimedOut),
}

/// What a short-lived program said.
#[derive(Debug)]
pub struct Output {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

type Waiters = HashMap<Pid, Vec<oneshot::Sender<Exit>>>;

/// Handle to the reaper. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Processes {
    waiters: Arc<Mutex<Waiters>>,
}

impl Processes {
    /// Starts the reaper. One per process; needs a running tokio runtime.
    pub fn start() -> io::Result<Self> {
        let waiters = Arc::new(Mutex::new(Waiters::new()));
        let mut children = signal(SignalKind::child())?;
        let reaper = Processes { waiters };
        let handle = reaper.clone();
        tokio::spawn(async move {
            loop {
                handle.reap();
                if children.recv().await.is_none() {
                    return;
                }
            }
        });
        Ok(reaper)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reap(&self) {
        let mut waiters = self.lock();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => continue,
            };
            for waiter in waiters.remove(&pid).unwrap_or_default() {
                let _ = waiter.send(exit);
            }
        }
    }

    /// Starts a process. The lock is held over the start so that the reaper cannot see its end before it is known.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Watch, std::process::Child)> {
        let mut waiters = self.lock();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        let (tx, exit) = oneshot::channel();
        waiters.entry(pid).or_default().push(tx);
        Ok((Watch { pid, exit, ended: None }, child))
    }

    /// Watches a process that somebody else started and that is or becomes our child.
    pub fn watch(&self, pid: Pid) -> Watch {
        let mut waiters = self.lock();
        let (tx, exit) = oneshot::channel();
        // Nobody but the reaper takes it away, and the reaper needs the lock: what is there now will be reported.
        if rustix::process::test_kill_process(pid).is_ok() {
            waiters.entry(pid).or_default().push(tx);
        } else {
            let _ = tx.send(Exit::Unknown);
        }
        Watch { pid, exit, ended: None }
    }

    /// Runs a short-lived program to its end. At most `cap` bytes of each stream are kept.
    pub async fn output(&self, command: &mut Command, limit: Duration, cap: usize) -> Result<Output, OutputError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let start = |e| OutputError::Start(name.clone(), e);
        let (out_rx, out_tx) = pipe_to_child().map_err(start)?;
        let (err_rx, err_tx) = pipe_to_child().map_err(start)?;
        command.stdin(Stdio::null()).stdout(out_tx).stderr(err_tx);
        let (mut watch, _) = self.spawn(command).map_err(start)?;
        command.stdout(Stdio::null()).stderr(Stdio::null()); // closes our copies of the writing ends
        let stdout = tokio::spawn(read_capped(out_rx, cap));
        let stderr = tokio::spawn(read_capped(err_rx, cap));
        let exit = watch.wait_for(limit).await.map_err(|e| OutputError::TimedOut(name.clone(), e))?;
        // A grandchild may hold the pipes open for ever: what the program itself wrote is there by now.
        let text = |read: tokio::task::JoinHandle<Vec<u8>>| async {
            let bytes = tokio::time::timeout(DRAIN, read).await.ok().and_then(Result::ok).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ok(Output { exit, stdout: text(stdout).await, stderr: text(stderr).await })
    }

    /// Kills everything in this pid namespace but ourselves, and waits until it is gone. Only for PID 1.
    pub async fn kill_all(&self, limit: Duration) -> Result<(), TimedOut> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let others = others();
            if others.is_empty() {
                self.lock().clear(); // watches of processes whose own parents reaped them
                return Ok(());
            }
            let mut watches: Vec<_> = others.iter().map(|&pid| self.watch(pid)).collect();
            for &pid in &others {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
            // Those with a living parent are not our children yet; the next round sees them reparented or gone.
            let all = async {
                for watch in &mut watches {
                    watch.wait().await;
                }
            };
            let _ = tokio::time::timeout(KILL_ROUND, all).await;
            if tokio::time::Instant::now() > deadline {
                return Err(TimedOut(limit));
            }
        }
    }
}

/// Stops everything in this pid namespace but ourselves, where a process is what is run and not what runs it.
pub async fn freeze_all(limit: Duration) -> Result<(), Error> {
    let stopped = async {
        loop {
            // Until none is found that runs: one may have forked before it was stopped.
            let running: Vec<_> = others().into_iter().filter(|pid| runs(*pid)).collect();
            if running.is_empty() {
                return;
            }
            for pid in running {
                let _ = rustix::process::kill_process(pid, Signal::STOP);
            }
            tokio::time::sleep(FREEZE_ROUND).await;
        }
    };
    let frozen = tokio::time::timeout(limit, stopped).await;
    frozen.map_err(|_| {
        thaw_all();
        Error::new(Reason::SandboxFailed, format!("the actor's processes did not stop within {limit:?}"))
    })
}

/// Lets go on what [`freeze_all`] stopped.
pub fn thaw_all() {
    for pid in others() {
        let _ = rustix::process::kill_process(pid, Signal::CONT);
    }
}

/// Neither stopped nor dead, by `/proc/PID/stat`: `PID (NAME) STATE …`. A name may hold anything.
fn runs(pid: Pid) -> bool {
    let stat = std::fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    let state = stat.iter().rposition(|&b| b == b')').and_then(|end| stat.get(end + 2));
    state.is_some_and(|state| !b"TtZX".contains(state))
}

/// A process stops when it next leaves the kernel.
const FREEZE_ROUND: Duration = Duration::from_millis(1);
/// Time to read what is left in a pipe whose writer has ended.
const DRAIN: Duration = Duration::from_millis(100);
/// After this the list of processes is read anew.
const KILL_ROUND: Duration = Duration::from_millis(20);

/// Every process of the namespace we are PID 1 of, but ourselves. None if we are not: then they are not ours to signal.
fn others() -> Vec<Pid> {
    if !rustix::process::getpid().is_init() {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|&pid| pid > 1).filter_map(Pid::from_raw).collect()
}

/// A pipe whose reading end is ours (asynchronous) and whose writing end is for a child.
pub fn pipe_to_child() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (rx, tx) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(rx)?, tx))
}

async fn read_capped(mut from: pipe::Receiver, cap: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0u8; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let room = cap.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
    kept
}
