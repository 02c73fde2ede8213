//! The herder's side of the log port: what containers write, and that they have ended.

use std::{io, sync::Arc, time::Duration};

use ate_guest::{
    frame::{self, HEADER, Kind},
    protocol::{self, Event, MAX_DATA},
};
use ateom::{
    driver::{Activation, Workload},
    logs::{ContainerLog, Stdio},
};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixStream, unix::pipe},
    sync::{Mutex, OwnedMutexGuard, watch},
    task::JoinHandle,
    time::timeout,
};

/// For reading what a machine that has ended left in its port.
const REST: Duration = Duration::from_secs(1);

/// How the first container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContainerEnd {
    Code(i32),
    Signal(i32),
}

/// Logs of all containers of a machine.
pub(crate) struct Logs {
    containers: Vec<ContainerLog>,
    task: JoinHandle<()>,
    port: Arc<Mutex<()>>,
    held: Option<OwnedMutexGuard<()>>,
    end: watch::Receiver<Option<ContainerEnd>>,
}

struct Sink {
    out: pipe::Sender,
    err: pipe::Sender,
}

impl Logs {
    /// Reads the port from now on. What arrives before [`Self::assign`] waits.
    pub(crate) fn start(port: UnixStream, workload: &Workload) -> std::io::Result<Self> {
        let (mut containers, mut sinks) = (Vec::new(), Vec::new());
        for container in &workload.containers {
            let (log, Stdio { stdout, stderr }) = ContainerLog::start(&container.name)?;
            containers.push(log);
            sinks.push(Sink { out: pipe::Sender::from_owned_fd(stdout)?, err: pipe::Sender::from_owned_fd(stderr)? });
        }
        let (ended, end) = watch::channel(None);
        let turn: Arc<Mutex<()>> = Arc::default();
        let port = Port { stream: port, turn: turn.clone() };
        let task = tokio::spawn(async move {
            if let Err(why) = copy(port, sinks, &ended).await {
                tracing::warn!("the guest's log ends: {why}");
            }
        });
        Ok(Logs { containers, task, port: turn, held: None, end })
    }

    /// Nothing is read any more: as long as a machine is saved. The VMM takes what the guest has written out of the
    /// guest's memory whenever there is room in the port, though the machine is stopped; what it saved of the device
    /// before would not fit that memory.
    pub(crate) async fn hold(&mut self) {
        if self.held.is_none() {
            self.held = Some(self.port.clone().lock_owned().await);
        }
    }

    /// The machine goes on.
    pub(crate) fn release(&mut self) {
        self.held = None;
    }

    /// From now on the lines are this activation's.
    pub(crate) fn assign(&self, activation: &Activation) {
        self.containers.iter().for_each(|c| c.assign(activation));
    }

    /// Resolves when the first container ends.
    pub(crate) async fn ended(&mut self) -> ContainerEnd {
        let end = self.end.wait_for(Option::is_some).await.ok().and_then(|end| *end);
        match end {
            Some(end) => end,
            // The port is gone: so is the machine, and that is seen elsewhere.
            None => std::future::pending().await,
        }
    }

    /// Writes what is left. The machine has ended.
    pub(crate) async fn finish(mut self) {
        self.release();
        if timeout(REST, &mut self.task).await.is_err() {
            self.task.abort();
            let _ = self.task.await;
        }
        for container in self.containers {
            container.finish().await;
        }
    }
}

struct Port {
    stream: UnixStream,
    /// Whoever has it may read.
    turn: Arc<Mutex<()>>,
}

