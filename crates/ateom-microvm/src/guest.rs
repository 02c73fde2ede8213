//! The herder's side of the control port: questions to the agent in the machine.
//!
//! Nothing that comes from there is trusted: sizes are capped, every wait is bounded, and an answer that is not one
//! is an error of this machine alone.

use std::time::Duration;

use ate_api::Error;
use ate_guest::{
    frame::{self, HEADER, Kind},
    protocol::{self, Answer, MAX_ANSWER, MAX_DATA, Request},
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
    /// The beginning of the next frame.
    begun: Vec<u8>,
    /// Answers nobody waits for any more. They come before the one to the next question.
    late: usize,
}

impl Guest {
    pub(crate) fn new(port: UnixStream) -> Self {
        Guest { port, begun: Vec::new(), late: 0 }
    }

    /// Asks and waits for the answer; an answer that it failed is an error.
    pub(crate) async fn ask(&mut self, request: &Request, limit: Duration) -> Result<Answer, Error> {
        let deadline = Instant::now() + limit;
        self.tell(request, deadline).await?;
        self.answer(deadline).await
    }

    /// Asks without waiting: the machine may not run yet.
    pub(crate) async fn tell(&mut self, request: &Request, deadline: Instant) -> Result<(), Error> {
        let message = protocol::encode(request).map_err(|e| failed(format!("cannot write a request: {e}")))?;
        self.write(Kind::Message, &message, deadline).await
    }

    pub(crate) async fn answer(&mut self, deadline: Instant) -> Result<Answer, Error> {
        let in_time = timeout_at(deadline, self.next_answer()).await;
        in_time.unwrap_or_else(|_| {
            self.late += 1;
            Err(late())
        })
    }

