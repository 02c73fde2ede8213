//! The agent's side of the control port: one request after the other.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use ate_guest::{
    frame::Kind,
    protocol::{self, Answer, CONTROL, MAX_DATA, MAX_REQUEST, Request, VERSION, Wake},
};

use crate::{cgroup::Freezer, containers::Containers, identity::Identity, logs::Logs, port::Port};

/// Serves for ever; an error ends the machine.
pub(crate) fn serve() -> Result<()> {
    let mut port = Port::open(CONTROL)?;
    let logs = Arc::new(Logs::open()?);
    let mut containers = Containers::new(logs.clone());
    let mut next = Next { identity: Identity::new()?, freezer: Freezer::open()? };
    loop {
        let answer = match message(&mut port)? {
            Request::Freeze => {
                freeze(&mut port, &logs, &containers, &mut next)?;
                continue;
            }
            request => answer(&mut port, &mut containers, &mut next, request),
        };
        tell(&mut port, answer)?;
    }
}

fn answer(port: &mut Port, containers: &mut Containers, next: &mut Next, request: Request) -> Result<Answer> {
    match request {
        Request::Hello => {
            let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
            return Ok(Answer::Hello { protocol: VERSION, version: env!("CARGO_PKG_VERSION").into(), kernel });
        }
        Request::Boot(boot) => containers.boot(&boot, &mut next.identity)?,
        Request::Unpack => {
            let mut data = Incoming { port, piece: Vec::new(), at: 0, ended: false };
            let unpacked = ate_volumes::unpack(&mut data, containers.volumes());
            data.drain()?;
            unpacked?;
        }
        Request::Start => containers.start()?,
        // Whoever failed to freeze it, or does not know, wakes it in any case.
        Request::Wake(wake) => return next.go_on(&wake).map(|()| Answer::Awake),
        Request::Freeze | Request::Pack => bail!("only a frozen machine does that"),
    }
    Ok(Answer::Done)
}

/// Until somebody wakes it, this machine writes nothing but answers.
fn freeze(port: &mut Port, logs: &Logs, containers: &Containers, next: &mut Next) -> Result<()> {
    if let Err(e) = next.freezer.freeze() {
        return tell(port, Err(e));
    }
    let quiet = logs.hold();
    tell(port, Ok(Answer::Frozen))?;
    loop {
        match message(port)? {
            Request::Wake(wake) => {
                let awake = next.go_on(&wake);
                drop(quiet);
                return tell(port, awake.map(|()| Answer::Awake));
            }
            Request::Pack => {
                let packed = pack(port, containers.volumes());
                tell(port, packed.map(|()| Answer::Done))?;
            }
            Request::Freeze => tell(port, Ok(Answer::Frozen))?,
            _ => tell(port, Err(anyhow::anyhow!("a frozen machine does nothing else")))?,
        }
    }
}

/// What is needed to go on, kept at hand.
struct Next {
    identity: Identity,
    freezer: Freezer,
}

impl Next {
    fn go_on(&mut self, wake: &Wake) -> Result<()> {
        self.identity.assume(wake)?;
        self.freezer.thaw()
    }
}

fn pack(port: &mut Port, volumes: &BTreeMap<String, PathBuf>) -> Result<()> {
    let writer = io::BufWriter::with_capacity(MAX_DATA, Outgoing(port));
    let packed = ate_volumes::pack(volumes, writer).map_err(anyhow::Error::from);
    let flushed = packed.and_then(|mut writer| writer.flush().context("cannot send the archive"));
    // The end comes in any case: the other side waits for it.
    port.write(Kind::Data, &[])?;
    flushed
}

fn message(port: &mut Port) -> Result<Request> {
    let frame = port.read(MAX_REQUEST)?;
    if frame.kind != Kind::Message {
        bail!("a {:?} frame where a message was expected", frame.kind);
    }
    protocol::decode(&frame.payload).context("a request that is not of this protocol")
}

fn tell(port: &mut Port, answer: Result<Answer>) -> Result<()> {
    let answer = answer.unwrap_or_else(|e| Answer::Failed { message: format!("{e:#}") });
    port.write(Kind::Message, &[&protocol::encode(&answer)?]).context("cannot answer")
}

/// Data frames as a writer. An empty write would be an end.
struct Outgoing<'a>(&'a mut Port);

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(MAX_DATA)];
        if !piece.is_empty() {
            self.0.write(Kind::Data, &[piece])?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Data frames as a reader.
struct Incoming<'a> {
    port: &'a mut Port,
    piece: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Incoming<'_> {
    fn next(&mut self) -> io::Result<()> {
        let frame = self.port.read(MAX_DATA).map_err(io::Error::other)?;
        if frame.kind != Kind::Data {
            return Err(io::Error::other("a frame that is no data"));
        }
        self.ended = frame.payload.is_empty();
        (self.piece, self.at) = (frame.payload, 0);
        Ok(())
    }

    /// What nobody read: the next request comes after it.
    fn drain(&mut self) -> io::Result<()> {
        while !self.ended {
            self.next()?;
        }
        Ok(())
    }
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && !self.ended {
            self.next()?;
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