impl Port {
    /// # Errors
    /// Also at the end of what there is.
    async fn read_exact(&self, mut buf: &mut [u8]) -> io::Result<()> {
        while !buf.is_empty() {
            self.stream.readable().await?;
            let turn = self.turn.lock().await;
            match self.stream.try_read(buf) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => buf = &mut buf[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            drop(turn);
        }
        Ok(())
    }
}

/// Until the machine ends or talks nonsense.
async fn copy(port: Port, mut sinks: Vec<Sink>, ended: &watch::Sender<Option<ContainerEnd>>) -> Result<(), String> {
    let mut payload = Vec::new();
    loop {
        let mut head = [0; HEADER];
        if port.read_exact(&mut head).await.is_err() {
            return Ok(());
        }
        let (kind, len) = frame::parse_header(head, MAX_DATA).map_err(|e| e.to_string())?;
        payload.resize(len, 0);
        if port.read_exact(&mut payload).await.is_err() {
            return Ok(());
        }
        match (kind, &payload[..]) {
            (Kind::Log, [container, stream, text @ ..]) => {
                let Some(sink) = sinks.get_mut(usize::from(*container)) else {
                    return Err(format!("there is no container {container}"));
                };
                let to = if *stream == 2 { &mut sink.err } else { &mut sink.out };
                // A full pipe slows the container, as it does anywhere.
                to.write_all(text).await.map_err(|e| e.to_string())?;
            }
            (Kind::Message, message) => {
                let event: Event = protocol::decode(message).map_err(|e| e.to_string())?;
                let Event::Exited { container, code, signal } = event;
                if container == 0 {
                    let end = signal.map_or(ContainerEnd::Code(code.unwrap_or(-1)), ContainerEnd::Signal);
                    ended.send_replace(Some(end));
                }
            }
            _ => return Err("a frame that does not belong there".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ateom::driver::Container;

    use super::*;

    async fn told(frames: &[u8]) -> (String, Option<ContainerEnd>) {
        let dir = tempfile::tempdir().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let workload = Workload {
            containers: vec![Container { name: "main".into(), ..Container::default() }],
            ..Workload::default()
        };
        let mut logs = Logs::start(ours, &workload).unwrap();
        let log_dir = dir.path().to_string_lossy().into_owned();
        logs.assign(&Activation { number: 1, log_dir, ..Activation::default() });
        theirs.write_all(frames).await.unwrap();
        drop(theirs);
        (&mut logs.task).await.unwrap();
        let end = *logs.end.borrow();
        for container in logs.containers {
            container.finish().await;
        }
        (std::fs::read_to_string(dir.path().join("main.jsonl")).unwrap_or_default(), end)
    }

    #[tokio::test]
    async fn lines_and_ends_of_containers_arrive() {
        let line = frame::encode(Kind::Log, &[&[0, 1][..], b"hello\n"].concat());
        let exited = Event::Exited { container: 0, code: Some(3), signal: None };
        let end = frame::encode(Kind::Message, &protocol::encode(&exited).unwrap());
        let (log, ended) = told(&[line, end].concat()).await;
        assert!(log.contains("hello"), "{log}");
        assert_eq!(ended, Some(ContainerEnd::Code(3)));
    }

    #[tokio::test]
    async fn nonsense_ends_the_log_and_nothing_else() {
        let line = frame::encode(Kind::Log, &[&[0, 1][..], b"before\n"].concat());
        for bad in [
            frame::encode(Kind::Log, &[9, 1, b'x']),
            frame::encode(Kind::Log, &[]),
            frame::encode(Kind::Data, b"x"),
            frame::encode(Kind::Message, b"{}"),
            frame::header(Kind::Log, MAX_DATA + 1).to_vec(),
        ] {
            let (log, ended) = told(&[&line[..], &bad, &line].concat()).await;
            assert_eq!((log.matches("before").count(), ended), (1, None), "{bad:?}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1000))]

        #[test]
        fn whatever_a_guest_logs_is_read_to_its_end_or_refused(bytes in crate::testing::hostile()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                let containers = vec![Container { name: "main".into(), ..Container::default() }; 2];
                let mut logs = Logs::start(ours, &Workload { containers, ..Workload::default() }).unwrap();
                let dir = tempfile::tempdir().unwrap();
                let log_dir = dir.path().to_string_lossy().into_owned();
                logs.assign(&Activation { number: 1, log_dir, ..Activation::default() });
                let says = tokio::spawn(async move {
                    let _ = theirs.write_all(&bytes).await;
                    drop(theirs);
                });
                let ended = tokio::time::timeout(std::time::Duration::from_secs(10), &mut logs.task).await;
                ended.expect("it ends with the port").unwrap();
                says.await.unwrap();
            });
        }
    }
}
