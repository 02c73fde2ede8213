//! What a machine must learn anew whenever it goes on: the time, who it is, and other random numbers.
//!
//! Whatever a machine runs for the first time after a restore is slow, so this does as little as it can: files stay
//! open, and what is the same is not written again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Component, Path},
};

use anyhow::{Context, Result, bail};
use ate_guest::protocol::Wake;
use rustix::mount::MountFlags;
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::{boot::mount_fs, entropy::Entropy};

/// Bound read-only into each container.
pub(crate) const DIR: &str = "/state/identity";
const NS: u64 = 1_000_000_000;

/// Has room of its own: a disk that a container filled keeps nobody from becoming somebody else.
pub(crate) fn make_room() -> Result<()> {
    mount_fs("tmpfs", DIR, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, "mode=0755,size=256k")
}

pub(crate) struct Identity {
    entropy: Entropy,
    /// Of `DIR`: file name → file and what is in it.
    files: BTreeMap<String, (File, String)>,
}

impl Identity {
    pub(crate) fn new() -> Result<Self> {
        Ok(Identity { entropy: Entropy::open()?, files: BTreeMap::new() })
    }

    /// Nothing of the containers may run before this returns: they would see files that are half written.
    pub(crate) fn assume(&mut self, wake: &Wake) -> Result<()> {
        self.entropy.reseed(wake.entropy).context("cannot reseed")?;
        let now = Timespec { tv_sec: i64::try_from(wake.now_ns / NS)?, tv_nsec: i64::try_from(wake.now_ns % NS)? };
        clock_settime(ClockId::Realtime, now).context("cannot set the clock")?;
        if wake.identity.is_empty() {
            return self.warm_up();
        }
        wake.identity.iter().try_for_each(|(name, content)| self.put(name, content))
    }

    /// As nobody: does now what will have to be done in a hurry, and looks, as a container's program would.
    fn warm_up(&self) -> Result<()> {
        self.files.values().try_for_each(|(file, content)| write(file, content))?;
        for entry in fs::read_dir(DIR)? {
            let path = entry?.path();
            if path.metadata()?.is_file() {
                fs::read_to_string(path)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, name: &str, content: &str) -> Result<()> {
        if let Some((file, before)) = self.files.get_mut(name) {
            if before != content {
                // Should it fail half way, it is not taken for done the next time.
                before.clear();
                write(file, content)?;
                before.push_str(content);
            }
            return Ok(());
        }
        if !matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]) {
            bail!("`{name}` is no file name");
        }
        let file = File::create(Path::new(DIR).join(name))?;
        write(&file, content)?;
        self.files.insert(name.to_owned(), (file, content.to_owned()));
        Ok(())
    }
}

fn write(file: &File, content: &str) -> Result<()> {
    file.write_all_at(content.as_bytes(), 0)?;
    Ok(file.set_len(content.len() as u64)?)
}
