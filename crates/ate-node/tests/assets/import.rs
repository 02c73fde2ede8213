//! Uploads.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::Duration,
};

use ate_api::id::Digest;
use ate_node::assets::{AssetError, Imported};

use crate::{
    Bed, PROGRAM, pinned,
    server::Server,
    support::{Layer, names},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_import_has_a_url_that_serves_it_without_a_second_copy() {
    let bed = Bed::new().await;
    let imported = bed.import("application/octet-stream", PROGRAM).await.unwrap();
    assert_eq!((imported.size, imported.existed), (PROGRAM.len() as u64, false));
    assert_eq!(imported.digest, Digest::of(PROGRAM));
    let path = bed.cache.ensure(&pinned(PROGRAM, &[&imported.url])).await.unwrap();
    let kept = imported.url.strip_prefix("file://").unwrap();
    assert_eq!(fs::metadata(kept).unwrap().ino(), fs::metadata(&path).unwrap().ino());
    let again = bed.import("application/octet-stream", PROGRAM).await.unwrap();
    assert_eq!(again, Imported { existed: true, ..imported.clone() });
    // The cache lost it; the url still has it.
    fs::remove_file(&path).unwrap();
    bed.cache.ensure(&pinned(PROGRAM, &[&imported.url])).await.unwrap();
    // Damaged in the import store itself: noticed, and a new import heals it.
    fs::set_permissions(kept, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(kept, "evil").unwrap();
    assert!(bed.cache.ensure(&pinned(PROGRAM, &[&imported.url])).await.is_err());
    bed.import("application/octet-stream", PROGRAM).await.unwrap();
    assert_eq!(fs::read(bed.cache.ensure(&pinned(PROGRAM, &[&imported.url])).await.unwrap()).unwrap(), PROGRAM);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_must_be_as_long_as_it_says() {
    let bed = Bed::new().await;
    let short = bed.import_as("application/octet-stream", 1000, PROGRAM).await.unwrap_err();
    assert!(matches!(short, AssetError::Incomplete { .. }), "{short}");
    let long = bed.import_as("application/octet-stream", 3, PROGRAM).await.unwrap_err();
    assert!(matches!(long, AssetError::TooLarge { limit: 3, .. }), "{long}");
    let huge = bed.import_as("application/octet-stream", u64::MAX, PROGRAM).await.unwrap_err();
    assert!(matches!(huge, AssetError::TooLarge { .. }), "{huge}");
    assert_eq!(names(&bed.path("assets/imported")), Vec::<String>::new());
    bed.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_serves_at_once_those_who_wait_for_a_dead_url() {
    let bed = Bed::new().await;
    let dead = Server::start(Vec::new(), 0, false, Duration::from_secs(3600)).await;
    let asset = pinned(PROGRAM, &[&dead.url]);
    let waiting = tokio::time::timeout(Duration::from_millis(100), bed.cache.ensure(&asset)).await;
    assert!(waiting.is_err(), "the server does not answer");
    bed.import("application/octet-stream", PROGRAM).await.unwrap();
    let path = tokio::time::timeout(Duration::from_secs(10), bed.cache.ensure(&asset)).await.unwrap().unwrap();
    assert_eq!(fs::read(path).unwrap(), PROGRAM);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_waits_for_a_dead_url_keeps_nobody_else_waiting_and_ends() {
    let bed = Bed::new().await;
    let kept = bed.import("application/octet-stream", PROGRAM).await.unwrap();
    let dead = Server::start(Vec::new(), 0, false, Duration::from_secs(3600)).await;
    let asset = pinned(b"never", &[&dead.url]);
    let waiting = tokio::time::timeout(Duration::from_millis(100), bed.cache.ensure(&asset)).await;
    assert!(waiting.is_err(), "the server does not answer");
    let others = async {
        let archive = Layer::new().file("a", "1").bytes();
        tokio::time::timeout(Duration::from_secs(5), bed.import("application/x-tar", &archive)).await
    };
    // The removal first, so that the import comes while it waits.
    let (removed, imported) = tokio::join!(biased; bed.cache.remove(&kept.digest), others);
    imported.expect("in time").unwrap();
    assert!(matches!(removed, Err(AssetError::Busy { .. })), "{removed:?}");
    bed.cache.ensure(&pinned(PROGRAM, &[&kept.url])).await.unwrap();
}
