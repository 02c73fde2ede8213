//! An image as one file: what its layers show, always the same bytes, built once.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use ate_api::{Error, Reason, id::Digest};
use ate_node::images::{ImageCache, ImageError};
use tar::EntryType;

use crate::{
    Bed,
    support::{Layer, Parts, SmallDisk, names},
};

/// Runs a shell script inside the mounted file. The mount ends with its namespace.
fn inside(file: &Path, script: &str) -> String {
    let work = tempfile::tempdir().unwrap();
    let mount = format!("mount -t erofs -o loop,ro \"$1\" \"$2\" && cd \"$2\" && {script}");
    let shell = ["--mount", "--propagation", "private", "sh", "-ec", &mount, "sh"];
    let out = Command::new("unshare").args(shell).arg(file).arg(work.path()).output().expect("unshare runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn base() -> Layer {
    // Version 2, cap_net_bind_service.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Layer::new()
        .dir("./", 0o755)
        .dir("etc/", 0o755)
        .file("etc/gone", "x")
        .file("etc/kept", "kept")
        .hard_link("kept-too", "etc/kept")
        .dir("cache/", 0o750)
        .file("cache/old", "old")
        .dir("tmp/", 0o1777)
        .symlink("link", "etc/kept")
        .file_mode("su", "root", 0o4755)
        .device("null", EntryType::Char, 1, 3)
        .entry(EntryType::Fifo, "pipe", |_| {}, b"")
        .entry(
            EntryType::Regular,
            "owned",
            |h| {
                h.set_uid(1234);
                h.set_gid(70_000);
                h.set_mode(0o600);
            },
            b"mine",
        )
        .pax("SCHILY.xattr.security.capability", &capability)
        .file_mode("bind", "x", 0o755)
        .file("large", &"0123456789abcdef".repeat(20_000))
}

fn upper() -> Layer {
    Layer::new()
        .file("etc/.wh.gone", "")
        .dir("cache/", 0o711)
        .file("cache/.wh..wh..opq", "")
        .file("cache/new", "new")
        .pax("SCHILY.xattr.user.note", b"hello")
        .dir("noted/", 0o755)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_shows_what_the_layers_say_together() {
    let bed = Bed::new().await;
    let image = bed.unpack(&[&base(), &upper()]).await.unwrap();
    let file = bed.cache.as_file(&image).await.unwrap();
    let listed =
        inside(&file.path, r"find . -mindepth 1 -printf '%P %y %m %U:%G %T@ %l\n' | sed 's/\.0* / /; s/ $//' | sort");
    let expected = [
        "bind f 755 0:0 1000000000",
        "cache d 711 0:0 1000000000",
        "cache/new f 644 0:0 1000000000",
        "etc d 755 0:0 1000000000",
        "etc/kept f 644 0:0 1000000000",
        "kept-too f 644 0:0 1000000000",
        "large f 644 0:0 1000000000",
        "link l 777 0:0 1000000000 etc/kept",
        "noted d 755 0:0 1000000000",
        "null c 644 0:0 1000000000",
        "owned f 600 1234:70000 1000000000",
        "pipe p 644 0:0 1000000000",
        "su f 4755 0:0 1000000000",
        "tmp d 1777 0:0 1000000000",
    ];
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    let read = inside(&file.path, "cat kept-too cache/new; stat -c ' %h %t:%T' etc/kept null; wc -c < large");
    assert_eq!(read, "keptnew 2 0:0\n 1 1:3\n320000\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_are_kept_and_those_of_the_overlay_stay_behind() {
    let bed = Bed::new().await;
    let image = bed.unpack(&[&base(), &upper()]).await.unwrap();
    let opaque = xattr::get(image.layers[1].join("cache"), "trusted.overlay.opaque").unwrap();
    assert!(opaque.is_some(), "or there is nothing to leave behind");
    let file = bed.cache.as_file(&image).await.unwrap();
    let bytes = fs::read(&file.path).unwrap();
    // EROFS stores the name of an attribute without the word before the first dot.
    let has = |text: &[u8]| bytes.windows(text.len()).any(|w| w == text);
    assert!(has(b"notehello") && has(b"capability"));
    assert!(!has(b"overlay.opaque") && !has(b"etc/gone"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_layers_give_the_same_bytes_on_any_node() {
    let (one, other) = (Bed::new().await, Bed::new().await);
    // Another file system lists its directories in another order.
    let disk = SmallDisk::new();
    let small = ImageCache::open(disk.path().join("images")).await.unwrap();
    let reference = one.layout().add(&Parts::new(&[&base(), &upper()]), "t");
    let mut built = Vec::new();
    for cache in [&one.cache, &other.cache, &small] {
        let image = cache.resolve(&reference).await.unwrap();
        let file = cache.as_file(&image).await.unwrap();
        assert_eq!(Digest::of(&fs::read(&file.path).unwrap()), file.sha256);
        built.push(file);
    }
    assert_eq!(built[0].sha256, built[1].sha256);
    assert_eq!(built[0].sha256, built[2].sha256);
    assert_ne!(built[0].path, built[1].path);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_who_asks_at_once_gets_the_one_file_and_so_does_the_next_run() {
    let bed = Bed::new().await;
    let image = bed.unpack(&[&base(), &upper()]).await.unwrap();
    let asked = (0..16).map(|_| {
        let (cache, image) = (bed.cache.clone(), image.clone());
        tokio::spawn(async move { cache.as_file(&image).await.unwrap() })
    });
    let files: Vec<_> = futures::future::join_all(asked).await.into_iter().map(Result::unwrap).collect();
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let first = (files[0].clone(), inode(&files[0].path));
    assert!(files.iter().all(|f| *f == first.0));
    assert_eq!(names(&bed.path("images/erofs")).len(), 1);
    assert_eq!(names(&bed.path("images/tmp")), Vec::<String>::new());
    let metadata = fs::metadata(&first.0.path).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.uid()), (0o400, 0));

    let cache = ImageCache::open(bed.path("images")).await.unwrap();
    let again = cache.as_file(&cache.get(&image.digest).await.unwrap().unwrap()).await.unwrap();
    assert_eq!((again.clone(), inode(&again.path)), first, "not built again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_cut_short_is_built_again() {
    let bed = Bed::new().await;
    let image = bed.unpack(&[&base()]).await.unwrap();
    let file = bed.cache.as_file(&image).await.unwrap();
    fs::File::options().write(true).open(&file.path).unwrap().set_len(10).unwrap();
    let cache = ImageCache::open(bed.path("images")).await.unwrap();
    let image = cache.get(&image.digest).await.unwrap().unwrap();
    assert_eq!(cache.as_file(&image).await.unwrap(), file);
    assert_eq!(Digest::of(&fs::read(&file.path).unwrap()), file.sha256);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_goes_with_its_image_and_stays_while_another_image_has_the_same_layers() {
    let bed = Bed::new().await;
    let mut layout = bed.layout();
    let one = layout.add(&Parts::new(&[&base()]), "one");
    let mut other = Parts::new(&[&base()]);
    other.config["config"]["Cmd"] = serde_json::json!(["/other"]);
    let same = layout.add(&other, "same");
    let (one, same) = (bed.cache.resolve(&one).await.unwrap(), bed.cache.resolve(&same).await.unwrap());
    assert_ne!(one.digest, same.digest);
    let file = bed.cache.as_file(&one).await.unwrap();
    assert_eq!(bed.cache.as_file(&same).await.unwrap(), file);
    let live = HashSet::from([same.digest.clone()]);
    assert_eq!(bed.cache.collect(&live, Duration::ZERO).await.unwrap(), vec![one.digest.clone()]);
    assert!(file.path.exists());
    assert_eq!(bed.cache.collect(&HashSet::new(), Duration::ZERO).await.unwrap(), vec![same.digest.clone()]);
    assert_eq!(names(&bed.path("images/erofs")), Vec::<String>::new());
    assert_eq!(names(&bed.path("images/layers")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_many_layers_fits() {
    let bed = Bed::new().await;
    let layers: Vec<Layer> =
        (0..100).map(|n| Layer::new().file(&format!("f{n:03}"), "x").file("top", &n.to_string())).collect();
    let image = bed.unpack(&layers.iter().collect::<Vec<_>>()).await.unwrap();
    let file = bed.cache.as_file(&image).await.unwrap();
    assert_eq!(inside(&file.path, "ls | wc -l; cat top"), "101\n99");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_to_be_full_and_nothing_is_left() {
    let disk = SmallDisk::new();
    let cache = ImageCache::open(disk.path().join("images")).await.unwrap();
    let bed = Bed::new().await;
    let large = Layer::new().file("zeros", &"0".repeat(600_000));
    let reference = bed.layout().add(&Parts::new(&[&large]), "t");
    let image = cache.resolve(&reference).await.unwrap();
    let error = cache.as_file(&Arc::clone(&image)).await.unwrap_err();
    assert!(matches!(error, ImageError::DiskFull { .. }), "{error}");
    assert_eq!(Error::from(error).reason, Reason::DiskFull);
    assert_eq!(names(&disk.path().join("images/tmp")), Vec::<String>::new());
    assert_eq!(names(&disk.path().join("images/erofs")), Vec::<String>::new());
}
