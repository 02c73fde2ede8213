//! The one control group all containers are in: stopped and let go as one, and kept from taking the agent's memory.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::mount::MountFlags;

use crate::boot::mount_fs;

const ROOT: &str = "/sys/fs/cgroup";
const ACTOR: &str = "/sys/fs/cgroup/actor";
/// Kept for the kernel and the agent, in bytes.
const RESERVE: u64 = 12 << 20;
/// A process stops at its next return from the kernel.
const FREEZE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_micros(500);

pub(crate) fn mount() -> Result<()> {
    mount_fs("cgroup2", ROOT, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "")?;
    // Not every kernel has the memory controller on; then an actor that fills the memory has the kernel choose.
    let limited = fs::write(format!("{ROOT}/cgroup.subtree_control"), "+memory").is_ok();
    fs::create_dir(ACTOR)?;
    if limited {
        let limit = memory()?.saturating_sub(RESERVE);
        fs::write(format!("{ACTOR}/memory.max"), limit.to_string()).context("cannot limit the containers' memory")?;
    }
    fs::write("/proc/self/oom_score_adj", "-1000")?;
    Ok(())
}

/// Puts the calling process into the group.
pub(crate) fn join() -> Result<()> {
    fs::write(format!("{ACTOR}/cgroup.procs"), "0").context("cannot join the containers' control group")?;
    fs::write("/proc/self/oom_score_adj", "0")?;
    Ok(())
}

/// Stops all containers and lets them go on. Open all the time: what opens a file would be run in a hurry.
pub(crate) struct Freezer {
    switch: File,
    events: File,
}

impl Freezer {
    pub(crate) fn open() -> Result<Self> {
        let switch = File::options().write(true).open(format!("{ACTOR}/cgroup.freeze"))?;
        Ok(Freezer { switch, events: File::open(format!("{ACTOR}/cgroup.events"))? })
    }

    /// Returns when nothing in the group runs any more.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.switch.write_all_at(b"1", 0)?;
        let deadline = Instant::now() + FREEZE;
        while !self.is_frozen()? {
            if Instant::now() > deadline {
                self.thaw()?;
                bail!("the containers did not stop within {FREEZE:?}");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.switch.write_all_at(b"0", 0).context("cannot let the containers go on")
    }

    fn is_frozen(&self) -> Result<bool> {
        let mut events = [0; 128];
        let n = self.events.read_at(&mut events, 0)?;
        Ok(String::from_utf8_lossy(&events[..n]).contains("frozen 1"))
    }
}

fn memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:")).context("/proc/meminfo has no MemTotal")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
