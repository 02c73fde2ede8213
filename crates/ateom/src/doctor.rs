//! `doctor`: what every class needs of a machine, and how to try things rather than look them up.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use ate_sandbox::{Check, Isolation};
use rustix::thread::CapabilitySet;

/// A try that works takes a tenth of this.
pub const LIMIT: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(10);
/// Of what a program that failed said.
const MAX_DETAIL: usize = 300;

const NAT: &str = "table ip t { chain c { type nat hook prerouting priority dstnat; meta l4proto tcp dnat to 127.0.0.1; }; \
    chain d { type nat hook postrouting priority srcnat; masquerade; }; }";

/// Privileges, namespaces and address translation.
pub fn basics() -> Vec<Check> {
    let tried = [
        ("namespaces", vec!["true"], "allow pid, mount and network namespaces (in a container: run it privileged)"),
        ("nft", vec!["nft", NAT], "install the Debian package `nftables`; the kernel needs nf_tables with NAT"),
    ];
    let tried = tried.into_iter().map(|(name, command, fix)| check(name, attempt(&command, LIMIT), fix));
    std::iter::once(privileges()).chain(tried).collect()
}

/// A class that is no sandbox says so, whatever else it checks.
pub(crate) fn isolation(isolation: Isolation) -> Option<Check> {
    let none = || Err("NONE: actors are plain processes of this machine".to_owned());
    let fix = "it is no sandbox: use another class for code that you would not run as root on this machine";
    (isolation == Isolation::None).then(|| Check { optional: true, ..check("isolation", none(), fix) })
}

fn privileges() -> Check {
    let needed = [
        (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
        (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    ];
    let result = match rustix::thread::capabilities(None) {
        _ if !rustix::process::geteuid().is_root() => Err("not root".to_owned()),
        Ok(have) => {
            let missing = needed.iter().filter(|(bit, _)| !have.effective.contains(*bit));
            let missing: Vec<_> = missing.map(|(_, name)| *name).collect();
            if missing.is_empty() { Ok("root".into()) } else { Err(format!("missing {}", missing.join(", "))) }
        }
        Err(e) => Err(e.to_string()),
    };
    check("privileges", result, "run as root")
}

/// Runs a command in new namespaces; everything it started is gone afterwards. Answers how long it took.
pub fn attempt(command: &[&str], limit: Duration) -> Result<String, String> {
    let since = Instant::now();
    let said = tempfile().map_err(|e| e.to_string())?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--mount", "--net", "--fork", "--kill-child", "--mount-proc", "--"]).args(command);
    let output = said.try_clone().map_err(|e| e.to_string())?;
    unshare.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
    let mut child = unshare.spawn().map_err(|e| format!("unshare (Debian package util-linux): {e}"))?;
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if since.elapsed() > limit => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer within {limit:?}"));
            }
            None => std::thread::sleep(POLL),
        }
    };
    if status.success() {
        return Ok(format!("{} ms", since.elapsed().as_millis()));
    }
    Err(first_words(said).unwrap_or_else(|| status.to_string()))
}

/// A file without a name.
fn tempfile() -> std::io::Result<std::fs::File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(rustix::fs::memfd_create("ateom-doctor", flags)?.into())
}

fn first_words(mut file: std::fs::File) -> Option<String> {
    use std::io::{Read, Seek};
    file.rewind().ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_DETAIL as u64).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// One line of the answer: what was found, or what is wrong and what to do about it.
pub fn check(name: &str, result: Result<String, String>, fix: &str) -> Check {
    let (ok, detail) = match result {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    let fix = if ok { String::new() } else { fix.to_owned() };
    Check { name: name.to_owned(), ok, optional: false, detail, fix }
}
