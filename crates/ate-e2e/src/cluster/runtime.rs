//! What a pod's spec means to a container runtime: rights, mounts and namespaces as Kubernetes with containerd gives them. Source:
//! the OCI runtime specification 1.0, and containerd's defaults.

use std::{collections::HashMap, path::PathBuf};

use k8s_openapi::api::core::v1::{Container, PodSpec, SecurityContext, VolumeMount};
use serde_json::{Value, json};

/// What a container may that asks for nothing.
const USUAL: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// All there are, by their number: linux/capability.h.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What is not in the spec.
pub(super) struct Given {
    pub(super) program: String,
    pub(super) env: Vec<(String, String)>,
    /// Where each volume is on the machine.
    pub(super) volumes: HashMap<String, PathBuf>,
    /// Directories and files that are seen inside at the same place, and cannot be changed there.
    pub(super) seen: Vec<PathBuf>,
    /// The machine's own where there is none.
    pub(super) network: Option<PathBuf>,
    pub(super) cgroup: String,
}

/// The configuration of a pod's container, without its root.
pub(super) fn config(pod: &PodSpec, container: &Container, given: Given) -> Value {
    let rights = container.security_context.clone().unwrap_or_default();
    let privileged = rights.privileged == Some(true);
    let mut args = vec![given.program];
    args.extend(container.args.iter().flatten().map(|arg| expanded(arg, &given.env)));
    let mut env = vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()];
    env.extend(given.env.iter().map(|(name, value)| format!("{name}={value}")));
    let volume_mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let mut mounts = system(privileged);
    mounts.extend(volume_mounts.iter().map(|mount| bound(mount, &given.volumes)));
    mounts.extend(
        given
            .seen
            .iter()
            .map(|path| json!({"destination": path, "source": path, "type": "bind", "options": ["rbind", "ro"]})),
    );
    let mut namespaces = vec![json!({"type": "pid"}), json!({"type": "ipc"}), json!({"type": "uts"})];
    namespaces.push(json!({"type": "mount"}));
    if let Some(path) = given.network {
        namespaces.push(json!({"type": "network", "path": path}));
    }
    let devices = json!([{"allow": privileged, "access": "rwm"}]);
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": given.cgroup,
        "resources": {"devices": devices},
    });
    // What happens at a mount of a container can only go out, or come in, if its root lets it.
    let propagations: Vec<_> = volume_mounts.iter().filter_map(|m| m.mount_propagation.as_deref()).collect();
    if propagations.contains(&"Bidirectional") {
        linux["rootfsPropagation"] = "rshared".into();
    } else if propagations.contains(&"HostToContainer") {
        linux["rootfsPropagation"] = "rslave".into();
    }
    if !privileged {
        linux["maskedPaths"] = json!(MASKED);
        linux["readonlyPaths"] = json!(READONLY);
    }
    let common = pod.security_context.clone().unwrap_or_default();
    let uid = rights.run_as_user.or(common.run_as_user).unwrap_or(0);
    let must_not_be_root = rights.run_as_non_root.or(common.run_as_non_root) == Some(true);
    assert!(!(must_not_be_root && uid == 0), "the kubelet does not start it as root");
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "args": args, "env": env, "cwd": "/",
            "user": {
                "uid": uid,
                "gid": rights.run_as_group.or(common.run_as_group).unwrap_or(0),
                "additionalGids": common.fs_group.into_iter().collect::<Vec<_>>(),
            },
            "capabilities": capabilities(&rights, uid == 0),
            "noNewPrivileges": rights.allow_privilege_escalation == Some(false),
        },
        "root": {"readonly": rights.read_only_root_filesystem == Some(true)},
        "mounts": mounts,
        "linux": linux,
    })
}

/// Whoever is not root has them within reach only.
fn capabilities(rights: &SecurityContext, root: bool) -> Value {
    let asked = rights.capabilities.clone().unwrap_or_default();
    let (add, drop) = (asked.add.unwrap_or_default(), asked.drop.unwrap_or_default());
    let privileged = rights.privileged == Some(true);
    let mut all = if privileged { held_here() } else { USUAL.map(str::to_owned).to_vec() };
    all.retain(|c| !drop.contains(c) && !drop.contains(&"ALL".to_owned()));
    all.extend(add);
    let all: Vec<_> = all.into_iter().map(|c| format!("CAP_{c}")).collect();
    let held: &[String] = if root { &all } else { &[] };
    json!({"bounding": all, "permitted": held, "effective": held})
}

/// What the machine lets anybody have: a machine for tests may be a container itself.
fn held_here() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("a set of capabilities");
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
    let has = |(n, _): &(usize, &&str)| mask & (1 << n) != 0;
    ALL.iter().enumerate().filter(has).map(|(_, name)| (*name).to_owned()).collect()
}

fn system(privileged: bool) -> Vec<Value> {
    let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
    let access = if privileged { "rw" } else { "ro" };
    let mut all = vec![mount("/proc", "proc", &["nosuid", "noexec", "nodev"])];
    if privileged {
        // All devices of the machine.
        all.push(json!({"destination": "/dev", "source": "/dev", "type": "bind", "options": ["rbind", "rslave"]}));
    } else {
        all.push(mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]));
        all.push(mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ));
        all.push(mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]));
        all.push(mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    }
    all.push(mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", access]));
    all.push(mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]));
    all
}

fn bound(mount: &VolumeMount, volumes: &HashMap<String, PathBuf>) -> Value {
    let source = volumes.get(&mount.name).unwrap_or_else(|| panic!("no volume {}", mount.name));
    let propagation = match mount.mount_propagation.as_deref() {
        Some("Bidirectional") => "rshared",
        Some("HostToContainer") => "rslave",
        _ => "rprivate",
    };
    let access = if mount.read_only == Some(true) { "ro" } else { "rw" };
    let options = ["rbind", propagation, access];
    json!({"destination": mount.mount_path, "source": source, "type": "bind", "options": options})
}

/// `$(NAME)` is the value of a variable.
pub(super) fn expanded(text: &str, env: &[(String, String)]) -> String {
    env.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
}
