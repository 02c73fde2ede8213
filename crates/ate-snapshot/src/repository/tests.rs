//! What object storage promises: a snapshot is complete or not there, whoever writes and whatever breaks.

use std::{
    collections::HashSet,
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ate_api::{
    Reason,
    id::{Activation, Digest, Uid},
};
use object_store::{
    ObjectStore, ObjectStoreExt, PutPayload,
    memory::InMemory,
    path::Path,
    throttle::{ThrottleConfig, ThrottledStore},
};
use tempfile::TempDir;

use super::{Prefix, Repository, object_name};
use crate::{
    Error, LocalSnapshot, LocalSnapshots,
    sample::{ACTOR, contents, snapshot},
};

const FOLDER: &str = "default";
const BUCKET: &str = "s3://test/some/path";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A node, a folder and a bucket in memory.
struct World {
    dir: TempDir,
    local: LocalSnapshots,
    repository: Repository,
    memory: Arc<InMemory>,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalSnapshots::open(dir.path().join("local")).await.unwrap();
        let memory = Arc::new(InMemory::new());
        let repository = repository(dir.path().join("objects"), &memory);
        World { dir, local, repository, memory }
    }

    /// A node that has nothing yet.
    async fn other_node(&self) -> LocalSnapshots {
        LocalSnapshots::open(self.dir.path().join(Uid::generate().as_str())).await.unwrap()
    }

    fn prefix(&self, location: &str) -> Prefix {
        self.repository.prefix(location, &Uid::parse(ACTOR).unwrap(), 3, Activation(5)).unwrap()
    }

    async fn snapshot(&self, prefix: &Prefix, pages: &[u8]) -> LocalSnapshot {
        snapshot(&self.local, &[("pages.img", pages), ("checkpoint.img", b"kernel")], prefix.encoding()).await
    }

    async fn uploaded(&self, location: &str) -> (Prefix, LocalSnapshot) {
        let prefix = self.prefix(location);
        let snap = self.snapshot(&prefix, &pages()).await;
        self.repository.upload(&prefix, &snap).await.unwrap();
        (prefix, snap)
    }

    fn folder(&self, prefix: &Prefix) -> PathBuf {
        self.dir.path().join("objects").join(prefix.parts().join("/"))
    }

    /// Replaces (or removes) a stored object, as an attacker with write access does.
    async fn tamper(&self, prefix: &Prefix, name: &str, bytes: Option<Vec<u8>>) {
        if prefix.location.is_folder() {
            let path = self.folder(prefix).join(name);
            fs::remove_file(&path).unwrap();
            if let Some(bytes) = bytes {
                fs::write(path, bytes).unwrap();
            }
        } else {
            let path = Path::from(format!("some/path/{}/{name}", prefix.parts().join("/")));
            match bytes {
                Some(bytes) => drop(self.memory.put(&path, PutPayload::from(bytes)).await.unwrap()),
                None => self.memory.delete(&path).await.unwrap(),
            }
        }
    }
}

fn repository(folder: PathBuf, memory: &Arc<InMemory>) -> Repository {
    let repository = Repository::new(folder).unwrap();
    repository.inner.stores.lock().unwrap().insert("s3://test".to_owned(), memory.clone() as Arc<dyn ObjectStore>);
    repository
}

/// Compressible, and more than one block of the hash.
fn pages() -> Vec<u8> {
    (0..700_000u32).flat_map(|i| (i / 1000).to_le_bytes()).collect()
}

fn encoded(prefix: &Prefix, bytes: &[u8]) -> Vec<u8> {
    match prefix.encoding() {
        None => bytes.to_vec(),
        Some(_) => zstd::encode_all(bytes, 1).unwrap(),
    }
}

#[tokio::test]
async fn a_snapshot_comes_back_on_another_node_as_it_was() {
    let w = World::new().await;
    for location in [FOLDER, BUCKET] {
        let (prefix, snap) = w.uploaded(location).await;
        let other = w.other_node().await;
        let prefix: Prefix = prefix.to_string().parse().unwrap();
        let fetched = w.repository.fetch(&prefix, &snap.digest, &other).await.unwrap();
        assert_eq!(contents(&fetched), contents(&snap));
        assert_eq!(fetched.manifest_bytes(), snap.manifest_bytes());
        assert_eq!(contents(&other.get(&snap.digest).await.unwrap()), contents(&snap));
        let (manifest, bytes) = w.repository.read_manifest(&prefix, &snap.digest).await.unwrap();
        assert_eq!((&manifest, &bytes[..]), (&*snap.manifest, snap.manifest_bytes()));
    }
}

