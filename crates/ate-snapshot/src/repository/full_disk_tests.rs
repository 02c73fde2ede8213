//! A full disk: a typed error, nothing visible, the space given back. Needs root, as the node does.

use std::{
    fs::{self, File},
    io::Write,
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ate_api::{
    Reason,
    id::{Activation, Uid},
};
use object_store::{ObjectStore, memory::InMemory};
use rustix::{
    fs::{Mode, OFlags, open},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use super::Repository;
use crate::{
    LocalSnapshots,
    sample::{ACTOR, contents, manifest_of, snapshot, written},
};

/// A disk of a few pages. It has no place in the file system, only an open directory, so it goes with the process
/// however that ends.
struct TinyDisk {
    root: OwnedFd,
}

impl TinyDisk {
    fn new(bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = std::ffi::CString::new(format!("size={bytes},mode=700")).unwrap();
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::NODEV | MountFlags::NOSUID, Some(size.as_c_str()))
            .expect("mounting needs root");
        let root = open(dir.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        unmount(dir.path(), UnmountFlags::DETACH).unwrap();
        let disk = TinyDisk { root: root.unwrap() };
        fs::create_dir(disk.path()).unwrap();
        disk
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/disk", self.root.as_raw_fd()))
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Writes until nothing more fits; what is returned frees it.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("ballast");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }

    async fn has_free_again(&self, bytes: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.free() < bytes {
            assert!(Instant::now() < deadline, "only {} of {bytes} bytes are free again", self.free());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

const DISK: usize = 1 << 20;

/// Does not fit, and does not shrink.
fn large() -> Vec<u8> {
    let mut x = 1u32;
    (0..2 * DISK)
        .map(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 24) as u8
        })
        .collect()
}

#[tokio::test]
async fn a_fetch_onto_a_full_disk_fails_as_such_and_gives_the_space_back() {
    let disk = TinyDisk::new(DISK);
    let dir = tempfile::tempdir().unwrap();
    let roomy = LocalSnapshots::open(dir.path().join("local")).await.unwrap();
    let full = LocalSnapshots::open(disk.path().join("local")).await.unwrap();
    let repository = Repository::new(dir.path().join("objects")).unwrap();
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    repository.inner.stores.lock().unwrap().insert("s3://test".to_owned(), memory);
    let kept = snapshot(&full, &[("a", b"was here before")], None).await;

    let free = disk.free();
    for location in ["default", "s3://test"] {
        let prefix = repository.prefix(location, &Uid::parse(ACTOR).unwrap(), 1, Activation(1)).unwrap();
        let small = [("pages.img", &b"x"[..])];
        let snap = snapshot(&roomy, &[("pages.img", &large())], prefix.encoding()).await;
        repository.upload(&prefix, &snap).await.unwrap();
        let e = repository.fetch(&prefix, &snap.digest, &full).await.unwrap_err();
        assert_eq!(e.reason(), Reason::DiskFull, "{location}: {e}");
        disk.has_free_again(free).await;

        // What fits is fetched, over the border of file systems.
        let prefix = repository.prefix(location, &Uid::parse(ACTOR).unwrap(), 2, Activation(1)).unwrap();
        let snap = snapshot(&roomy, &small, prefix.encoding()).await;
        repository.upload(&prefix, &snap).await.unwrap();
        let fetched = repository.fetch(&prefix, &snap.digest, &full).await.unwrap();
        assert_eq!(contents(&fetched), contents(&snap));
        full.remove(&snap.digest).await.unwrap();
    }
    assert_eq!(full.list().await.unwrap().len(), 1);
    full.get(&kept.digest).await.unwrap();
}

#[tokio::test]
async fn an_upload_into_a_full_folder_fails_as_such_and_leaves_nothing_there() {
    let disk = TinyDisk::new(DISK);
    let dir = tempfile::tempdir().unwrap();
    let local = LocalSnapshots::open(dir.path().join("local")).await.unwrap();
    let repository = Repository::new(disk.path().join("objects")).unwrap();
    let prefix = |n| repository.prefix("default", &Uid::parse(ACTOR).unwrap(), n, Activation(1)).unwrap();
    let small = snapshot(&local, &[("a", b"fits"), ("b", b"fits too")], None).await;
    repository.upload(&prefix(1), &small).await.unwrap();

    let free = disk.free();
    let snap = snapshot(&local, &[("a", b"fits"), ("pages.img", &large())], None).await;
    let e = repository.upload(&prefix(2), &snap).await.unwrap_err();
    assert_eq!(e.reason(), Reason::DiskFull, "{e}");
    disk.has_free_again(free).await;
    let listed = repository.list("default").await.unwrap();
    assert_eq!(listed.iter().map(|s| (&s.prefix, s.complete)).collect::<Vec<_>>(), [(&prefix(1), true)]);
    // The copy on the node is as good as before.
    local.get(&snap.digest).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_completed_for_lack_of_space_is_not_there() {
    let disk = TinyDisk::new(DISK);
    let local = LocalSnapshots::open(disk.path().join("local")).await.unwrap();
    let (mut staging, described) = written(&local, &[("a", b"written in time")]).await;
    let files = staging.seal(&described, None).await.unwrap();
    let ballast = disk.fill();
    let e = local.adopt(staging, &manifest_of(files)).await.unwrap_err();
    assert_eq!(e.reason(), Reason::DiskFull, "{e}");
    assert!(local.list().await.unwrap().is_empty());
    fs::remove_file(ballast).unwrap();
    snapshot(&local, &[("a", b"written in time")], None).await;
}
