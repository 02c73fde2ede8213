//! Progress for people: a bar or spinner on a terminal, plain lines elsewhere. Goes to stderr, so that output
//! can be piped.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

pub(crate) struct Progress {
    /// `None`: not a terminal.
    bar: Option<ProgressBar>,
    label: String,
    /// The last thing said, so that it is not said twice.
    last: String,
    begun: Instant,
}

impl Progress {
    /// Something whose end is not known.
    pub(crate) fn spinner(label: impl Into<String>) -> Progress {
        Self::begin(label.into(), || {
            let bar = ProgressBar::new_spinner().with_style(style("{spinner} {prefix}: {msg} ({elapsed})"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        })
    }

    /// Something of so many bytes.
    pub(crate) fn bytes(label: impl Into<String>, total: u64) -> Progress {
        Self::begin(label.into(), || {
            ProgressBar::new(total)
                .with_style(style("{prefix}  [{bar:30}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta}"))
        })
    }

    /// Something of so many parts.
    pub(crate) fn parts(label: impl Into<String>, total: u64) -> Progress {
        Self::begin(label.into(), || {
            ProgressBar::new(total).with_style(style("{prefix}  [{bar:30}] {pos}/{len}  {msg} ({elapsed})"))
        })
    }

    fn begin(label: String, bar: impl FnOnce() -> ProgressBar) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| bar().with_prefix(label.clone()));
        Progress { bar, label, last: String::new(), begun: Instant::now() }
    }

    /// Where it stands now.
    pub(crate) fn say(&mut self, message: &str) {
        if message == self.last {
            return;
        }
        self.last = message.to_owned();
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None => eprintln!("{}: {message}", self.label),
        }
    }

    /// So many of so many; the total may change.
    pub(crate) fn set(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// Ends it and returns how long it took.
    pub(crate) fn end(self) -> Duration {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.begun.elapsed()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