#[tokio::test]
async fn in_a_folder_files_are_shared_and_the_copy_needs_no_second_hash() {
    let w = World::new().await;
    let (prefix, snap) = w.uploaded(FOLDER).await;
    let stamps = snap.files_dir().parent().unwrap().join("stamps.json");
    let renewed = fs::read(&stamps).unwrap();
    for file in &snap.manifest.files {
        let here = fs::metadata(snap.files_dir().join(&file.name)).unwrap();
        let there = fs::metadata(w.folder(&prefix).join(object_name(file))).unwrap();
        assert_eq!((here.dev(), here.ino()), (there.dev(), there.ino()));
    }
    w.local.get(&snap.digest).await.unwrap();
    assert_eq!(renewed, fs::read(&stamps).unwrap(), "the stamps were right, so nothing was hashed");

    let fetched = w.repository.fetch(&prefix, &snap.digest, &w.other_node().await).await.unwrap();
    let ino = |s: &LocalSnapshot| fs::metadata(s.files_dir().join("pages.img")).unwrap().ino();
    assert_eq!(ino(&fetched), ino(&snap));
}

#[tokio::test]
async fn in_a_bucket_files_are_compressed() {
    let w = World::new().await;
    let (prefix, snap) = w.uploaded(BUCKET).await;
    let name = object_name(&snap.manifest.files[0]);
    let path = Path::from(format!("some/path/{}/{name}", prefix.parts().join("/")));
    let stored = w.memory.get(&path).await.unwrap().bytes().await.unwrap();
    assert!(stored.len() < pages().len() / 10);
    assert_eq!(zstd::decode_all(&stored[..]).unwrap(), pages());
}

