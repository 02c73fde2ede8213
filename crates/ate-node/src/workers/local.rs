//! A herder process of this node: started, given its link, connected, and at the end gone without a trace.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ate_api::{Error, Reason, id::WorkerId};
use ate_failpoint::step;
use ateom::driver::GetInfoResponse;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    attached::SOCKET,
    client::{Client, of_class},
    process::Process,
};
use crate::network::{INTERFACE, Link, Links};

/// A process, three namespaces; slow only on an overloaded machine.
const ANNOUNCE: Duration = Duration::from_secs(20);
/// The herder sets up its interface and address translation.
const CONNECT: Duration = Duration::from_secs(30);
/// The herder ends its actor first; it kills by itself what does not end in 10 s.
const END: Duration = Duration::from_secs(12);
const KILL: Duration = Duration::from_secs(10);
/// `{"pid":N}` and a line end.
const MAX_ANNOUNCEMENT: u64 = 128;
/// Lines of a herder's log that explain its end.
const LAST_WORDS: usize = 3;
const MAX_LOG_LINE: u64 = 8 * 1024;
const RECORD: &str = "herder.json";
/// What the herder may know of our environment: no credentials.
const PASSED_ON: [&str; 3] = ["PATH", "RUST_LOG", "LANG"];

/// Where herders are and where workers live.
#[derive(Debug, Clone)]
pub(crate) struct Herders {
    pub(crate) programs: PathBuf,
    /// One directory per worker.
    pub(crate) workers: PathBuf,
}

impl Herders {
    /// The herder of a class.
    pub(crate) fn program(&self, class: &str) -> Result<PathBuf, Error> {
        let plain =
            !class.is_empty() && class.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let program = self.programs.join(format!("ateom-{class}"));
        if plain && program.is_file() {
            return Ok(program);
        }
        let message = format!("no herder for sandbox class `{class}`: {} does not exist", program.display());
        Err(Error::new(Reason::UnknownSandboxClass, message).hint("build the whole workspace, or install the class"))
    }

    /// A command that knows nothing of our environment but what it needs.
    pub(crate) fn command(&self, class: &str) -> Result<Command, Error> {
        let mut command = Command::new(self.program(class)?);
        let passed_on = PASSED_ON.into_iter().chain(ate_failpoint::VARIABLE);
        command.env_clear().envs(passed_on.filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.kill_on_drop(true);
        Ok(command)
    }
}

/// What lies in a worker's directory for the node that comes after a crash.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    processes: Vec<Process>,
}

/// A running herder. Dropped: killed.
pub(crate) struct Local {
    child: Child,
    /// Its end is our end: the herder leaves when this closes.
    _lifeline: Option<ChildStdin>,
    dir: PathBuf,
    link: Link,
    links: Links,
    last_words: Arc<Mutex<Vec<String>>>,
    pub(crate) client: Client,
    pub(crate) info: GetInfoResponse,
}

impl Local {
    pub(crate) fn address(&self) -> std::net::Ipv4Addr {
        self.link.address
    }

    /// Starts a herder and returns when it serves. After an error, or when called off, nothing is left.
    pub(crate) async fn start(
        herders: &Herders,
        links: &Links,
        id: &WorkerId,
        class: &str,
        called_off: &CancellationToken,
    ) -> Result<Self, Error> {
        let dir = herders.workers.join(&id.0);
        make_dir(&dir).map_err(|e| io(&format!("create {}", dir.display()), &e))?;
        let claim = async { links.claim().await.map_err(|e| Error::new(Reason::Unavailable, e.to_string())) };
        let link = match step!("herder.link", claim, held) {
            Ok(link) => link,
            Err(e) => {
                remove_dir(&dir).await;
                return Err(e);
            }
        };
        let started = start(herders, links, &link, &dir, class, called_off).await;
        match started {
            Ok((child, lifeline, last_words, client, info)) => {
                Ok(Local { child, _lifeline: lifeline, dir, link, links: links.clone(), last_words, client, info })
            }
            Err(e) => {
                clean(links, &link, &dir).await;
                Err(e)
            }
        }
    }

    /// Resolves when the herder has ended, with what it had to say.
    pub(crate) async fn ended(&mut self) -> String {
        let how = match self.child.wait().await {
            Ok(status) => describe(status),
            Err(e) => format!("cannot be waited for: {e}"),
        };
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner).join("; ");
        if words.is_empty() { format!("the herder {how}") } else { format!("the herder {how}: {words}") }
    }

    /// Ends the herder, gently first if told so, and removes what it leaves. Bounded.
    pub(crate) async fn end(mut self, gently: bool) {
        if gently && let Some(pid) = self.child.id().and_then(|p| Pid::from_raw(p.cast_signed())) {
            // The child is not reaped before `wait`, so the pid is still its own.
            let _ = kill_process(pid, Signal::TERM);
            let _ = timeout(END, self.child.wait()).await;
        }
        let _ = self.child.start_kill();
        if timeout(KILL, self.child.wait()).await.is_err() {
            tracing::error!(dir = %self.dir.display(), "a herder does not end after SIGKILL");
        }
        clean(&self.links, &self.link, &self.dir).await;
    }
}

type Started = (Child, Option<ChildStdin>, Arc<Mutex<Vec<String>>>, Client, GetInfoResponse);

