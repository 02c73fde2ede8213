//! What a sandbox uses.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Memory of the sandbox process `pid` in bytes: its own anonymous pages and the shared memory file that holds the
/// memory of what runs inside. Resident set sizes of the whole process tree would count that file several times.
pub fn memory_bytes(pid: u32) -> u64 {
    let proc = Path::new("/proc").join(pid.to_string());
    let anonymous = fs::read_to_string(proc.join("status"))
        .ok()
        .and_then(|status| {
            let line = status.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024);
    let mut files = std::collections::BTreeMap::new();
    for fd in fs::read_dir(proc.join("fd")).into_iter().flatten().flatten() {
        let is_memory = fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:"));
        if is_memory && let Ok(meta) = fs::metadata(fd.path()) {
            files.insert(meta.ino(), meta.blocks() * 512);
        }
    }
    anonymous + files.values().sum::<u64>()
}
