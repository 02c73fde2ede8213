//! Calling runsc: the same flags on every call, a limit on every call, and its own words when it fails.
//!
//! Errors are read from runsc's log file: its stderr belongs to the container it creates.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use ate_api::{Error, Reason};
use ateom::{
    logs::Stdio as ContainerStdio,
    process::{Exit, Processes, Watch},
    program::Program,
};

use crate::{
    binary::Binary,
    config::{Compression, Config, RootfsOverlay},
    describe::ASSET,
};

/// Error texts of runsc can be dumps of many KiB; the cause is at the beginning.
const MAX_ERROR: usize = 500;

/// A binary under a configuration, for one sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Runsc {
    program: Arc<Program>,
    pub(crate) binary: Arc<Binary>,
    flags: Vec<String>,
    pub(crate) compression: Compression,
    log: PathBuf,
    processes: Processes,
}

impl Runsc {
    /// `run` is on a tmpfs, short and the sandbox's own; `disk` is on disk.
    pub(crate) fn new(
        program: Arc<Program>,
        binary: Arc<Binary>,
        config: &Config,
        run: &Path,
        disk: &Path,
        processes: Processes,
    ) -> Result<Self, Error> {
        let log = run.join("runsc.log");
        let overlay = match config.rootfs_overlay {
            RootfsOverlay::Memory => "root:memory".to_owned(),
            RootfsOverlay::Disk if binary.is_modern() => format!("root:dir={}", disk.display()),
            RootfsOverlay::Disk => format!("root:{}", disk.display()),
        };
        let mut flags = vec![
            format!("--root={}", run.join("state").display()),
            format!("--log={}", log.display()),
            format!("--platform={}", binary.platform(config)?),
            "--network=sandbox".into(),
            // Cgroups cost 20 ms per call; the sandbox stays in the worker's own.
            "--ignore-cgroups=true".into(),
            format!("--overlay2={overlay}"),
            format!("--gso={}", config.gso),
            format!("--net-raw={}", config.net_raw),
        ];
        for (flag, value) in [("directfs", config.directfs), ("net-disconnect-ok", config.net_disconnect)] {
            if binary.has_flag(flag) {
                flags.push(format!("--{flag}={value}"));
            }
        }
        if config.debug_log {
            flags.extend(["--debug".into(), format!("--debug-log={}/", disk.join("debug").display())]);
        }
        Ok(Runsc { program, binary, flags, compression: config.compression, log, processes })
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Command, Error> {
        let mut command = self.program.command(ASSET)?;
        command.args(&self.flags).args(args).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }

    /// Starts a call and leaves it running.
    pub(crate) fn start<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        stdio: Option<&ContainerStdio>,
    ) -> Result<Call, Error> {
        let mut command = self.command(args)?;
        let path = self.program.path().display();
        let failed = |e| Error::new(Reason::SandboxFailed, format!("cannot start {path}: {e}"));
        if let Some(stdio) = stdio {
            command.stdout(stdio.stdout.try_clone().map_err(failed)?);
            command.stderr(stdio.stderr.try_clone().map_err(failed)?);
        }
        let verb = command.get_args().nth(self.flags.len()).unwrap_or_default().to_string_lossy().into_owned();
        let log_from = fs::metadata(&self.log).map_or(0, |m| m.len());
        let (watch, _) = self.processes.spawn(&mut command).map_err(failed)?;
        Ok(Call { verb, watch, log: self.log.clone(), log_from })
    }

    /// Makes a call and waits for its end.
    pub(crate) async fn call<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        stdio: Option<&ContainerStdio>,
        limit: Duration,
    ) -> Result<(), Error> {
        self.start(args, stdio)?.finish(limit).await
    }
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct Call {
    verb: String,
    watch: Watch,
    log: PathBuf,
    log_from: u64,
}

impl Call {
    /// Waits for the end; the call is killed when the limit is over. May be dropped and called again.
    pub(crate) async fn finish(&mut self, limit: Duration) -> Result<(), Error> {
        match self.watch.wait_for(limit).await {
            Ok(exit) if exit.success() => Ok(()),
            Ok(exit) => Err(self.failure(exit)),
            Err(e) => Err(Error::new(Reason::DeadlineExceeded, format!("runsc {} {e}", self.verb))),
        }
    }

    fn failure(&self, exit: Exit) -> Error {
        let log = fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(self.log_from).unwrap_or(usize::MAX).min(log.len());
        let said = explain(&String::from_utf8_lossy(&log[from..]));
        let full = said.contains("no space left on device");
        let reason = if full { Reason::DiskFull } else { Reason::SandboxFailed };
        Error::new(reason, format!("runsc {} failed ({exit}): {said}", self.verb))
    }
}

/// The cause out of a log of JSON lines: the last error, without dumps.
fn explain(log: &str) -> String {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<LogLine>(line).ok());
    let Some(line) = lines.rfind(|l| l.level == "error") else { return "it did not say why".to_owned() };
    // What follows the first line are dumps of goroutines.
    let first = line.msg.lines().next().unwrap_or_default();
    let mut end = first.len().min(MAX_ERROR);
    while !first.is_char_boundary(end) {
        end -= 1;
    }
    first[..end].to_owned()
}

#[derive(serde::Deserialize)]
struct LogLine {
    msg: String,
    level: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_logs_of_runsc() {
        ate_fuzz::Target::named("gvisor.messages")
            .sample("error", || {
                let line =
                    |level: &str| serde_json::json!({"msg": "cause: ä\ngoroutine 1", "level": level}).to_string();
                [line("error"), line("debug")].join("\n").into_bytes()
            })
            .run(|bytes| {
                let said = explain(&String::from_utf8_lossy(bytes));
                assert!(said.len() <= MAX_ERROR && !said.contains('\n'));
                if said == "it did not say why" { Err(said) } else { Ok(()) }
            });
    }

    #[test]
    fn the_cause_is_the_last_error_in_the_log_and_short() {
        let log = "{\"msg\":\"first\",\"level\":\"error\"}\n{\"msg\":\"cause\",\"level\":\"error\"}\n{\"msg\":\"x\",\"level\":\"debug\"}\n";
        assert_eq!(explain(log), "cause");
        let dump = serde_json::json!({"msg": "ä".repeat(10_000), "level": "error"}).to_string();
        assert!(explain(&dump).len() <= MAX_ERROR);
        assert_eq!(explain("garbage"), "it did not say why");
    }
}
