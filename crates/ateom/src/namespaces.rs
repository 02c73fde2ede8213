//! A worker's namespaces: a shim that stays outside, and the herder inside as PID 1 of its own pid namespace.
//!
//! Everything a worker starts lives in that pid namespace and dies with it; everything it mounts lives in its mount
//! namespace and vanishes with it; its network likewise. That is the whole clean-up after a crash. The shim remains
//! to remove what lies on disk, and to be the process the node agent knows.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Duration,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags},
    process::Signal,
    thread::UnshareFlags,
};
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};

/// Enough for netns files, bundles, runsc's state and the few files that overlay a root filesystem.
const RUN_SIZE: &str = "size=64m,mode=0755";

/// Moves the calling thread (or, for pid namespaces, its future children) into new namespaces.
///
/// # Errors
/// What the kernel says; root is needed for all but user namespaces.
#[allow(unsafe_code)]
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: unsafe only for CLONE_FILES, which would break the ownership of file descriptors; it is never passed.
    unsafe { rustix::thread::unshare_unsafe(flags & !UnshareFlags::FILES) }.map_err(Into::into)
}

/// Runs `/proc/self/exe ARGS` as PID 1 of a new pid namespace, announces its pid on stdout, and waits for its end: after
/// SIGTERM no longer than `grace`, if there is one. Must be called before the process has any other thread.
pub fn shim(inner_args: &[std::ffi::OsString], leftovers: &[PathBuf], grace: Option<Duration>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail("start the runtime", &e),
    };
    let code = runtime.block_on(supervise(inner_args, grace));
    for leftover in leftovers {
        let _ = if leftover.is_dir() { fs::remove_dir_all(leftover) } else { fs::remove_file(leftover) };
    }
    code
}

async fn supervise(inner_args: &[std::ffi::OsString], grace: Option<Duration>) -> ExitCode {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return fail("listen for signals", &io::Error::last_os_error());
    };
    // From here on only children are in the new pid namespace, and this process can have no more threads.
    if let Err(e) = unshare(UnshareFlags::NEWPID) {
        return fail("make a pid namespace (are you root?)", &e);
    }
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command.args(inner_args).stdin(Stdio::inherit()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) => return fail("start the herder", &e),
    };
    let pid = child.id().unwrap_or_default();
    let mut inside = [0u8; 1];
    let up = match child.stdout.take() {
        Some(mut stdout) => stdout.read_exact(&mut inside).await.is_ok(),
        None => false,
    };
    if up {
        println!("{{\"pid\":{pid}}}");
    }
    let status = tokio::select! {
        status = child.wait() => status,
        () = async { tokio::select! { _ = term.recv() => (), _ = int.recv() => () } } => {
            if let Some(pid) = child.id().and_then(|p| rustix::process::Pid::from_raw(p.cast_signed())) {
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
            match tokio::time::timeout(grace.unwrap_or(Duration::MAX), child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    let _ = child.start_kill();
                    child.wait().await
                }
            }
        }
    };
    match status {
        Ok(status) => ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
        Err(e) => fail("wait for the herder", &e),
    }
}

/// What the inside needs to know of the outside, read before it is covered.
pub(crate) struct Inside {
    pub(crate) resolv_conf: Vec<u8>,
    pub(crate) listener: std::os::unix::net::UnixListener,
}

/// The first thing the inner process does, still with one thread: builds the namespaces, tells the shim.
///
/// `network`: a network namespace of its own too.
pub(crate) fn enter(socket: &Path, network: bool) -> io::Result<Inside> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    unshare(if network { UnshareFlags::NEWNS | UnshareFlags::NEWNET } else { UnshareFlags::NEWNS })?;
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;

    // Both before /run is covered: either may lie there.
    let resolv_conf = resolver();
    let _ = fs::remove_file(socket);
    let listener = std::os::unix::net::UnixListener::bind(socket)?;

    mount("proc", "/proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "")?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    // The kernel's table of connections says which ones an actor has: closed ones as long as gVisor keeps them itself,
    // and only those whose beginning was seen.
    for (setting, value) in [("nf_conntrack_tcp_timeout_time_wait", "60"), ("nf_conntrack_tcp_loose", "0")] {
        let _ = fs::write(format!("/proc/sys/net/netfilter/{setting}"), value);
    }
    // Actors have IPv4 only; link-local addresses would only make each namespace slower to come up.
    for scope in ["all", "default"] {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
    // runsc takes a visible /proc/sys/net/core/dev_weight for a sign of the host's network namespace and refuses.
    mount("tmpfs", "/proc/sys/net", MountFlags::RDONLY, "size=4k")?;
    mount("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, RUN_SIZE)?;
    fs::create_dir("/run/netns")?;

    rustix::io::write(rustix::stdio::stdout(), b"+")?;
    Ok(Inside { resolv_conf, listener })
}

/// The host's resolver configuration; behind a resolver on loopback, which no actor reaches, the one it uses itself.
fn resolver() -> Vec<u8> {
    let own = fs::read("/etc/resolv.conf").unwrap_or_default();
    let text = String::from_utf8_lossy(&own);
    let servers = text.lines().filter_map(|l| l.trim().strip_prefix("nameserver"));
    let only_loopback = servers.map(str::trim).all(|s| s.starts_with("127.") || s == "::1");
    if only_loopback && let Ok(behind) = fs::read("/run/systemd/resolve/resolv.conf") {
        return behind;
    }
    own
}

fn mount(fs: &str, target: &str, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    rustix::mount::mount(fs, target, fs, flags, Some(options.as_c_str())).map_err(Into::into)
}

fn fail(what: &str, e: &io::Error) -> ExitCode {
    eprintln!("ateom: cannot {what}: {e}");
    ExitCode::FAILURE
}
