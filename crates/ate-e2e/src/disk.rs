//! A disk that can be filled up.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A tmpfs of so many megabytes, unmounted when it is dropped.
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub fn new(mb: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mb}m"), "tmpfs"])
            .arg(dir.path())
            .status()
            .expect("mount");
        assert!(status.success(), "mount: {status}");
        SmallDisk(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all but so many megabytes of what is left.
    pub fn fill_but(&self, mb: u64) -> PathBuf {
        let stat = rustix::fs::statvfs(self.path()).expect("statvfs");
        let take = (stat.f_bavail * stat.f_frsize).saturating_sub(mb << 20);
        let path = self.path().join("filler");
        let file = std::fs::File::create(&path).expect("a filler");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, take).expect("fallocate");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}
