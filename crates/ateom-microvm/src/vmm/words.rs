//! What a machine said last: its console, and the VMM's own complaints.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use ate_api::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::unix::pipe,
};

/// Lines that are kept.
const LAST: usize = 12;
const MAX_LINE: u64 = 300;

/// What a kernel says first when it gives up; a long dump follows.
const PANIC: &str = "Kernel panic";

#[derive(Debug, Clone, Default)]
pub(crate) struct Words(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    panic: Option<String>,
    last: VecDeque<String>,
}

impl Words {
    /// Reads what the process prints to its end, keeps the last lines.
    pub(super) async fn listen(self, from: pipe::Receiver, log: bool) {
        let mut reader = BufReader::new(from);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A flood without line ends costs no more than this at a time.
            match (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line).await {
                Ok(1..) => {}
                _ => return,
            }
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            if text.is_empty() {
                continue;
            }
            if log {
                tracing::debug!(target: "console", "{text}");
            }
            let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if said.panic.is_none() && text.contains(PANIC) {
                said.panic = Some(text);
                continue;
            }
            if said.last.len() == LAST {
                said.last.pop_front();
            }
            said.last.push_back(text);
        }
    }

    pub(crate) fn add_to(&self, mut e: Error) -> Error {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said: Vec<&str> = said.panic.iter().chain(&said.last).map(String::as_str).collect();
        if !said.is_empty() {
            e.message = format!("{}; last said: {}", e.message, said.join(" | "));
        }
        e
    }
}
