//! What a copy on the node promises: exactly the bytes of the manifest, or an error.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ate_api::Reason;
use tempfile::TempDir;

use super::LocalSnapshots;
use crate::{
    DriverFile, Error, LocalSnapshot,
    sample::{self, contents, manifest_of, snapshot, written},
};

const PAGES: &[u8] = b"the memory of an actor";

async fn node() -> (TempDir, LocalSnapshots) {
    let dir = tempfile::tempdir().unwrap();
    let local = LocalSnapshots::open(dir.path().join("snapshots")).await.unwrap();
    (dir, local)
}

async fn one(local: &LocalSnapshots) -> (LocalSnapshot, PathBuf) {
    let snap = snapshot(local, &[("pages.img", PAGES), ("checkpoint.img", b"kernel")], None).await;
    let pages = snap.files_dir().join("pages.img");
    (snap, pages)
}

/// Writes to a file in spite of its mode, as damage does.
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn what_the_driver_wrote_is_what_it_gets_back() {
    let (_dir, local) = node().await;
    let (snap, _) = one(&local).await;
    let found = local.get(&snap.digest).await.unwrap();
    assert_eq!(
        contents(&found),
        [("pages.img".to_owned(), PAGES.to_vec()), ("checkpoint.img".to_owned(), b"kernel".to_vec())]
    );
    assert_eq!(found.manifest_bytes(), snap.manifest.to_bytes());
    let mut names: Vec<_> = fs::read_dir(found.files_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["checkpoint.img", "pages.img"], "the driver's directory holds only its files");
}

#[tokio::test]
async fn nobody_but_the_node_can_read_a_snapshot() {
    let (_dir, local) = node().await;
    let (snap, pages) = one(&local).await;
    for dir in [snap.files_dir(), snap.files_dir().parent().unwrap(), &local.inner.root] {
        assert_eq!(fs::metadata(dir).unwrap().mode() & 0o777, 0o700, "{}", dir.display());
    }
    assert_eq!(fs::metadata(pages).unwrap().mode() & 0o777, 0o400);
}

#[tokio::test]
async fn damage_of_any_kind_is_never_served_and_is_put_aside() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 11] = [
        ("a byte flipped", |d| overwrite(&d.join("files/pages.img"), b"the memory of an actoR")),
        ("truncated", |d| overwrite(&d.join("files/pages.img"), &PAGES[..5])),
        ("extended", |d| overwrite(&d.join("files/pages.img"), &[PAGES, b"x"].concat())),
        ("removed", |d| fs::remove_file(d.join("files/pages.img")).unwrap()),
        ("swapped", |d| {
            fs::rename(d.join("files/pages.img"), d.join("x")).unwrap();
            fs::rename(d.join("files/checkpoint.img"), d.join("files/pages.img")).unwrap();
            fs::rename(d.join("x"), d.join("files/checkpoint.img")).unwrap();
        }),
        ("a link to the same bytes", |d| {
            fs::rename(d.join("files/pages.img"), d.join("real")).unwrap();
            symlink(d.join("real"), d.join("files/pages.img")).unwrap();
        }),
        ("a directory", |d| {
            fs::remove_file(d.join("files/pages.img")).unwrap();
            fs::create_dir(d.join("files/pages.img")).unwrap();
        }),
        ("a file too many", |d| fs::write(d.join("files/extra"), b"x").unwrap()),
        ("another manifest", |d| overwrite(&d.join("manifest.json"), b"{}")),
        ("no manifest", |d| fs::remove_file(d.join("manifest.json")).unwrap()),
        ("no files", |d| fs::remove_dir_all(d.join("files")).unwrap()),
    ];
    for (name, damage) in damages {
        let (_dir, local) = node().await;
        let (snap, _) = one(&local).await;
        damage(snap.files_dir().parent().unwrap());
        let e = local.get(&snap.digest).await.expect_err(name);
        assert_eq!(e.reason(), Reason::SnapshotCorrupt, "{name}: {e}");
        let e = local.get(&snap.digest).await.expect_err(name);
        assert_eq!(e.reason(), Reason::SnapshotNotFound, "{name}: {e}");
        assert_eq!(fs::read_dir(local.inner.root.join(".quarantine")).unwrap().count(), 1, "{name}");
    }
}

#[tokio::test]
async fn the_quarantine_keeps_the_last_four() {
    let (_dir, local) = node().await;
    for i in 0..6u8 {
        let snap = snapshot(&local, &[("a", &[i])], None).await;
        overwrite(&snap.files_dir().join("a"), b"damaged");
        local.get(&snap.digest).await.unwrap_err();
    }
    assert_eq!(fs::read_dir(local.inner.root.join(".quarantine")).unwrap().count(), 4);
}

