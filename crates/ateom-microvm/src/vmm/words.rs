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

/// How the guest's kernel says why it ends. What it says then is where it was: many lines, of no use here.
const PANIC: &str = "Kernel panic";
/// How each line of the kernel's begins, before the time.
const KERNEL: char = '[';

#[derive(Debug, Clone, Default)]
pub(crate) struct Words(Arc<Mutex<Said>>);

#[derive(Debug, Default)]
struct Said {
    panicked: bool,
    last: VecDeque<String>,
}

impl Said {
    fn hear(&mut self, line: String) {
        if self.panicked && line.starts_with(KERNEL) {
            return;
        }
        self.panicked |= line.contains(PANIC);
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }
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
            self.0.lock().unwrap_or_else(PoisonError::into_inner).hear(text);
        }
    }

    pub(crate) fn add_to(&self, mut e: Error) -> Error {
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = said.last.iter().map(String::as_str).collect();
        if !lines.is_empty() {
            e.message = format!("{}; last said: {}", e.message, lines.join(" | "));
        }
        e
    }
}

#[cfg(test)]
mod tests {
    use ate_api::Reason;

    use super::*;

    #[test]
    fn the_last_lines_are_kept_up_to_a_panic_of_the_kernel() {
        let words = Words::default();
        let hear = |line: &str| words.0.lock().unwrap().hear(line.to_owned());
        (0..LAST).for_each(|i| hear(&format!("line {i}")));
        hear("[    1.2] Kernel panic - not syncing: because");
        (0..LAST).for_each(|i| hear(&format!("[    1.3] trace {i}")));
        hear("the VMM complains");
        let said = words.add_to(Error::new(Reason::SandboxFailed, "it ended")).message;
        assert!(said.starts_with("it ended; last said: line 2 | "), "{said}");
        assert!(said.ends_with("| [    1.2] Kernel panic - not syncing: because | the VMM complains"), "{said}");
    }
}
