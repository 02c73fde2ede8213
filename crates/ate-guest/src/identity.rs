//! What a machine must learn anew whenever it goes on: the time, who it is, and other random numbers.

use std::{
    fs,
    path::{Component, Path},
};

use anyhow::{Context, Result, bail};
use ate_guest::protocol::Wake;
use rustix::mount::MountFlags;
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::{boot::mount_fs, entropy};

/// Bound read-only into each container.
pub(crate) const DIR: &str = "/state/identity";
const NS: u64 = 1_000_000_000;

/// Has room of its own: a disk that a container filled keeps nobody from becoming somebody else.
pub(crate) fn make_room() -> Result<()> {
    mount_fs("tmpfs", DIR, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "mode=0755,size=256k")
}

/// Nothing of the containers may run before this returns.
pub(crate) fn assume(wake: &Wake) -> Result<()> {
    entropy::reseed(wake.entropy).context("cannot reseed")?;
    let now = Timespec { tv_sec: i64::try_from(wake.now_ns / NS)?, tv_nsec: i64::try_from(wake.now_ns % NS)? };
    clock_settime(ClockId::Realtime, now).context("cannot set the clock")?;
    // Who is warmed up as nobody writes what is there: it has then done all that it will have to do in a hurry.
    let identity = if wake.identity.is_empty() { current()? } else { wake.identity.clone() };
    for (name, content) in &identity {
        if !matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
            bail!("`{name}` is no file name");
        }
        // Replaced as a whole: a container sees the old or the new one, never half of one.
        let new = Path::new(DIR).join(format!(".{name}"));
        fs::write(&new, content)?;
        fs::rename(new, Path::new(DIR).join(name))?;
    }
    Ok(())
}

fn current() -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(DIR)? {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read_to_string(entry.path())?));
    }
    Ok(files)
}
