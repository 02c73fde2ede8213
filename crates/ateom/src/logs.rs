//! What containers write to stdout and stderr, as JSON lines that say who wrote them.
//!
//! Each container writes into two pipes that the herder reads: nothing it does can block the herder, and a full pipe
//! only slows the container itself. Files are bounded: a flooding actor overwrites its own past, not the disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::fd::OwnedFd,
    path::PathBuf,
    time::Duration,
};

use serde::Serialize;
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::watch, task::JoinHandle};

use crate::{driver::Activation, process::pipe_to_child};

/// A longer line is cut into several.
pub const MAX_LINE: usize = 16 * 1024;
/// Then `NAME.jsonl` becomes `NAME.jsonl.1`, whose predecessor is gone: two of these per container.
pub const MAX_FILE: u64 = 8 * 1024 * 1024;
/// What was written before the end is in the pipe; a stray holder of the other end is not waited for.
const DRAIN: Duration = Duration::from_millis(50);

/// Whose lines they are and where they go.
#[derive(Debug, Clone, PartialEq)]
struct Owner {
    dir: PathBuf,
    activation: u64,
    actor: String,
    atespace: String,
    template: String,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    stream: &'static str,
    text: &'a str,
    activation: u64,
    actor: &'a str,
    atespace: &'a str,
    template: &'a str,
    container: &'a str,
}

/// The log of one container.
#[derive(Debug)]
pub struct ContainerLog {
    owner: watch::Sender<Option<Owner>>,
    task: JoinHandle<()>,
}

/// The writing ends, for the container.
pub struct Stdio {
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

impl ContainerLog {
    /// Starts to read for the container. What it writes before [`Self::assign`] waits in the pipe.
    pub fn start(container: &str) -> io::Result<(Self, Stdio)> {
        let (out, stdout) = pipe_to_child()?;
        let (err, stderr) = pipe_to_child()?;
        let (owner, owner_rx) = watch::channel(None);
        let task = tokio::spawn(copy(container.to_owned(), out, err, owner_rx));
        Ok((ContainerLog { owner, task }, Stdio { stdout, stderr }))
    }

    /// From now on the lines are this activation's.
    pub fn assign(&self, activation: &Activation) {
        let who = activation.identity.clone().unwrap_or_default();
        self.owner.send_replace(Some(Owner {
            dir: PathBuf::from(&activation.log_dir),
            activation: activation.number,
            actor: who.name,
            atespace: who.atespace,
            template: format!("{}/{}", who.template_namespace, who.template_name),
        }));
    }

    /// Writes what is left. The container has ended.
    pub async fn finish(mut self) {
        drop(self.owner);
        if tokio::time::timeout(DRAIN, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

async fn copy(
    container: String,
    mut out: pipe::Receiver,
    mut err: pipe::Receiver,
    mut owner: watch::Receiver<Option<Owner>>,
) {
    if owner.wait_for(Option::is_some).await.is_err() {
        return; // never assigned to anybody
    }
    let mut sink = Sink { container, file: None, failed: false };
    let (mut out_buffer, mut err_buffer) = (Buffer::new("stdout"), Buffer::new("stderr"));
    let (mut out_open, mut err_open) = (true, true);
    while out_open || err_open {
        tokio::select! {
            n = out.read_buf(&mut out_buffer.bytes), if out_open => out_open = matches!(n, Ok(1..)),
            n = err.read_buf(&mut err_buffer.bytes), if err_open => err_open = matches!(n, Ok(1..)),
        }
        let owner = owner.borrow().clone();
        let Some(owner) = owner else { return };
        for (buffer, open) in [(&mut out_buffer, out_open), (&mut err_buffer, err_open)] {
            while let Some(line) = buffer.take_line(!open) {
                if let Err(e) = sink.write(&owner, buffer.stream, &line)
                    && !std::mem::replace(&mut sink.failed, true)
                {
                    tracing::warn!(container = sink.container, "cannot write the log in {}: {e}", owner.dir.display());
                }
            }
        }
    }
}

/// Bytes of a stream that are not a line yet.
struct Buffer {
    stream: &'static str,
    bytes: Vec<u8>,
}

impl Buffer {
    fn new(stream: &'static str) -> Self {
        Buffer { stream, bytes: Vec::with_capacity(4096) }
    }

    /// The next line, or the next piece of one that is too long; at the end also what has no line end.
    fn take_line(&mut self, at_end: bool) -> Option<String> {
        let scan = &self.bytes[..self.bytes.len().min(MAX_LINE)];
        let (len, skip) = match scan.iter().position(|&b| b == b'\n') {
            Some(end) => (end, 1),
            None if scan.len() == MAX_LINE || (at_end && !scan.is_empty()) => (scan.len(), 0),
            None => return None,
        };
        let line = String::from_utf8_lossy(&self.bytes[..len]).into_owned();
        self.bytes.drain(..len + skip);
        Some(line)
    }
}

struct Sink {
    container: String,
    file: Option<(PathBuf, File, u64)>,
    /// Said once.
    failed: bool,
}

impl Sink {
    fn write(&mut self, owner: &Owner, stream: &'static str, text: &str) -> io::Result<()> {
        let line = Line {
            time: jiff::Timestamp::now().to_string(),
            stream,
            text,
            activation: owner.activation,
            actor: &owner.actor,
            atespace: &owner.atespace,
            template: &owner.template,
            container: &self.container,
        };
        let mut bytes = serde_json::to_vec(&line)?;
        bytes.push(b'\n');
        let path = owner.dir.join(format!("{}.jsonl", self.container));
        if self.file.as_ref().is_none_or(|(open, _, size)| *open != path || *size >= MAX_FILE) {
            self.file = Some(open(path)?);
        }
        if let Some((_, file, size)) = &mut self.file {
            file.write_all(&bytes)?;
            *size += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Opens a log to append to it, after setting it aside if it is full.
fn open(path: PathBuf) -> io::Result<(PathBuf, File, u64)> {
    if path.metadata().is_ok_and(|m| m.len() >= MAX_FILE) {
        let mut aside = path.clone().into_os_string();
        aside.push(".1");
        std::fs::rename(&path, aside)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(&path)?;
    let size = file.metadata()?.len();
    Ok((path, file, size))
}