#[tokio::test]
async fn uploading_twice_is_fine() {
    let w = World::new().await;
    for location in [FOLDER, BUCKET] {
        let (prefix, snap) = w.uploaded(location).await;
        w.repository.upload(&prefix, &snap).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i1_of_two_writers_of_one_prefix_one_wins_and_the_other_is_told() {
    for round in 0..10u8 {
        let w = World::new().await;
        for location in [FOLDER, BUCKET] {
            let prefix = w.prefix(location);
            let snaps = [w.snapshot(&prefix, &[round; 1000]).await, w.snapshot(&prefix, &[round + 100; 1000]).await];
            // Another process has its own repository.
            let second = repository(w.dir.path().join("objects"), &w.memory);
            let (a, b) = tokio::join!(
                tokio::spawn({
                    let (r, p, s) = (w.repository.clone(), prefix.clone(), snaps[0].clone());
                    async move { r.upload(&p, &s).await }
                }),
                tokio::spawn({
                    let (p, s) = (prefix.clone(), snaps[1].clone());
                    async move { second.upload(&p, &s).await }
                }),
            );
            let (winner, loser) = match (a.unwrap(), b.unwrap()) {
                (Ok(()), Err(e)) => (&snaps[0], e),
                (Err(e), Ok(())) => (&snaps[1], e),
                both => panic!("{location}: {both:?}"),
            };
            assert_eq!(loser.reason(), Reason::Fenced, "{loser}");
            let fetched = w.repository.fetch(&prefix, &winner.digest, &w.other_node().await).await.unwrap();
            assert_eq!(contents(&fetched), contents(winner));
        }
    }
}

#[tokio::test]
async fn i2_a_crash_before_the_manifest_leaves_no_snapshot() {
    let w = World::new().await;
    for location in [FOLDER, BUCKET] {
        let (prefix, snap) = w.uploaded(location).await;
        w.tamper(&prefix, "manifest.json", None).await;
        let e = w.repository.fetch(&prefix, &snap.digest, &w.other_node().await).await.unwrap_err();
        assert_eq!(e.reason(), Reason::SnapshotNotFound, "{e}");
        let listed = w.repository.list(location).await.unwrap();
        assert_eq!(listed.iter().map(|s| (&s.prefix, s.complete)).collect::<Vec<_>>(), [(&prefix, false)]);
        // It may still be on its way.
        let (nothing, this) = (HashSet::new(), HashSet::from([prefix.clone()]));
        assert!(w.repository.collect(location, &nothing, DAY).await.unwrap().is_empty());
        // And an upload that comes later finishes it.
        w.repository.upload(&prefix, &snap).await.unwrap();
        assert!(w.repository.collect(location, &this, Duration::ZERO).await.unwrap().is_empty());
        w.tamper(&prefix, "manifest.json", None).await;
        assert_eq!(w.repository.collect(location, &nothing, Duration::ZERO).await.unwrap(), [prefix]);
        assert!(w.repository.list(location).await.unwrap().is_empty());
    }
}

/// An activation that ends between storing a snapshot and committing it leaves a whole one.
#[tokio::test]
async fn a_whole_snapshot_that_nobody_committed_is_collected_and_its_neighbour_stays() {
    let w = World::new().await;
    for location in [FOLDER, BUCKET] {
        let (prefix, snap) = w.uploaded(location).await;
        let next = w.repository.prefix(location, prefix.actor(), 9, Activation(9)).unwrap();
        w.repository.upload(&next, &snap).await.unwrap();
        let live = HashSet::from([prefix.clone()]);
        assert!(w.repository.collect(location, &live, DAY).await.unwrap().is_empty());
        assert_eq!(w.repository.collect(location, &live, Duration::ZERO).await.unwrap(), [next]);
        let left = w.repository.list(location).await.unwrap();
        assert_eq!(left.iter().map(|s| (&s.prefix, s.complete)).collect::<Vec<_>>(), [(&prefix, true)]);
    }
    // Whoever wanted to store something there, or had removed the last of it, died over it.
    let abandoned = w.folder(&w.prefix(FOLDER)).parent().unwrap().with_file_name(Uid::generate().as_str());
    fs::create_dir(&abandoned).unwrap();
    w.repository.collect(FOLDER, &HashSet::from([w.prefix(FOLDER)]), DAY).await.unwrap();
    assert!(abandoned.exists(), "it may be on its way");
    w.repository.collect(FOLDER, &HashSet::from([w.prefix(FOLDER)]), Duration::ZERO).await.unwrap();
    assert!(!abandoned.exists() && w.folder(&w.prefix(FOLDER)).exists());
}

#[tokio::test]
async fn a_deleted_snapshot_is_gone_and_deleting_it_again_is_fine() {
    let w = World::new().await;
    for location in [FOLDER, BUCKET] {
        let (prefix, snap) = w.uploaded(location).await;
        assert!(w.repository.list(location).await.unwrap()[0].complete);
        for _ in 0..2 {
            w.repository.delete(&prefix).await.unwrap();
        }
        assert!(w.repository.list(location).await.unwrap().is_empty());
        // The copy on the node has its own names.
        w.local.get(&snap.digest).await.unwrap();
    }
    assert!(!w.folder(&w.prefix(FOLDER)).parent().unwrap().exists());
}

#[tokio::test]
async fn a_deletion_that_stops_half_way_leaves_nothing_that_looks_complete() {
    let w = World::new().await;
    let (prefix, snap) = w.uploaded(BUCKET).await;
    // A store that answers everything but the listing, which deletion needs to find the files.
    let never = ThrottleConfig { wait_list_per_call: DAY, ..Default::default() };
    let stuck: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(w.memory.clone(), never));
    let other = repository(w.dir.path().join("objects"), &w.memory);
    other.inner.stores.lock().unwrap().insert("s3://test".to_owned(), stuck);
    let stopped = tokio::time::timeout(Duration::from_millis(100), other.delete(&prefix)).await;
    assert!(stopped.is_err(), "it waits for the listing");

    let listed = w.repository.list(BUCKET).await.unwrap();
    assert_eq!(listed.iter().map(|s| (&s.prefix, s.complete)).collect::<Vec<_>>(), [(&prefix, false)]);
    let e = w.repository.read_manifest(&prefix, &snap.digest).await.unwrap_err();
    assert_eq!(e.reason(), Reason::SnapshotNotFound, "{e}");
    other.claim(&prefix).expect("a call that was given up holds nothing");
}

#[tokio::test]
async fn damaged_or_hostile_objects_are_refused_and_leave_nothing() {
    let w = World::new().await;
    let good = pages();
    let mut flipped = good.clone();
    flipped[1_000_000] ^= 1;
    let half = good.len() / 2;
    for location in [FOLDER, BUCKET] {
        let (prefix, snap) = w.uploaded(location).await;
        let name = object_name(&snap.manifest.files[0]);
        let whole = encoded(&prefix, &good);
        let damages = [
            ("flipped", Some(encoded(&prefix, &flipped))),
            ("truncated", Some(encoded(&prefix, &good[..half]))),
            ("truncated as stored", Some(whole[..whole.len() / 2].to_vec())),
            ("extended", Some(encoded(&prefix, &[&good[..], b"x"].concat()))),
            ("garbage at the end", Some([&whole[..], b"garbage"].concat())),
            ("far too long", Some(encoded(&prefix, &vec![0; 64 << 20]))),
            ("empty", Some(Vec::new())),
            ("missing", None),
        ];
        for (damage, bytes) in damages {
            w.tamper(&prefix, &name, bytes).await;
            let other = w.other_node().await;
            let e = w.repository.fetch(&prefix, &snap.digest, &other).await.expect_err(damage);
            assert_eq!(e.reason(), Reason::SnapshotCorrupt, "{location}, {damage}: {e}");
            assert!(other.list().await.unwrap().is_empty());
            if prefix.location.is_folder() && damage == "missing" {
                continue;
            }
            w.tamper(&prefix, "manifest.json", None).await;
            w.repository.delete(&prefix).await.unwrap();
            w.repository.upload(&prefix, &snap).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_manifest_that_was_tampered_with_is_refused_before_anything_is_fetched() {
    let w = World::new().await;
    for location in [FOLDER, BUCKET] {
        let (prefix, snap) = w.uploaded(location).await;
        let text = String::from_utf8(snap.manifest_bytes().to_vec()).unwrap();
        let evil = text.replace("\"class\":\"gvisor\"", "\"class\":\"gvisoR\"");
        assert_ne!(text, evil);
        w.tamper(&prefix, "manifest.json", Some(evil.into_bytes())).await;
        let e = w.repository.fetch(&prefix, &snap.digest, &w.other_node().await).await.unwrap_err();
        assert_eq!(e.reason(), Reason::ManifestDigestMismatch, "{e}");
        w.tamper(&prefix, "manifest.json", Some(vec![b' '; 2 << 20])).await;
        let e = w.repository.fetch(&prefix, &snap.digest, &w.other_node().await).await.unwrap_err();
        assert_eq!(e.reason(), Reason::ManifestInvalid, "{e}");
    }
}

#[tokio::test]
async fn a_damaged_local_copy_is_replaced_from_storage() {
    let w = World::new().await;
    let (prefix, snap) = w.uploaded(BUCKET).await;
    let path = snap.files_dir().join("pages.img");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, b"damaged").unwrap();
    let fetched = w.repository.fetch(&prefix, &snap.digest, &w.local).await.unwrap();
    assert_eq!(contents(&fetched)[0].1, pages());
}

#[tokio::test]
async fn a_folder_that_others_can_change_or_that_leads_elsewhere_is_refused() {
    let w = World::new().await;
    let (prefix, snap) = w.uploaded(FOLDER).await;
    let place = w.folder(&prefix);
    fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
    let e = w.repository.delete(&prefix).await.unwrap_err();
    assert_eq!(e.reason(), Reason::Invalid, "{e}");
    fs::set_permissions(&place, Permissions::from_mode(0o700)).unwrap();

    let actor = place.parent().unwrap();
    let elsewhere = w.dir.path().join("elsewhere");
    fs::rename(actor, &elsewhere).unwrap();
    symlink(&elsewhere, actor).unwrap();
    for e in [
        w.repository.delete(&prefix).await.unwrap_err(),
        w.repository.upload(&prefix, &snap).await.unwrap_err(),
        w.repository.fetch(&prefix, &snap.digest, &w.other_node().await).await.unwrap_err(),
    ] {
        assert_eq!(e.reason(), Reason::Invalid, "{e}");
    }
    assert!(elsewhere.join("00000003-5/manifest.json").exists());
}

#[tokio::test]
async fn a_file_that_somebody_else_owns_is_copied_and_not_shared() {
    let w = World::new().await;
    let (prefix, snap) = w.uploaded(FOLDER).await;
    let object = w.folder(&prefix).join(object_name(&snap.manifest.files[0]));
    fs::set_permissions(&object, Permissions::from_mode(0o666)).unwrap();
    let fetched = w.repository.fetch(&prefix, &snap.digest, &w.other_node().await).await.unwrap();
    let ino = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_ne!(ino(fetched.files_dir().join("pages.img")), ino(object));
    assert_eq!(contents(&fetched), contents(&snap));
}

#[tokio::test]
async fn one_prefix_has_one_writer_at_a_time() {
    let w = World::new().await;
    let prefix = w.prefix(FOLDER);
    let snap = w.snapshot(&prefix, b"x").await;
    let claim = w.repository.claim(&prefix).unwrap();
    assert_eq!(w.repository.upload(&prefix, &snap).await.unwrap_err().reason(), Reason::Conflict);
    assert_eq!(w.repository.delete(&prefix).await.unwrap_err().reason(), Reason::Conflict);
    drop(claim);
    w.repository.upload(&prefix, &snap).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_sealed_for_another_kind_of_location_is_refused() {
    let w = World::new().await;
    let (_, snap) = w.uploaded(FOLDER).await;
    let e = w.repository.upload(&w.prefix(BUCKET), &snap).await.unwrap_err();
    assert!(matches!(e, Error::Manifest(_)), "{e}");
}

#[tokio::test]
async fn a_bucket_copied_into_a_folder_can_be_read() {
    let w = World::new().await;
    let (prefix, snap) = w.uploaded(BUCKET).await;
    let copy = w.prefix(FOLDER);
    let dir = w.folder(&copy);
    crate::files::create_dir_all(&dir).unwrap();
    for name in snap.manifest.files.iter().map(object_name).chain(["manifest.json".to_owned()]) {
        let path = Path::from(format!("some/path/{}/{name}", prefix.parts().join("/")));
        fs::write(dir.join(&name), w.memory.get(&path).await.unwrap().bytes().await.unwrap()).unwrap();
    }
    let fetched = w.repository.fetch(&copy, &snap.digest, &w.other_node().await).await.unwrap();
    assert_eq!(contents(&fetched), contents(&snap));
}

#[tokio::test]
async fn what_is_not_a_location_is_refused() {
    let w = World::new().await;
    let uid = Uid::generate();
    for bad in ["", "ftp://x/y", "file:///etc", "file:///a/../b", "s3://bucket/../x"] {
        let e = w.repository.prefix(bad, &uid, 1, Activation(1)).unwrap_err();
        assert_eq!(e.reason(), Reason::Invalid, "{bad}: {e}");
    }
    let nothing = Digest::of(b"");
    let e = w.repository.fetch(&w.prefix(FOLDER), &nothing, &w.local).await.unwrap_err();
    assert_eq!(e.reason(), Reason::SnapshotNotFound, "{e}");
}

#[tokio::test]
async fn a_manifest_that_is_no_file_is_refused_as_one() {
    let world = World::new().await;
    let prefix = world.prefix(FOLDER);
    let snap = world.snapshot(&prefix, b"pages").await;
    world.repository.upload(&prefix, &snap).await.unwrap();
    let manifest = PathBuf::from(prefix.to_string().strip_prefix("file://").unwrap()).join("manifest.json");
    fs::remove_file(&manifest).unwrap();
    fs::create_dir(&manifest).unwrap();
    let e = world.repository.fetch(&prefix, &snap.digest, &world.other_node().await).await.unwrap_err();
    assert_eq!(e.reason(), Reason::ManifestInvalid, "{e}");
}
