//! Keeping an asset: verified again after every change, collected when nobody needs it.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    time::Duration,
};

use ate_agent::AssetUpload;
use ate_api::{Error, Reason, id::Digest};
use ate_node::assets::{AssetCache, AssetError};
use tokio::sync::mpsc;

use crate::{
    Bed, PROGRAM, archive, large, pinned,
    support::{Layer, SmallDisk, gzip, names},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_on_disk_is_verified_again_before_it_is_served() {
    let bed = Bed::new().await;
    let url = bed.source("runsc", PROGRAM);
    let asset = pinned(PROGRAM, &[&url]);
    let path = bed.cache.ensure(&asset).await.unwrap();

    // Touched, and with another mode, but the same bytes.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(bed.cache.verified_path(&asset).await.unwrap(), Some(path.clone()));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o555);

    // Other bytes of the same length, with the times set back.
    let before = fs::metadata(&path).unwrap();
    let mut evil = PROGRAM.to_vec();
    evil[15] ^= 1;
    fs::write(&path, &evil).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(before.modified().unwrap())).unwrap();
    drop(file);
    assert_eq!(bed.cache.verified_path(&asset).await.unwrap(), None);
    assert_eq!(names(&bed.path("assets/quarantine")).len(), 1);
    assert_eq!(fs::read(bed.cache.ensure(&asset).await.unwrap()).unwrap(), PROGRAM);

    // A symlink to the right bytes somewhere else.
    fs::remove_file(&path).unwrap();
    symlink(bed.path("runsc"), &path).unwrap();
    assert_eq!(bed.cache.verified_path(&asset).await.unwrap(), None);
    assert!(fs::symlink_metadata(bed.cache.ensure(&asset).await.unwrap()).unwrap().is_file());

    // Gone, and so is the source.
    fs::remove_file(&path).unwrap();
    fs::remove_file(bed.path("runsc")).unwrap();
    assert!(matches!(bed.cache.ensure(&asset).await, Err(AssetError::Unavailable { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_while_the_node_was_down_is_noticed() {
    let bed = Bed::new().await;
    let url = bed.source("runsc", PROGRAM);
    let asset = pinned(PROGRAM, &[&url]);
    let path = bed.cache.ensure(&asset).await.unwrap();
    let bed = bed.reopen().await;
    fs::remove_file(bed.path("runsc")).unwrap();
    assert_eq!(bed.cache.ensure(&asset).await.unwrap(), path, "verified before, unchanged since");
    fs::write(&path, "evil").unwrap();
    let bed = bed.reopen().await;
    assert!(bed.cache.ensure(&asset).await.is_err());
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_needs_is_collected_and_what_a_configuration_names_is_not() {
    let bed = Bed::new().await;
    let kept = bed.import("application/octet-stream", PROGRAM).await.unwrap();
    let other = bed.import("application/octet-stream", b"other").await.unwrap();
    let url = bed.source("third", b"third");
    let third = bed.cache.ensure(&pinned(b"third", &[&url])).await.unwrap();
    fs::write(bed.path(&format!("assets/partial/sha256-{}", Digest::of(b"fourth"))), "fou").unwrap();
    let live = HashSet::from([kept.digest.clone()]);
    assert_eq!(bed.cache.collect(&live, Duration::from_secs(600)).await.unwrap(), []);
    let gone = bed.cache.collect(&live, Duration::ZERO).await.unwrap();
    assert_eq!(HashSet::from_iter(gone), HashSet::from([Digest::of(b"third"), Digest::of(b"fourth")]));
    assert!(!third.exists());
    for import in [&kept, &other] {
        assert!(
            Path::new(import.url.strip_prefix("file://").unwrap()).exists(),
            "an import waits for its configuration"
        );
    }
    assert_eq!(names(&bed.path("assets/partial")), Vec::<String>::new());
    let reported: Vec<Digest> = bed.cache.report().into_iter().map(|r| r.sha256).collect();
    assert_eq!(HashSet::from_iter(reported), HashSet::from([kept.digest, other.digest]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_so_and_leaves_room_for_others() {
    let disk = SmallDisk::new();
    let cache = AssetCache::open(disk.path().join("assets")).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        fs::write(dir.path().join(name), bytes).unwrap();
        format!("file://{}", dir.path().join(name).display())
    };
    let body = large();
    let small = pinned(PROGRAM, &[&write("small", PROGRAM)]);
    cache.ensure(&small).await.unwrap();
    let error = cache.ensure(&pinned(&body, &[&write("large", &body)])).await.unwrap_err();
    assert!(matches!(error, AssetError::DiskFull { .. }), "{error}");
    assert_eq!(Error::from(error).reason, Reason::DiskFull);
    // What was here is still good, and what fits still comes.
    cache.ensure(&small).await.unwrap();
    let medium = vec![1u8; 512 << 10];
    cache.ensure(&pinned(&medium, &[&write("medium", &medium)])).await.unwrap();
    // An import and an archive that do not fit end the same way.
    let (send, chunks) = mpsc::channel(64);
    send.send(body[..900 << 10].to_vec()).await.unwrap();
    drop(send);
    let upload = AssetUpload { media_type: "application/octet-stream".into(), size: 900 << 10, chunks };
    assert!(matches!(cache.import(upload).await, Err(AssetError::DiskFull { .. })));
    let bomb = gzip(&Layer::new().file("zeros", &"0".repeat(4 << 20)).bytes());
    let error = cache.ensure(&archive(&bomb, &write("bomb", &bomb))).await.unwrap_err();
    assert!(matches!(error, AssetError::DiskFull { .. }), "{error}");
    assert_eq!(names(&disk.path().join("assets/tmp")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_others_can_write_is_closed_to_them_and_a_symlink_in_its_place_is_not_used() {
    let bed = Bed::new().await;
    let asset = pinned(PROGRAM, &[&bed.source("runsc", PROGRAM)]);
    let path = bed.cache.ensure(&asset).await.unwrap();
    let files = bed.path("assets/files");
    fs::set_permissions(&files, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(bed.cache.ensure(&asset).await.unwrap(), path);
    assert_eq!(fs::metadata(&files).unwrap().mode() & 0o7777, 0o700);

    // The same files, so that no stamp of theirs has changed.
    fs::rename(&files, bed.path("elsewhere")).unwrap();
    symlink(bed.path("elsewhere"), &files).unwrap();
    let error = bed.cache.ensure(&asset).await.unwrap_err();
    assert!(matches!(&error, AssetError::Foreign { dir, .. } if *dir == files), "{error}");
    assert_eq!(Error::from(error).reason, Reason::AssetUnavailable);
    fs::remove_file(&files).unwrap();
    fs::rename(bed.path("elsewhere"), &files).unwrap();
    assert_eq!(bed.cache.ensure(&asset).await.unwrap(), path);
}
