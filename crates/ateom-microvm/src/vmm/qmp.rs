//! QEMU's machine protocol: one JSON object a line. Commands are answered in order; events come in between.
//!
//! The other side is the VMM, which a hostile guest may have taken over: lines are capped.

use std::{collections::VecDeque, time::Duration};

use ate_api::Error;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, timeout_at},
};

use crate::error::failed;

/// Answers are small; those that are not are asked by nobody here.
const MAX_LINE: usize = 1 << 20;
/// Events nobody has asked for yet; the oldest are forgotten.
const MAX_EVENTS: usize = 64;

pub(crate) struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
    events: VecDeque<Value>,
}

/// A command and its arguments.
pub(crate) type Command<'a> = (&'a str, Value);

impl Qmp {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Qmp { stream, buffer: Vec::new(), events: VecDeque::new() }
    }

    /// Waits for the VMM to be up.
    pub(crate) async fn greet(&mut self, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        let greeting = self.line(deadline).await?;
        if greeting.get("QMP").is_none() {
            return Err(failed("the VMM does not greet as QEMU does"));
        }
        self.all(&[("qmp_capabilities", Value::Null)], limit).await
    }

    /// Sends all commands at once; the first that fails is the error.
    pub(crate) async fn all(&mut self, commands: &[Command<'_>], limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        self.send(commands, deadline).await?;
        self.answers(commands, deadline).await
    }

    async fn send(&mut self, commands: &[Command<'_>], deadline: Instant) -> Result<(), Error> {
        let mut text = String::new();
        for (command, arguments) in commands {
            let mut object = json!({ "execute": command });
            if !arguments.is_null() {
                object["arguments"] = arguments.clone();
            }
            text += &object.to_string();
            text.push('\n');
        }
        let written = timeout_at(deadline, self.stream.write_all(text.as_bytes())).await;
        written.map_err(|_| late())?.map_err(|e| failed(format!("cannot command the VMM: {e}")))
    }

    async fn answers(&mut self, commands: &[Command<'_>], deadline: Instant) -> Result<(), Error> {
        let mut first_error = None;
        for (command, _) in commands {
            let answer = loop {
                let line = self.line(deadline).await?;
                if line.get("event").is_some() {
                    self.keep(line);
                } else {
                    break line;
                }
            };
            if let Some(error) = answer.get("error") {
                let why = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                first_error.get_or_insert_with(|| failed(format!("the VMM refused {command}: {why}")));
            }
        }
        first_error.map_or(Ok(()), Err)
    }

    fn keep(&mut self, event: Value) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The next event that `wanted` has an answer for; others are dropped.
    pub(crate) async fn event<T>(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&str, &Value) -> Option<T>,
    ) -> Result<T, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.line(deadline).await?,
            };
            let name = event.get("event").and_then(Value::as_str).unwrap_or_default();
            if let Some(found) = wanted(name, event.get("data").unwrap_or(&Value::Null)) {
                return Ok(found);
            }
        }
    }

    async fn line(&mut self, deadline: Instant) -> Result<Value, Error> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|e| failed(format!("the VMM does not speak QMP: {e}")));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(failed("the VMM says more than it should"));
            }
            match timeout_at(deadline, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) => return Err(failed("the VMM has ended")),
                Ok(Err(e)) => return Err(failed(format!("cannot hear the VMM: {e}"))),
                Err(_) => return Err(late()),
            }
        }
    }
}

fn late() -> Error {
    Error::new(ate_api::Reason::DeadlineExceeded, "the VMM did not answer in time")
}

