//! What is kept, found again and thrown away.

use std::{collections::HashSet, fs, time::Duration};

use ate_api::{Error, Reason, id::Digest};
use ate_node::images::{ImageCache, ImageError};

use crate::{
    Bed,
    support::{Layer, Parts, SmallDisk, names},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_found_again_by_digest_without_its_source() {
    let bed = Bed::new().await;
    let reference = bed.layout().add(&Parts::new(&[&Layer::new().file("a", "a")]), "t");
    let image = bed.cache.resolve(&reference).await.unwrap();
    fs::remove_dir_all(bed.path("layout")).unwrap();
    let Bed { dir, cache } = bed;
    drop(cache);
    let cache = ImageCache::open(dir.path().join("images")).await.unwrap();
    assert_eq!(cache.ensure(&reference, &image.digest).await.unwrap(), image);
    assert!(matches!(cache.resolve(&reference).await, Err(ImageError::NotFound { .. })));
    assert_eq!(cache.get(&Digest::of(b"other")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_stays_the_same_image_when_the_tag_moves() {
    let bed = Bed::new().await;
    let mut layout = bed.layout();
    let reference = layout.add(&Parts::new(&[&Layer::new().file("v", "1")]), "t");
    let first = bed.cache.resolve(&reference).await.unwrap();
    layout.add(&Parts::new(&[&Layer::new().file("v", "2")]), "t");
    let second = bed.cache.resolve(&reference).await.unwrap();
    assert_ne!(first.digest, second.digest);
    let empty = ImageCache::open(bed.path("other")).await.unwrap();
    let again = empty.ensure(&reference, &first.digest).await.unwrap();
    assert_eq!(fs::read(again.layers[0].join("v")).unwrap(), b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_is_removed_at_the_next_start() {
    let bed = Bed::new().await;
    let image = bed.unpack(&[&Layer::new().file("a", "a")]).await.unwrap();
    let half = bed.path("images/tmp/layer-half/root");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("file"), "half").unwrap();
    let cache = ImageCache::open(bed.path("images")).await.unwrap();
    assert_eq!(names(&bed.path("images/tmp")), Vec::<String>::new());
    assert_eq!(cache.get(&image.digest).await.unwrap(), Some(image));
}

#[tokio::test(flavor = "multi_thread")]
async fn images_nobody_needs_are_collected_with_their_layers_but_not_shared_ones() {
    let bed = Bed::new().await;
    let mut layout = bed.layout();
    let base = Layer::new().file("base", "b");
    let (top, other) = (Layer::new().file("top", "t"), Layer::new().file("other", "o"));
    let kept = layout.add(&Parts::new(&[&base, &top]), "kept");
    let gone = layout.add(&Parts::new(&[&base, &other]), "gone");
    let kept = bed.cache.resolve(&kept).await.unwrap();
    let gone = bed.cache.resolve(&gone).await.unwrap();
    let live = HashSet::from([kept.digest.clone()]);
    assert_eq!(bed.cache.collect(&live, Duration::from_secs(600)).await.unwrap(), [], "both are young");
    assert_eq!(bed.cache.collect(&live, Duration::ZERO).await.unwrap(), vec![gone.digest.clone()]);
    assert!(kept.layers.iter().all(|l| l.exists()) && !gone.layers[1].exists());
    assert_eq!(bed.cache.get(&gone.digest).await.unwrap(), None);
    assert_eq!(bed.cache.get(&kept.digest).await.unwrap(), Some(kept));
    assert_eq!(names(&bed.path("images/tmp")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_manifest_that_was_altered_counts_as_absent() {
    let bed = Bed::new().await;
    let reference = bed.layout().add(&Parts::new(&[&Layer::new().file("a", "a")]), "t");
    let image = bed.cache.resolve(&reference).await.unwrap();
    let stored = bed.path("images/blobs").join(format!("sha256-{}", image.digest));
    fs::write(&stored, "{}").unwrap();
    let cache = ImageCache::open(bed.path("images")).await.unwrap();
    assert_eq!(cache.get(&image.digest).await.unwrap(), None);
    assert_eq!(cache.ensure(&reference, &image.digest).await.unwrap(), image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_so_and_leaves_nothing_half_done() {
    let bed = Bed::new().await;
    let disk = SmallDisk::new();
    let cache = ImageCache::open(disk.path().join("images")).await.unwrap();
    let mut layout = bed.layout();
    let large = layout.add(&Parts::new(&[&Layer::new().file("zeros", &"0".repeat(4 << 20))]), "large");
    let small = layout.add(&Parts::new(&[&Layer::new().file("a", "a")]), "small");
    let error = cache.resolve(&large).await.unwrap_err();
    assert!(matches!(error, ImageError::DiskFull { .. }), "{error}");
    assert_eq!(Error::from(error).reason, Reason::DiskFull);
    assert_eq!(names(&disk.path().join("images/tmp")), Vec::<String>::new());
    cache.resolve(&small).await.unwrap();
}
