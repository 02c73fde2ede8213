//! What is on a disk, and disks that can be filled up, slowed down and broken.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Every regular file below a directory; links are not followed, and what cannot be read is left out.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(t) if t.is_dir() => found.extend(files_below(&path)),
            Ok(t) if t.is_file() => found.push(path),
            _ => {}
        }
    }
    found
}

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

/// An ext4 file system in a file, on a loop device of its own. Unlike a tmpfs its device can be made slow, and it fails as a
/// real one does.
pub struct LoopDisk {
    dir: tempfile::TempDir,
    device: String,
}

/// A file system that nobody uses any more is gone within this.
const GONE: Duration = Duration::from_secs(60);
/// Where the first version of cgroups limits a device. The limit is on this loop device alone.
const THROTTLE: &str = "/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device";

impl LoopDisk {
    pub fn new(mb: u64) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = fs::File::create(dir.path().join("disk")).expect("the disk's file");
        file.set_len(mb << 20).expect("a size");
        fs::create_dir(dir.path().join("mount")).expect("a directory to mount on");
        let mut disk = LoopDisk { dir, device: String::new() };
        run("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&disk.file()]);
        disk.mount();
        disk
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mount")
    }

    fn mount(&mut self) {
        run("mount", &["-o", "loop,errors=remount-ro"], &[&self.file(), &self.path()]);
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        let path = self.path().display().to_string();
        let mine = mounts.lines().find(|line| line.split(' ').nth(4) == Some(&path)).expect("the disk is mounted");
        let source = mine.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(1)).expect("its device");
        self.device = source.trim_start_matches("/dev/").to_owned();
    }

    /// Takes all there is. Removing the file gives it back.
    pub fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let file = fs::File::create(&path).expect("a filler");
        let mut size = 0;
        for piece in [64 << 20, 1 << 20, 4096] {
            while rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), size, piece).is_ok() {
                size += piece;
            }
        }
        path
    }

    /// Bytes a second that can be written; none: as many as the machine can. False where there is no such limit.
    pub fn slow(&self, bytes_per_second: Option<u64>) -> bool {
        let number = fs::read_to_string(format!("/sys/class/block/{}/dev", self.device)).expect("the device's number");
        fs::write(THROTTLE, format!("{} {}\n", number.trim(), bytes_per_second.unwrap_or(0))).is_ok()
    }

    /// What the kernel does when the device reports an error: from now on nothing can be written.
    pub fn fail(&self) {
        fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", self.device), "a test\n").expect("an error");
        let probe = fs::write(self.path().join("probe"), "x").expect_err("it cannot be written any more");
        assert_eq!(probe.kind(), io::ErrorKind::ReadOnlyFilesystem, "{probe}");
    }

    /// As at the next start of the machine. Nobody may use it.
    pub fn repair(&mut self) {
        run("umount", &[], &[&self.path()]);
        // Others may have had it mounted in namespaces of theirs, which end a moment after their last process.
        let alive = PathBuf::from("/sys/fs/ext4").join(&self.device);
        crate::eventually("the broken file system to be gone", GONE, || !alive.exists());
        let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(self.file()).output().expect("e2fsck");
        assert!(checked.status.code().is_some_and(|code| code < 4), "{}", String::from_utf8_lossy(&checked.stdout));
        self.mount();
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        self.slow(None);
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

/// A directory that cannot be written to by whoever opens something below it from now on.
pub struct ReadOnly(PathBuf);

impl ReadOnly {
    pub fn over(dir: &Path) -> Self {
        run("mount", &["--rbind"], &[dir, dir]);
        let read_only = ReadOnly(dir.to_owned());
        // Not while something below it is being written.
        crate::eventually("nobody to write below the directory", GONE, || {
            let remount = Command::new("mount").args(["-o", "remount,bind,ro"]).arg(dir).output().expect("mount");
            remount.status.success()
        });
        read_only
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["--lazy", "--recursive"]).arg(&self.0).status();
    }
}

fn run(program: &str, flags: &[&str], paths: &[&Path]) {
    let output = Command::new(program).args(flags).args(paths).output().expect("a program of the system");
    assert!(output.status.success(), "{program} {flags:?} {paths:?}: {}", String::from_utf8_lossy(&output.stderr));
}
