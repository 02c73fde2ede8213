//! `doctor`: can this machine run the class? Everything is tried, in namespaces of its own, rather than looked up.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use ate_sandbox::Check;
use rustix::thread::CapabilitySet;

/// A try that works takes a tenth of this.
const LIMIT: Duration = Duration::from_secs(8);
/// On some virtual machines the first instruction under KVM never returns.
const KVM_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);
/// Of what a program that failed said.
const MAX_DETAIL: usize = 300;

const OVERLAY: &str = "mount -t tmpfs t /mnt && cd /mnt && mkdir l u w m && \
    mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m && echo x > m/x && test -e u/x";
const NAT: &str = "table ip t { chain c { type nat hook prerouting priority dstnat; meta l4proto tcp dnat to 127.0.0.1; }; \
    chain d { type nat hook postrouting priority srcnat; masquerade; }; }";

pub(crate) fn checks(runsc: Option<PathBuf>) -> Vec<Check> {
    let mut checks = vec![privileges()];
    let tried = [
        ("namespaces", vec!["true"], "allow pid, mount and network namespaces (in a container: run it privileged)"),
        ("overlayfs", vec!["sh", "-c", OVERLAY], "load the kernel module `overlay`"),
        ("nft", vec!["nft", NAT], "install the Debian package `nftables`; the kernel needs nf_tables with NAT"),
    ];
    for (name, command, fix) in tried {
        checks.push(check(name, attempt(&command, LIMIT), fix));
    }
    checks.push(Check {
        optional: true,
        ..check(
            "conntrack table",
            std::fs::metadata("/proc/net/nf_conntrack").map(|_| "readable".into()).map_err(|e| e.to_string()),
            "needed only for runsc older than 2024: load the kernel module `nf_conntrack`",
        )
    });
    checks.extend(binary(runsc.or_else(on_path)));
    checks
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

/// The binary, and which of its platforms work here: by starting a real sandbox on each.
fn binary(runsc: Option<PathBuf>) -> Vec<Check> {
    let fix = "install the Debian package `runsc` (bookworm-backports for a recent one), or import one with \
        `ate sandbox import --class gvisor --name NAME runsc=PATH`";
    let Some(path) = runsc else {
        return vec![Check { optional: true, ..check("runsc", Err("not on the PATH".into()), fix) }];
    };
    let shown = path.to_string_lossy();
    let version = Command::new(&path).arg("--version").output().map_err(|e| e.to_string());
    let version = version.and_then(|o| {
        let text = String::from_utf8_lossy(&o.stdout).lines().next().unwrap_or_default().to_owned();
        if o.status.success() { Ok(format!("{shown}, {text}")) } else { Err(format!("{shown} does not work")) }
    });
    let mut checks = vec![check("runsc", version, fix)];
    let platforms = [("systrap", false, LIMIT), ("ptrace", true, LIMIT), ("kvm", true, KVM_LIMIT)];
    for (platform, optional, limit) in platforms {
        let flag = format!("--platform={platform}");
        let root = env::temp_dir().join(format!("ateom-doctor-{}", std::process::id()));
        let root_flag = format!("--root={}", root.display());
        let command = [&*shown, &root_flag, &flag, "--network=none", "--ignore-cgroups", "do", "true"];
        let result = attempt(&command, limit).map(|took| format!("a sandbox ran in {took}"));
        let _ = std::fs::remove_dir_all(root);
        let fix = match platform {
            "systrap" => "use a runsc of 2024 or later; for older ones `platform: ptrace` is used instead",
            _ => "nothing to do: it is not the default",
        };
        checks.push(Check { optional, ..check(&format!("platform {platform}"), result, fix) });
    }
    checks
}

fn on_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join("runsc")).find(|p| is_executable(p))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// Runs a command in new namespaces; everything it started is gone afterwards. Answers how long it took.
fn attempt(command: &[&str], limit: Duration) -> Result<String, String> {
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

fn check(name: &str, result: Result<String, String>, fix: &str) -> Check {
    let (ok, detail) = match result {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    let fix = if ok { String::new() } else { fix.to_owned() };
    Check { name: name.to_owned(), ok, optional: false, detail, fix }
}
