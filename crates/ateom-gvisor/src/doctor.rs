//! `doctor`: can this machine run the class? Everything is tried, in namespaces of its own, rather than looked up.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ate_sandbox::Check;
use ateom::doctor::{LIMIT, attempt, basics, check};

/// On some virtual machines the first instruction under KVM never returns.
const KVM_LIMIT: Duration = Duration::from_secs(5);

const OVERLAY: &str = "mount -t tmpfs t /mnt && cd /mnt && mkdir l u w m && \
    mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m && echo x > m/x && test -e u/x";
pub(crate) fn checks(runsc: Option<PathBuf>) -> Vec<Check> {
    let mut checks = basics();
    let overlay = attempt(&["sh", "-c", OVERLAY], LIMIT);
    checks.push(check("overlayfs", overlay, "load the kernel module `overlay`"));
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
