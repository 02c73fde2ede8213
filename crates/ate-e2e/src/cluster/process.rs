//! A server of the test's own: it can be killed and started again, and does not outlive the test.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::node::signal;

/// Lines of a log that explain a failure.
const LAST: usize = 40;
/// An orderly end.
const END: Duration = Duration::from_secs(30);

pub struct Process {
    command: Command,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    pub(super) fn start(command: Command, log: PathBuf) -> Process {
        // Whatever becomes of the test, the kernel ends it.
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        let mut process = Process { command: wrapped, log, child: None };
        process.start_again();
        process
    }

    pub fn start_again(&mut self) {
        self.kill();
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        self.command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(self.command.spawn().unwrap());
    }

    /// At once, as when a machine fails.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// In good order, as the kubelet ends it.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        signal(child.id(), Signal::TERM);
        let end = Instant::now() + END;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "it did not end within {END:?}:\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// It does nothing any more, and is still there.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on as if no time had passed.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, which: Signal) {
        signal(self.child.as_ref().expect("it runs").id(), which);
    }

    pub(super) fn last_words(&self) -> String {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        format!("--- {}\n{}", self.log.display(), lines[lines.len().saturating_sub(LAST)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