#[cfg(test)]
mod tests {
    use proptest::strategy::Strategy;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn answered(with: &'static [u8]) -> Result<(), Error> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let vmm = tokio::spawn(async move {
            let _ = theirs.write_all(with).await;
            let mut sink = Vec::new();
            let _ = theirs.read_to_end(&mut sink).await;
        });
        let mut qmp = Qmp::new(ours);
        let result = qmp.all(&[("one", Value::Null), ("two", json!({"a": 1}))], LIMIT).await;
        drop(qmp);
        vmm.await.unwrap();
        result
    }

    #[tokio::test]
    async fn answers_come_in_order_with_events_in_between() {
        answered(b"{\"return\":{}}\r\n{\"event\":\"STOP\"}\n{\"return\":{}}\n").await.unwrap();
        let e = answered(b"{\"return\":{}}\n{\"error\":{\"desc\":\"no\"}}\n").await.unwrap_err();
        assert!(e.message.contains("two: no"), "{e}");
    }

    #[tokio::test]
    async fn a_vmm_that_ends_or_babbles_is_an_error() {
        assert!(answered(b"{\"return\":{}}\nnot json\n").await.is_err());
        let long = vec![b'x'; MAX_LINE + 2];
        assert!(answered(long.leak()).await.unwrap_err().message.contains("more than it should"));
    }

    #[tokio::test]
    async fn events_that_came_early_are_not_lost() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"{\"event\":\"A\",\"data\":{\"n\":1}}\n{\"return\":{}}\n").await.unwrap();
        let mut qmp = Qmp::new(ours);
        qmp.all(&[("x", Value::Null)], LIMIT).await.unwrap();
        let n = qmp.event(LIMIT, |name, data| (name == "A").then(|| data["n"].as_u64())).await.unwrap();
        assert_eq!(n, Some(1));
    }

    #[tokio::test]
    async fn a_vmm_that_never_stops_to_tell_events_is_late() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let vmm = tokio::spawn(async move { while theirs.write_all(b"{\"event\":\"X\"}\n").await.is_ok() {} });
        let mut qmp = Qmp::new(ours);
        let limit = Duration::from_millis(200);
        let e = qmp.all(&[("x", Value::Null)], limit).await.unwrap_err();
        assert_eq!(e.reason, ate_api::Reason::DeadlineExceeded);
        let e = qmp.event(limit, |name, _| (name == "Y").then_some(())).await.unwrap_err();
        assert_eq!(e.reason, ate_api::Reason::DeadlineExceeded);
        assert!(qmp.events.len() <= MAX_EVENTS && qmp.buffer.capacity() < 2 * MAX_LINE);
        drop(qmp);
        vmm.await.unwrap();
    }

    #[test]
    fn fuzz_what_a_vmm_says() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        ate_fuzz::Target::named("microvm.qmp")
            .sample("migrates", || {
                let says = r#"{"QMP":{"version":{}}}
{"return":{}}
{"event":"STOP"}
{"return":{}}
{"event":"MIGRATION","data":{"status":"completed"}}
"#;
                says.as_bytes().to_vec()
            })
            .run(|bytes| {
                runtime.block_on(async {
                    let (ours, mut theirs) = UnixStream::pair().unwrap();
                    let says = async {
                        let _ = theirs.write_all(bytes).await;
                        let _ = theirs.shutdown().await;
                        // What the herder wrote may stay unread.
                    };
                    let asks = async {
                        let mut qmp = Qmp::new(ours);
                        qmp.greet(LIMIT).await?;
                        qmp.all(&[("x", Value::Null)], LIMIT).await?;
                        let status = |name: &str, data: &Value| (name == "MIGRATION").then(|| data.clone());
                        let found = qmp.event(LIMIT, status).await.map(drop);
                        assert!(qmp.events.len() <= MAX_EVENTS && qmp.buffer.capacity() < 4 * MAX_LINE);
                        found
                    };
                    tokio::join!(says, asks).1
                })
            });
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_vmm_says_ends_in_an_answer_or_an_error(
            lines in proptest::collection::vec(proptest::prop_oneof![
                proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
                proptest::sample::select(vec![
                    &b"{\"return\":{}}"[..], b"{\"event\":7}", b"{\"error\":[]}", b"{\"QMP\":null}", b"[]", b"null",
                    b"{\"event\":\"MIGRATION\",\"data\":{\"status\":\"completed\"}}",
                ]).prop_map(<[u8]>::to_vec),
            ], 0..20),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                let says = tokio::spawn(async move {
                    let _ = theirs.write_all(&lines.join(&b'\n')).await;
                });
                let mut qmp = Qmp::new(ours);
                let _ = qmp.greet(LIMIT).await;
                let _ = qmp.all(&[("x", Value::Null)], LIMIT).await;
                let _ = qmp.event(LIMIT, |name, data| (name == "MIGRATION").then(|| data.clone())).await;
                drop(qmp);
                says.await.unwrap();
            });
        }
    }
}
