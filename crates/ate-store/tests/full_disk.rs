//! The embedded store on a disk that fills up. Needs root: the disk is a small tmpfs in a mount namespace of its own,
//! which goes away with the child process the test starts itself as.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use ate_store::{EmbeddedStore, Expect, Store, StoreError, Transaction};
use rustix::mount::{MountFlags, mount};

const CHILD: &str = "ATE_STORE_FULL_DISK";
/// Twice what the store keeps in reserve.
const DISK: &str = "size=128m";

/// Runs the test named so in a child with its own mounts; returns there, with a small disk.
fn small_disk(test: &str) -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os(CHILD) {
        let directory = PathBuf::from(directory);
        let options = std::ffi::CString::new(DISK).unwrap();
        mount("tmpfs", &directory, "tmpfs", MountFlags::empty(), options.as_c_str()).expect("mounting needs root");
        return Some(directory);
    }
    let directory = tempfile::tempdir().unwrap();
    let child = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, directory.path())
        .output()
        .expect("unshare, from util-linux, runs");
    let (out, err) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "{out}{err}");
    None
}

fn free(directory: &Path) -> u64 {
    let disk = rustix::fs::statvfs(directory).unwrap();
    disk.f_bavail * disk.f_frsize
}

/// Somebody else's file, leaving so many bytes.
fn fill(directory: &Path, leave: u64) {
    use std::io::Write;
    let mut file = std::fs::File::options().create(true).append(true).open(directory.join("filler")).unwrap();
    let chunk = vec![1u8; 64 << 10];
    while free(directory) > leave {
        if file.write(&chunk).is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_loses_nothing_and_recovers_by_itself() {
    let Some(disk) = small_disk("a_full_disk_refuses_writes_loses_nothing_and_recovers_by_itself") else { return };
    let store = EmbeddedStore::open(disk.join("store")).unwrap();
    let version = store.commit(Transaction::new().put("before", "1")).await.unwrap();

    fill(&disk, 32 << 20);
    let refused = loop {
        // The store looks every now and then; until it does, it goes on.
        match store.commit(Transaction::new().put("before", "2").put("new", "x")).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, StoreError::Full), "{refused}");
    let before = store.get("before").await.unwrap().expect("still there");
    assert!(before.version >= version);
    // What writes nothing goes on.
    store.commit(Transaction::new().check("before", Expect::Version(before.version))).await.unwrap();

    std::fs::remove_file(disk.join("filler")).unwrap();
    store.commit(Transaction::new().put("after", "3")).await.expect("there is room again");
    drop(store);
    let store = EmbeddedStore::open(disk.join("store")).unwrap();
    assert_eq!(store.get("before").await.unwrap(), Some(before));
    assert_eq!(store.get("after").await.unwrap().unwrap().value, "3");
}

#[tokio::test]
async fn a_disk_that_fills_up_under_a_write_loses_nothing_acknowledged() {
    let Some(disk) = small_disk("a_disk_that_fills_up_under_a_write_loses_nothing_acknowledged") else { return };
    let store = EmbeddedStore::open(disk.join("store")).unwrap();
    let mut acknowledged = Vec::new();
    // Faster than the store looks: it runs into the wall.
    let failed = loop {
        let key = format!("k/{:05}", acknowledged.len());
        let value = vec![b'x'; 1 << 20];
        match store.commit(Transaction::new().put(&key, value.clone()).put(format!("{key}/too"), value)).await {
            Ok(version) => acknowledged.push((key, version)),
            Err(e) => break e,
        }
        fill(&disk, 512 << 10);
    };
    assert!(matches!(failed, StoreError::Full | StoreError::Unavailable(_)), "{failed}");
    if matches!(failed, StoreError::Unavailable(_)) {
        let later = store.commit(Transaction::new().put("later", "x")).await;
        assert!(matches!(later, Err(StoreError::Unavailable(_))), "a broken store takes no more: {later:?}");
    }
    drop(store);
    std::fs::remove_file(disk.join("filler")).unwrap();
    let store = EmbeddedStore::open(disk.join("store")).expect("it opens once there is room");
    for (key, version) in acknowledged {
        assert_eq!(store.get(&key).await.unwrap().expect("acknowledged and lost").version, version);
    }
    let whole = store.list("k/", None, 10_000).await.unwrap();
    assert_eq!(whole.len() % 2, 0, "half of a transaction is there");
    store.commit(Transaction::new().put("k", "goes on")).await.unwrap();
}
