//! The OCI runtime specification of a container, as runsc reads it from a bundle.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ateom::{driver::Container, identity::MOUNT_POINT, workload};
use serde_json::{Value, json};

const OCI_VERSION: &str = "1.0.2";
/// What container engines give by default.
const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// As container engines on current systems give; the sandbox has its own table of files.
const OPEN_FILES: u64 = 1 << 20;

/// Where a container stands in its sandbox.
pub(crate) struct Placement<'a> {
    /// Id of the sandbox: that of its first container.
    pub(crate) sandbox: &'a str,
    pub(crate) is_root: bool,
    pub(crate) rootfs: &'a Path,
    pub(crate) netns: &'a Path,
    pub(crate) identity: &'a Path,
    /// Volume name → directory on the host.
    pub(crate) volumes: &'a BTreeMap<String, PathBuf>,
}

/// Restore matches containers by their name and mounts by their destination, so neither depends on where it runs.
pub(crate) fn spec(container: &Container, at: &Placement<'_>) -> Value {
    let kind = if at.is_root { "sandbox" } else { "container" };
    let mut annotations = json!({
        "io.kubernetes.cri.container-type": kind,
        "io.kubernetes.cri.container-name": container.name,
    });
    if !at.is_root {
        annotations["io.kubernetes.cri.sandbox-id"] = json!(at.sandbox);
    }
    json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": false,
            "user": {"uid": container.uid, "gid": container.gid, "additionalGids": container.additional_gids},
            "args": container.args,
            "env": workload::environment(container),
            "cwd": if container.cwd.is_empty() { "/" } else { &container.cwd },
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": if container.uid == 0 { &CAPABILITIES[..] } else { &[] },
                "permitted": if container.uid == 0 { &CAPABILITIES[..] } else { &[] },
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": OPEN_FILES, "soft": OPEN_FILES}],
        },
        "root": {"path": at.rootfs, "readonly": false},
        "hostname": workload::HOSTNAME,
        "mounts": mounts(container, at),
        "annotations": annotations,
        "linux": {
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "network", "path": at.netns},
            ],
        },
    })
}

fn mounts(container: &Container, at: &Placement<'_>) -> Vec<Value> {
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "noexec", "nodev"]}),
        json!({"destination": MOUNT_POINT, "type": "bind", "source": at.identity, "options": ["ro", "bind"]}),
    ];
    for mount in &container.mounts {
        if let Some(dir) = at.volumes.get(&mount.volume) {
            mounts.push(json!({"destination": mount.path, "type": "bind", "source": dir, "options": ["rw", "bind"]}));
        }
    }
    mounts
}
