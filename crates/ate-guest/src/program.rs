//! The first process of a container: builds the container's world around itself, then becomes its program.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use ate_guest::protocol::{self, Container};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_bind, mount_change, mount_remount},
    process::{Resource, Rlimit},
    thread::{CapabilitySet, CapabilitySets, Gid, Uid},
};
use serde::{Deserialize, Serialize};

use crate::{boot::mount_fs, cgroup, identity};

/// First argument of a process that is to become a container.
pub(crate) const VERB: &str = "container";
/// Where a container finds who it is.
const IDENTITY: &str = "/run/ate";
/// As container engines on current systems give.
const OPEN_FILES: u64 = 1 << 20;
/// What container engines give by default.
const CAPABILITIES: CapabilitySet = CapabilitySet::AUDIT_WRITE
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYS_CHROOT);
/// Of /proc: what is the machine's and not the container's. Root could have the kernel run programs outside of it.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What the agent tells the process.
#[derive(Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) root: PathBuf,
    pub(crate) hostname: String,
    /// Path inside → content.
    pub(crate) files: Vec<(String, String)>,
    /// Directory of the agent's → path inside.
    pub(crate) binds: Vec<(PathBuf, String)>,
    pub(crate) container: Container,
}

/// Returns only if it fails.
pub(crate) fn become_container(spec: &str) -> Result<()> {
    let spec: Spec = protocol::decode(&fs::read(spec)?)?;
    cgroup::join()?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    rustix::system::sethostname(spec.hostname.as_bytes())?;
    furnish(&spec)?;
    enter(&spec.root)?;
    // From here on every path is the container's own, whatever links its image has.
    for (path, content) in &spec.files {
        write(path, content)?;
    }
    let limit = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES) };
    rustix::process::setrlimit(Resource::Nofile, limit)?;
    let c = &spec.container;
    let cwd = if c.cwd.is_empty() { "/" } else { &c.cwd };
    fs::create_dir_all(cwd)
        .and_then(|()| std::env::set_current_dir(cwd))
        .with_context(|| format!("directory {cwd}"))?;
    lower(c)?;
    let Some((program, args)) = c.args.split_first() else { bail!("it has no command") };
    let mut command = Command::new(program);
    command.args(args).env_clear();
    command.envs(c.env.iter().filter_map(|e| e.split_once('=')));
    Err(command.exec()).with_context(|| format!("cannot run `{program}`"))
}

/// Everything that is mounted below the root before it is entered. Targets are resolved inside of it, so that a link
/// in an image leads nowhere else.
fn furnish(spec: &Spec) -> Result<()> {
    std::env::set_current_dir(&spec.root)?;
    let own = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let inside = |path: &str| place(&spec.root, path);
    let proc = inside("/proc")?;
    mount_fs("proc", &proc, own, "")?;
    for path in READ_ONLY {
        let path = format!("{proc}/{path}");
        if !Path::new(&path).exists() {
            continue; // not every kernel has all of them
        }
        mount_bind(&path, &path).with_context(|| path.clone())?;
        mount_remount(&path, MountFlags::BIND | MountFlags::RDONLY | own, "").with_context(|| path.clone())?;
    }
    mount_fs("sysfs", &inside("/sys")?, own | MountFlags::RDONLY, "")?;
    let dev = inside("/dev")?;
    mount_fs("tmpfs", &dev, MountFlags::NOSUID | MountFlags::NODEV, "mode=0755,size=64k")?;
    for device in DEVICES {
        // Each bound from the machine's own: nodes made in here are of no use, so no port or disk can be reached.
        let to = format!("{dev}/{device}");
        fs::File::create(&to)?;
        mount_bind(format!("/dev/{device}"), &to).with_context(|| format!("/dev/{device}"))?;
    }
    mount_fs(
        "devpts",
        &format!("{dev}/pts"),
        MountFlags::NOSUID | MountFlags::NOEXEC,
        "newinstance,ptmxmode=0666,mode=0620",
    )?;
    mount_fs("tmpfs", &format!("{dev}/shm"), own, "mode=1777")?;
    mount_fs("mqueue", &format!("{dev}/mqueue"), own, "")?;
    let links =
        [("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1")];
    for (name, to) in links.into_iter().chain([("stderr", "/proc/self/fd/2")]) {
        std::os::unix::fs::symlink(to, format!("{dev}/{name}"))?;
    }
    let tmp = inside("/tmp")?;
    fs::set_permissions(tmp, std::os::unix::fs::PermissionsExt::from_mode(0o1777))?;
    let who = inside(IDENTITY)?;
    mount_bind(identity::DIR, &who)?;
    mount_remount(&who, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV, "")?;
    for (from, to) in &spec.binds {
        let to = inside(to)?;
        mount_bind(from, &to).with_context(|| format!("cannot mount a volume at {to}"))?;
        mount_remount(&to, MountFlags::BIND | MountFlags::NODEV, "")?;
    }
    Ok(())
}

/// A directory inside of the root, made if it is missing, as a path outside. Links lead nowhere but inside.
fn place(root: &Path, path: &str) -> Result<String> {
    let mut at = PathBuf::from("/");
    let mut todo: Vec<std::ffi::OsString> = components(Path::new(path));
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let outside = root.join(next.strip_prefix("/")?);
        match fs::symlink_metadata(&outside) {
            Ok(meta) if meta.is_symlink() => {
                links += 1;
                if links > 40 {
                    bail!("too many links in {path}");
                }
                let target = fs::read_link(&outside)?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                todo.extend(components(&target));
            }
            Ok(meta) if meta.is_dir() => at = next,
            Ok(_) => bail!("{} is not a directory", next.display()),
            Err(_) => {
                fs::create_dir(&outside).with_context(|| format!("cannot create {}", next.display()))?;
                at = next;
            }
        }
    }
    Ok(root.join(at.strip_prefix("/")?).to_string_lossy().into_owned())
}

/// Still to walk, next one last.
fn components(path: &Path) -> Vec<std::ffi::OsString> {
    use std::path::Component;
    let kept = path.components().rev().filter_map(|c| match c {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    kept.collect()
}

/// Makes the root the only thing there is.
fn enter(root: &Path) -> Result<()> {
    std::env::set_current_dir(root)?;
    rustix::process::pivot_root(".", ".").context("cannot enter the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")?;
    Ok(())
}

fn write(path: &str, content: &str) -> Result<()> {
    let target = Path::new(path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    // Replaced, not followed.
    match fs::remove_file(target) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).with_context(|| format!("cannot replace {path}")),
        _ => fs::write(target, content).with_context(|| format!("cannot write {path}")),
    }
}

/// Gives up what the container's program shall not have.
fn lower(c: &Container) -> Result<()> {
    for capability in CapabilitySet::all().difference(CAPABILITIES).iter() {
        // Newer kernels have more of them than we know, older ones fewer.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let groups: Vec<Gid> = c.additional_gids.iter().map(|&g| Gid::from_raw(g)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let gid = Gid::from_raw(c.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    let uid = Uid::from_raw(c.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    if c.uid == 0 {
        let sets =
            CapabilitySets { effective: CAPABILITIES, permitted: CAPABILITIES, inheritable: CapabilitySet::empty() };
        rustix::thread::set_capabilities(None, sets)?;
    }
    Ok(())
}