async fn start(
    herders: &Herders,
    links: &Links,
    link: &Link,
    dir: &Path,
    class: &str,
    called_off: &CancellationToken,
) -> Result<Started, Error> {
    let mut command = herders.command(class)?;
    // A socket's address has 108 bytes, a data directory may be deeper: both ends name it relative to the directory.
    // Ctrl-C in a terminal goes to the whole foreground group. Herders must outlive it: their actors are suspended first.
    command.process_group(0);
    command.current_dir(dir).args(["serve", "--socket", SOCKET]).arg("--work-dir").arg(dir.join("work"));
    command.args(["--interface", INTERFACE, "--address", &link.address_with_prefix()]);
    command.args(["--gateway", &link.gateway.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| io("start the herder", &e))?;
    let lifeline = child.stdin.take();
    let last_words = Arc::new(Mutex::new(Vec::new()));
    if let Some(stderr) = child.stderr.take() {
        tokio::spawn(copy_log(stderr, dir.to_owned(), last_words.clone()));
    }
    let up = async {
        let shim = child.id().ok_or_else(|| failed("it ended at once"))?;
        let stdout = child.stdout.take().ok_or_else(|| failed("it has no output"))?;
        let inner = step!("herder.announce", announced(stdout), held)?;
        record(dir, &[shim, inner]).map_err(|e| io("record the herder", &e))?;
        let hand_over = async { links.hand_over(link, inner).await.map_err(|e| failed(&e.to_string())) };
        step!("herder.hand-over", hand_over)?;
        let dir = std::fs::File::open(dir).map_err(|e| io("open the worker's directory", &e))?;
        let (client, info) = step!("herder.connect", Client::connect(dir, SOCKET, CONNECT))?;
        of_class(&info, class).map(|()| (client, info))
    };
    let up = tokio::select! {
        up = up => up,
        () = called_off.cancelled() => Err(failed("it is not wanted any more")),
    };
    match up {
        Ok((client, info)) => Ok((child, lifeline, last_words, client, info)),
        Err(mut e) => {
            let _ = child.start_kill();
            let _ = timeout(KILL, child.wait()).await;
            let words = last_words.lock().unwrap_or_else(PoisonError::into_inner).join("; ");
            if !words.is_empty() {
                e.message = format!("{}: {words}", e.message);
            }
            Err(e)
        }
    }
}

/// The pid of the process inside, which the herder prints once its namespaces are there.
async fn announced(stdout: ChildStdout) -> Result<u32, Error> {
    #[derive(Deserialize)]
    struct Announcement {
        pid: u32,
    }
    let mut line = String::new();
    let mut reader = BufReader::new(stdout.take(MAX_ANNOUNCEMENT));
    match timeout(ANNOUNCE, reader.read_line(&mut line)).await {
        Ok(Ok(1..)) => match serde_json::from_str::<Announcement>(&line) {
            Ok(Announcement { pid }) if pid > 1 => Ok(pid),
            _ => Err(failed(&format!("it printed `{}` instead of its pid", line.trim()))),
        },
        Ok(Ok(0)) => Err(failed("it ended before it was up")),
        Ok(Err(e)) => Err(io("read what the herder prints", &e)),
        Err(_) => Err(failed(&format!("it was not up within {ANNOUNCE:?}"))),
    }
}

async fn copy_log(stderr: ChildStderr, dir: PathBuf, last_words: Arc<Mutex<Vec<String>>>) {
    let worker = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_LOG_LINE).read_until(b'\n', &mut line).await {
            Ok(1..) => (),
            _ => return,
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        tracing::debug!(target: "ateom", worker, "{text}");
        let mut words = last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() == LAST_WORDS {
            words.remove(0);
        }
        words.push(text);
    }
}

fn record(dir: &Path, pids: &[u32]) -> std::io::Result<()> {
    let processes = pids.iter().map(|&pid| Process::of(pid)).collect::<Result<_, _>>()?;
    let record = serde_json::to_vec(&Record { processes })?;
    // Not synced: after a power cut there is no herder either.
    fs::write(dir.join(RECORD), record)
}

fn make_dir(dir: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    fs::DirBuilder::new().mode(0o700).create(dir.join("work"))
}

async fn clean(links: &Links, link: &Link, dir: &Path) {
    if let Err(e) = step!("herder.unlink", links.remove(link), plain) {
        tracing::warn!("{e}");
    }
    remove_dir(dir).await;
}

async fn remove_dir(dir: &Path) {
    if let Err(e) = step!("herder.remove", tokio::fs::remove_dir_all(dir), plain) {
        tracing::warn!("cannot remove {}: {e}", dir.display());
    }
}

/// Ends the herders of an earlier run that was killed, and removes their directories. Blocks.
pub(crate) fn clean_stale(workers: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(workers)? {
        let dir = entry?.path();
        let record = fs::read(dir.join(RECORD)).ok().and_then(|r| serde_json::from_slice::<Record>(&r).ok());
        for process in record.into_iter().flat_map(|r| r.processes) {
            if process.kill(KILL)? {
                tracing::warn!(pid = process.pid, "ended a herder that an earlier run left");
            }
        }
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn failed(why: &str) -> Error {
    Error::new(Reason::Unavailable, format!("the herder did not start: {why}"))
}

fn io(what: &str, e: &std::io::Error) -> Error {
    let reason = if crate::disk::is_full(e) { Reason::DiskFull } else { Reason::Unavailable };
    Error::new(reason, format!("cannot {what}: {e}"))
}