    async fn next_answer(&mut self) -> Result<Answer, Error> {
        while self.late > 0 {
            let (kind, _) = self.frame(MAX_DATA).await?;
            self.late -= usize::from(kind == Kind::Message);
        }
        let (kind, payload) = self.frame(MAX_ANSWER).await?;
        if kind != Kind::Message {
            return Err(failed("the guest agent sends data nobody asked for"));
        }
        match protocol::decode(&payload) {
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
            let Ok(frame) = timeout_at(deadline, self.frame(MAX_DATA)).await else {
                self.late += 1;
                return Err(late());
            };
            let (kind, piece) = frame?;
            if kind != Kind::Data {
                return Err(failed("the guest agent broke off in the middle of an archive"));
            }
            if piece.is_empty() {
                break;
            }
            bytes += piece.len() as u64;
            if bytes > max {
                self.late += 1;
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

    /// The next frame. Nothing is lost when this is dropped before it is complete.
    async fn frame(&mut self, max: usize) -> Result<(Kind, Vec<u8>), Error> {
        self.fill(HEADER).await?;
        let mut head = [0; HEADER];
        head.copy_from_slice(&self.begun[..HEADER]);
        let (kind, len) = frame::parse_header(head, max).map_err(|e| failed(format!("the guest agent sent {e}")))?;
        self.fill(HEADER + len).await?;
        let payload = self.begun.split_off(HEADER);
        self.begun.clear();
        Ok((kind, payload))
    }

    /// Reads until so many bytes of the frame are there, and none of the next one.
    async fn fill(&mut self, len: usize) -> Result<(), Error> {
        while self.begun.len() < len {
            let missing = len - self.begun.len();
            self.begun.reserve(missing);
            let read = (&mut self.port).take(missing as u64).read_buf(&mut self.begun).await;
            if read.map_err(|e| failed(format!("the guest agent is gone: {e}")))? == 0 {
                return Err(failed("the guest agent is gone"));
            }
        }
        Ok(())
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
        assert_eq!(hears(&message(&hello)).await.unwrap(), hello);
        let failed = Answer::Failed { message: "x".repeat(10_000) };
        assert!(hears(&message(&failed)).await.unwrap_err().message.len() < 1000);
    }

    #[tokio::test]
    async fn a_guest_that_lies_floods_or_says_nothing_is_an_error_and_no_more() {
        let too_long = frame::header(Kind::Message, MAX_ANSWER + 1);
        let empty = frame::encode(Kind::Message, b"");
        let data = frame::encode(Kind::Data, b"x");
        let half = &message(&Answer::Failed { message: "no".into() })[..HEADER + 2];
        for bytes in [&too_long[..], &empty, &data, half, &[0xff; 4096], b"\0\0\0\0\x09", b""] {
            assert!(hears(bytes).await.is_err(), "{bytes:?}");
        }
    }

    /// Answers this when it is asked.
    async fn answer(theirs: &mut UnixStream, with: Vec<u8>) {
        let mut head = [0; HEADER];
        theirs.read_exact(&mut head).await.unwrap();
        let (_, len) = frame::parse_header(head, MAX_DATA).unwrap();
        theirs.read_exact(&mut vec![0; len]).await.unwrap();
        theirs.write_all(&with).await.unwrap();
    }

    fn message(answer: &Answer) -> Vec<u8> {
        frame::encode(Kind::Message, &protocol::encode(answer).unwrap())
    }

    #[tokio::test]
    async fn an_answer_that_comes_too_late_is_not_taken_for_the_next_one() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut herder = Guest::new(ours);
        let (frozen, awake) = (message(&Answer::Frozen), message(&Answer::Awake));
        // Half of it in time, then nothing.
        let (begin, end) = frozen.split_at(HEADER);
        let asking = herder.ask(&Request::Freeze, Duration::from_millis(100));
        let (late, ()) = tokio::join!(asking, answer(&mut theirs, begin.to_vec()));
        assert_eq!(late.unwrap_err().reason, ate_api::Reason::DeadlineExceeded);
        let asking = herder.ask(&Request::Freeze, LIMIT);
        let (heard, ()) = tokio::join!(asking, answer(&mut theirs, [end, &awake].concat()));
        assert_eq!(heard.unwrap(), Answer::Awake);
    }

    #[tokio::test]
    async fn what_is_left_of_an_archive_that_was_given_up_is_not_taken_for_an_answer() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut herder = Guest::new(ours);
        let (tx, _rx) = pieces();
        let piece = frame::encode(Kind::Data, &[7; 1000]);
        let (end, done) = (frame::encode(Kind::Data, &[]), message(&Answer::Done));
        let all = [&piece[..], &piece, &piece, &end, &done].concat();
        let packing = herder.receive(tx, 1500, LIMIT);
        let (given_up, ()) = tokio::join!(packing, answer(&mut theirs, all));
        assert!(given_up.is_err());
        let asking = herder.ask(&Request::Freeze, LIMIT);
        let (heard, ()) = tokio::join!(asking, answer(&mut theirs, message(&Answer::Frozen)));
        assert_eq!(heard.unwrap(), Answer::Frozen);
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

    #[test]
    fn fuzz_what_a_guest_sends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        ate_fuzz::Target::named("microvm.guest-port")
            .sample("answer", || message(&Answer::Frozen))
            .sample("archive", || {
                let data = |bytes: &[u8]| frame::encode(Kind::Data, bytes);
                [data(&[7; 1000]), data(b"more"), data(b""), message(&Answer::Done)].concat()
            })
            .run(|bytes| {
                runtime.block_on(async {
                    let answer = told(bytes, async |herder| herder.ask(&Request::Hello, LIMIT).await.map(drop)).await;
                    let archive = told(bytes, async |herder| {
                        let (tx, mut rx) = pieces();
                        let sink = async { while rx.recv().await.is_some() {} };
                        tokio::join!(herder.receive(tx, 1 << 20, LIMIT), sink).0
                    });
                    archive.await.or(answer)
                })
            });
    }

    /// What comes of a question when the guest says this and no more.
    async fn told(bytes: &[u8], ask: impl AsyncFnOnce(&mut Guest) -> Result<(), Error>) -> Result<(), Error> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let says = async {
            let _ = theirs.write_all(bytes).await;
            let _ = theirs.shutdown().await;
            let _ = theirs.read_to_end(&mut Vec::new()).await;
        };
        let asks = async {
            let mut herder = Guest::new(ours);
            let result = ask(&mut herder).await;
            assert!(herder.begun.capacity() <= 2 * (HEADER + MAX_DATA));
            result
        };
        tokio::join!(says, asks).1
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(1000))]

        #[test]
        fn whatever_a_guest_says_ends_in_an_answer_or_an_error_and_fills_no_memory(
            bytes in crate::testing::hostile(),
            archive: bool,
            late in 0usize..3,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                let mut herder = Guest { late, ..Guest::new(ours) };
                let says = tokio::spawn(async move {
                    let _ = theirs.write_all(&bytes).await;
                    drop(theirs);
                });
                let (tx, mut rx) = pieces();
                let sink = tokio::spawn(async move { while rx.recv().await.is_some() {} });
                let limit = Duration::from_secs(10);
                let since = Instant::now();
                match archive {
                    true => drop(herder.receive(tx, 1 << 20, limit).await),
                    false => drop((herder.ask(&Request::Hello, limit).await, tx)),
                }
                assert!(since.elapsed() < limit, "nobody waits for one who has gone");
                assert!(herder.begun.capacity() <= 2 * (HEADER + MAX_DATA));
                drop(herder);
                says.await.unwrap();
                sink.await.unwrap();
            });
        }
    }
}