#[tokio::test]
async fn a_file_that_was_only_touched_is_hashed_again_and_served() {
    let (_dir, local) = node().await;
    let (snap, pages) = one(&local).await;
    let stamps = snap.files_dir().parent().unwrap().join("stamps.json");
    let before = fs::read(&stamps).unwrap();
    fs::set_permissions(&pages, Permissions::from_mode(0o440)).unwrap();
    local.get(&snap.digest).await.unwrap();
    let after = fs::read(&stamps).unwrap();
    assert_ne!(before, after, "the new look is remembered");
    local.get(&snap.digest).await.unwrap();
    assert_eq!(after, fs::read(&stamps).unwrap(), "and not hashed a third time");
}

#[tokio::test]
async fn lost_or_foreign_stamps_only_cost_time() {
    let (_dir, local) = node().await;
    let (snap, _) = one(&local).await;
    let stamps = snap.files_dir().parent().unwrap().join("stamps.json");
    for bytes in [&b"not json"[..], b"{}", b"[1]"] {
        fs::write(&stamps, bytes).unwrap();
        local.get(&snap.digest).await.unwrap();
    }
    fs::remove_file(&stamps).unwrap();
    local.get(&snap.digest).await.unwrap();
    assert!(stamps.exists());
}

#[tokio::test]
async fn a_checkpoint_that_is_not_what_the_driver_says_is_refused() {
    let (_dir, local) = node().await;
    let described = |names: &[&str]| -> Vec<DriverFile> {
        names.iter().map(|n| DriverFile { name: (*n).to_owned(), media_type: String::new() }).collect()
    };
    let (mut staging, _) = written(&local, &[("a", b"1"), ("b", b"2")]).await;
    for bad in [&["a"][..], &["a", "b", "c"], &["a", "b", "b"], &["a", "../a"], &[]] {
        let e = staging.seal(&described(bad), None).await.unwrap_err();
        assert_eq!(e.reason(), Reason::SandboxFailed, "{bad:?}: {e}");
    }
    staging.seal(&described(&["a", "b"]), None).await.unwrap();

    symlink("/etc/passwd", staging.dir().join("link")).unwrap();
    let e = staging.seal(&described(&["a", "b", "link"]), None).await.unwrap_err();
    assert_eq!(e.reason(), Reason::SandboxFailed, "{e}");
}

#[tokio::test]
async fn a_manifest_of_other_files_than_were_sealed_is_refused() {
    let (_dir, local) = node().await;
    let (mut staging, described) = written(&local, &[("a", b"1")]).await;
    staging.seal(&described, None).await.unwrap();
    let e = local.adopt(staging, &manifest_of(vec![sample::file("a", b"2")])).await.unwrap_err();
    assert!(matches!(e, Error::Manifest(_)), "{e}");
    assert!(local.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn adopting_the_same_snapshot_twice_is_fine() {
    let (_dir, local) = node().await;
    let (first, _) = one(&local).await;
    let (second, pages) = one(&local).await;
    assert_eq!(first.digest, second.digest);
    overwrite(&pages, b"damaged");
    // A damaged one gives way to a good one.
    let (third, _) = one(&local).await;
    assert_eq!(contents(&third)[0].1, PAGES);
}

#[tokio::test]
async fn what_was_not_adopted_leaves_nothing_also_after_a_crash() {
    let (dir, local) = node().await;
    let (staging, _) = written(&local, &[("a", b"1")]).await;
    let left = staging.dir().parent().unwrap().to_owned();
    drop(staging);
    let deadline = Instant::now() + Duration::from_secs(10);
    while left.exists() {
        assert!(Instant::now() < deadline, "the staging directory stays");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    let (staging, _) = written(&local, &[("a", b"1")]).await;
    let left = staging.dir().to_owned();
    std::mem::forget(staging);
    let (snap, _) = one(&local).await;
    let again = LocalSnapshots::open(dir.path().join("snapshots")).await.unwrap();
    assert!(!left.exists());
    again.get(&snap.digest).await.unwrap();
}

#[tokio::test]
async fn collection_spares_what_is_referenced_and_what_is_young() {
    let (_dir, local) = node().await;
    let live = snapshot(&local, &[("a", b"live")], None).await;
    let dead = snapshot(&local, &[("a", b"dead")], None).await;
    let keep = [live.digest.clone()].into();
    assert!(local.collect(&keep, Duration::from_secs(60)).await.unwrap().is_empty());
    assert_eq!(local.collect(&keep, Duration::ZERO).await.unwrap(), std::slice::from_ref(&dead.digest));
    assert_eq!(local.get(&dead.digest).await.unwrap_err().reason(), Reason::SnapshotNotFound);
    let digests: Vec<_> = local.list().await.unwrap().into_iter().map(|e| e.digest).collect();
    assert_eq!(digests, std::slice::from_ref(&live.digest));
    local.remove(&live.digest).await.unwrap();
    local.remove(&live.digest).await.unwrap();
    assert!(local.list().await.unwrap().is_empty());
}
