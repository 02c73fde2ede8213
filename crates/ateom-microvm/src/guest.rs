//! The herder's side of the control port: questions to the agent in the machine.
//!
//! Nothing that comes from there is trusted: sizes are capped, every wait is bounded, and an answer that is not one
//! is an error of this machine alone.

use std::time::Duration;

use ate_api::Error;
use ate_guest::{
    frame::{self, HEADER, Kind},
    protocol::{Answer, MAX_ANSWER, MAX_DATA, Request},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::error::failed;

/// Pieces of an archive on their way between the port and the disk.
const AHEAD: usize = 4;

pub(crate) struct Guest {
    port: UnixStream,
}

impl Guest {
    pub(crate) fn new(port: UnixStream) -> Self {
        Guest { port }
    }

    /// Asks and waits for the answer; an answer that it failed is an error.
    pub(crate) async fn ask(&mut self, request: &Request, limit: Duration) -> Result<Answer, Error> {
        let deadline = Instant::now() + limit;
        self.tell(request, deadline).await?;
        self.answer(deadline).await
    }

    /// Asks without waiting: the machine may not run yet.
    pub(crate) async fn tell(&mut self, request: &Request, deadline: Instant) -> Result<(), Error> {
        let message = serde_json::to_vec(request).map_err(|e| failed(format!("cannot write a request: {e}")))?;
        self.write(Kind::Message, &message, deadline).await
    }

    pub(crate) async fn answer(&mut self, deadline: Instant) -> Result<Answer, Error> {
        let (kind, payload) = self.frame(MAX_ANSWER, deadline).await?;
        if kind != Kind::Message {
            return Err(failed("the guest agent sends data nobody asked for"));
        }
        match serde_json::from_slice(&payload) {
            Ok(Answer::Failed { message }) => {
                Err(failed(format!("the guest agent says: {}", message.chars().take(500).collect::<String>())))
            }
            Ok(answer) => Ok(answer),
            Err(e) => Err(failed(format!("the guest agent does not speak the protocol: {e}"))),
        }
    }

    /// Sends pieces until there are no more, then waits for the answer.
    pub(crate) async fn send(&mut self, mut pieces: mpsc::Receiver<Vec<u8>>, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        self.tell(&Request::Unpack, deadline).await?;
        while let Some(piece) = pieces.recv().await {
            for part in piece.chunks(MAX_DATA).filter(|p| !p.is_empty()) {
                self.write(Kind::Data, part, deadline).await?;
            }
        }
        self.write(Kind::Data, &[], deadline).await?;
        self.answer(deadline).await.map(drop)
    }

    /// Receives pieces of at most `max` bytes together.
    pub(crate) async fn receive(
        &mut self,
        pieces: mpsc::Sender<Vec<u8>>,
        max: u64,
        limit: Duration,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        self.tell(&Request::Pack, deadline).await?;
        let mut bytes = 0u64;
        loop {
            let (kind, piece) = self.frame(MAX_DATA, deadline).await?;
            if kind != Kind::Data {
                return Err(failed("the guest agent broke off in the middle of an archive"));
            }
            if piece.is_empty() {
                break;
            }
            bytes += piece.len() as u64;
            if bytes > max {
                return Err(failed(format!("the archive of durable directories is larger than {max} bytes")));
            }
            // Whoever writes has failed and says so itself.
            let _ = pieces.send(piece).await;
        }
        self.answer(deadline).await.map(drop)
    }

    async fn write(&mut self, kind: Kind, payload: &[u8], deadline: Instant) -> Result<(), Error> {
        let frame = frame::encode(kind, payload);
        let written = timeout_at(deadline, self.port.write_all(&frame)).await;
        written.map_err(|_| late())?.map_err(|e| failed(format!("cannot reach the guest agent: {e}")))
    }

    async fn frame(&mut self, max: usize, deadline: Instant) -> Result<(Kind, Vec<u8>), Error> {
        let read = async {
            let mut head = [0; HEADER];
            self.port.read_exact(&mut head).await.map_err(|e| failed(format!("the guest agent is gone: {e}")))?;
            let (kind, len) =
                frame::parse_header(head, max).map_err(|e| failed(format!("the guest agent sent {e}")))?;
            let mut payload = vec![0; len];
            let read = self.port.read_exact(&mut payload).await;
            read.map_err(|e| failed(format!("the guest agent is gone: {e}")))?;
            Ok((kind, payload))
        };
        timeout_at(deadline, read).await.map_err(|_| late())?
    }
}

/// A channel of pieces with a bounded number under way.
pub(crate) fn pieces() -> (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>) {
    mpsc::channel(AHEAD)
}

fn late() -> Error {
    Error::new(ate_api::Reason::DeadlineExceeded, "the guest agent did not answer in time")
}

#[cfg(test)]
mod tests {
    use ate_guest::protocol::VERSION;
    use tokio::io::AsyncWriteExt;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    /// What the herder makes of these bytes from the guest.
    async fn hears(bytes: &[u8]) -> Result<Answer, Error> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let bytes = bytes.to_vec();
        let guest = tokio::spawn(async move {
            let _ = theirs.write_all(&bytes).await;
            let mut asked = Vec::new();
            let _ = theirs.read_to_end(&mut asked).await;
        });
        let mut herder = Guest::new(ours);
        let answer = herder.ask(&Request::Hello, LIMIT).await;
        drop(herder);
        guest.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn an_answer_is_heard() {
        let hello = Answer::Hello { protocol: VERSION, version: "1".into(), kernel: "6".into() };
        let frame = frame::encode(Kind::Message, &serde_json::to_vec(&hello).unwrap());
        assert_eq!(hears(&frame).await.unwrap(), hello);
        let failed = Answer::Failed { message: "x".repeat(10_000) };
        let frame = frame::encode(Kind::Message, &serde_json::to_vec(&failed).unwrap());
        assert!(hears(&frame).await.unwrap_err().message.len() < 1000);
    }

    #[tokio::test]
    async fn a_guest_that_lies_floods_or_says_nothing_is_an_error_and_no_more() {
        let too_long = frame::header(Kind::Message, MAX_ANSWER + 1);
        let empty = frame::encode(Kind::Message, b"");
        let data = frame::encode(Kind::Data, b"x");
        let half = &frame::encode(Kind::Message, b"{\"answer\":\"done\"}")[..9];
        for bytes in [&too_long[..], &empty, &data, half, &[0xff; 4096], b"\0\0\0\0\x09", b""] {
            assert!(hears(bytes).await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn an_archive_larger_than_the_cap_is_refused() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let guest = tokio::spawn(async move {
            let piece = frame::encode(Kind::Data, &[7; 1000]);
            while theirs.write_all(&piece).await.is_ok() {}
        });
        let (tx, mut rx) = pieces();
        let sink = tokio::spawn(async move { while rx.recv().await.is_some() {} });
        let mut herder = Guest::new(ours);
        let e = herder.receive(tx, 10_000, Duration::from_secs(5)).await.unwrap_err();
        assert!(e.message.contains("larger than 10000"), "{e}");
        drop(herder);
        guest.await.unwrap();
        sink.await.unwrap();
    }
}
