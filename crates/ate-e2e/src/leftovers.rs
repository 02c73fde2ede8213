//! What a node may leave behind on the machine, found by its data directory: processes, mounts, links, cgroups.

use std::{collections::BTreeSet, fs, path::Path};

/// Everything found that belongs to the node of this data directory, one line each.
pub fn of(data_dir: &Path) -> BTreeSet<String> {
    let needle = data_dir.display().to_string();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        if cmdline.contains(&needle) {
            found.insert(format!("process {}: {cmdline}", entry.file_name().display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|l| l.contains(&needle)).map(|l| format!("mount {l}")));
    found
}

/// Names of network interfaces and of network namespaces a person would see with `ip`.
pub fn network() -> BTreeSet<String> {
    let names = |dir: &str| {
        fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().display().to_string())
            .collect::<Vec<_>>()
    };
    let links = names("/sys/class/net").into_iter().map(|n| format!("link {n}"));
    links.chain(names("/run/netns").into_iter().map(|n| format!("netns {n}"))).collect()
}
