//! What the asset cache promises: exactly the bytes that were pinned, fetched once, or a clear reason why not.

#[path = "support/server.rs"]
mod server;
mod support;

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::Ordering::SeqCst,
    time::Duration,
};

use ate_agent::{AssetPhase, AssetUpload};
use ate_api::{Error, Reason, id::Digest};
use ate_node::assets::{AssetCache, AssetError, Imported};
use ate_sandbox::PinnedAsset;
use server::Server;
use support::{Layer, gzip, names, zstd};
use tar::EntryType;
use tempfile::TempDir;
use tokio::sync::mpsc;

struct Bed {
    dir: TempDir,
    cache: AssetCache,
}

impl Bed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = AssetCache::open(dir.path().join("assets")).await.unwrap();
        Bed { dir, cache }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file outside the cache, as a URL.
    fn source(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.path(name), bytes).unwrap();
        format!("file://{}", self.path(name).display())
    }

    async fn import(&self, media_type: &str, bytes: &[u8]) -> Result<Imported, AssetError> {
        self.import_as(media_type, bytes.len() as u64, bytes).await
    }

    async fn import_as(&self, media_type: &str, size: u64, bytes: &[u8]) -> Result<Imported, AssetError> {
        let (send, chunks) = mpsc::channel(64);
        for chunk in bytes.chunks(bytes.len().div_ceil(8).max(1)) {
            send.send(chunk.to_vec()).await.unwrap();
        }
        drop(send);
        self.cache.import(AssetUpload { media_type: media_type.into(), size, chunks }).await
    }

    async fn reopen(self) -> Self {
        let Bed { dir, cache } = self;
        drop(cache);
        let cache = AssetCache::open(dir.path().join("assets")).await.unwrap();
        Bed { dir, cache }
    }

    /// Nothing half done is left, and nothing unverified is executable.
    fn assert_clean(&self) {
        assert_eq!(names(&self.path("assets/tmp")), Vec::<String>::new());
        for name in names(&self.path("assets/partial")) {
            let mode = fs::metadata(self.path("assets/partial").join(name)).unwrap().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}

const PROGRAM: &[u8] = b"#!/bin/sh\necho program\n";

fn pinned(bytes: &[u8], urls: &[&str]) -> PinnedAsset {
    PinnedAsset {
        name: "runsc".into(),
        sha256: Digest::of(bytes),
        size: Some(bytes.len() as u64),
        media_type: "application/octet-stream".into(),
        urls: urls.iter().map(|u| (*u).to_owned()).collect(),
    }
}

fn archive(bytes: &[u8], url: &str) -> PinnedAsset {
    PinnedAsset { media_type: "application/x-tar".into(), ..pinned(bytes, &[url]) }
}

fn large() -> Vec<u8> {
    (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_fetched_verified_and_only_then_executable() {
    let bed = Bed::new().await;
    let url = bed.source("runsc", PROGRAM);
    let asset = pinned(PROGRAM, &[&url]);
    assert_eq!(bed.cache.verified_path(&asset).await.unwrap(), None);
    let path = bed.cache.ensure(&asset).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(bed.path("assets")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(Command::new(&path).output().unwrap().stdout, b"program\n");
    assert_eq!(bed.cache.verified_path(&asset).await.unwrap(), Some(path));
    let report = &bed.cache.report()[0];
    assert_eq!((report.phase, report.size), (AssetPhase::Verified, PROGRAM.len() as u64));
    bed.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_served_and_the_error_names_both_digests() {
    let bed = Bed::new().await;
    let url = bed.source("runsc", b"something else");
    let asset = PinnedAsset { size: None, ..pinned(PROGRAM, &[&url]) };
    let error = bed.cache.ensure(&asset).await.unwrap_err();
    let text = error.to_string();
    for part in ["runsc", &url, Digest::of(PROGRAM).as_str(), Digest::of(b"something else").as_str()] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(Error::from(error).reason, Reason::AssetDigestMismatch);
    assert_eq!(bed.cache.report()[0].phase, AssetPhase::Failed);
    assert_eq!(names(&bed.path("assets/files")), Vec::<String>::new());
    bed.assert_clean();
    // Mended at the source, it is there at the next call.
    bed.source("runsc", PROGRAM);
    bed.cache.ensure(&asset).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_are_tried_in_order_until_one_has_the_right_bytes() {
    let bed = Bed::new().await;
    let (wrong, right) = (bed.source("wrong", b"wrong"), bed.source("right", PROGRAM));
    bed.cache.ensure(&pinned(PROGRAM, &["file:///nowhere", &wrong, &right])).await.unwrap();

    let bed = Bed::new().await;
    let none = pinned(PROGRAM, &["file:///nowhere", "ftp://x/y", "not a url", "http://127.0.0.1:1/x"]);
    let error = bed.cache.ensure(&none).await.unwrap_err();
    assert_eq!(Error::from(error).reason, Reason::AssetUnavailable);
    let error = bed.cache.ensure(&pinned(PROGRAM, &[])).await.unwrap_err();
    assert!(error.to_string().contains("no url is configured"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_no_regular_file_is_unavailable_and_does_not_block() {
    let bed = Bed::new().await;
    let pipe = bed.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.as_path(), bed.dir.path(), Path::new("/dev/zero")] {
        let asset = pinned(PROGRAM, &[&format!("file://{}", path.display())]);
        let ensured = tokio::time::timeout(Duration::from_secs(20), bed.cache.ensure(&asset)).await;
        assert!(matches!(ensured.unwrap(), Err(AssetError::Unavailable { .. })), "{}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_bytes_than_declared_are_refused() {
    let bed = Bed::new().await;
    let body = large();
    let url = bed.source("large", &body);
    let small = PinnedAsset { size: Some(1000), ..pinned(&body, &[&url]) };
    let error = bed.cache.ensure(&small).await.unwrap_err();
    assert!(matches!(error, AssetError::TooLarge { limit: 1000, .. }), "{error}");
    let server = Server::start(body.clone(), 0, true, Duration::ZERO).await;
    let error = bed.cache.ensure(&PinnedAsset { urls: vec![server.url], ..small }).await.unwrap_err();
    assert_eq!(Error::from(error).reason, Reason::AssetTooLarge);
    bed.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_want_an_asset_share_one_fetch_that_outlives_them() {
    let bed = Bed::new().await;
    let body = large();
    let server = Server::start(body.clone(), 0, true, Duration::from_millis(300)).await;
    let asset = pinned(&body, &[&server.url]);
    let mut progress = bed.cache.subscribe();
    let impatient = tokio::time::timeout(Duration::from_millis(50), bed.cache.ensure(&asset)).await;
    assert!(impatient.is_err(), "the server is slower than that");
    let all = futures::future::join_all((0..20).map(|_| bed.cache.ensure(&asset))).await;
    assert!(all.iter().all(|r| r.is_ok()));
    assert_eq!(server.state.requests.load(SeqCst), 1);
    let mut phases = Vec::new();
    while let Ok(report) = progress.try_recv() {
        phases.push(report.phase);
    }
    assert_eq!((phases[0], phases[phases.len() - 1]), (AssetPhase::Fetching, AssetPhase::Verified));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_transfer_goes_on_where_it_stopped() {
    let bed = Bed::new().await;
    let body = large();
    let server = Server::start(body.clone(), 2, true, Duration::ZERO).await;
    let path = bed.cache.ensure(&pinned(&body, &[&server.url])).await.unwrap();
    assert_eq!(Digest::of(&fs::read(path).unwrap()), Digest::of(&body));
    assert!(server.state.requests.load(SeqCst) >= 3);
    assert_eq!(server.state.sent.load(SeqCst), body.len() as u64, "no byte is sent twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_before_a_crash_is_used_and_if_it_is_wrong_it_is_not() {
    let body = large();
    let half = body.len() / 2;
    for (kept, sent) in [(body[..half].to_vec(), body.len() - half), (vec![7; half], body.len() - half + body.len())] {
        let bed = Bed::new().await;
        let server = Server::start(body.clone(), 0, true, Duration::ZERO).await;
        fs::write(bed.path(&format!("assets/partial/sha256-{}", Digest::of(&body))), kept).unwrap();
        bed.cache.ensure(&pinned(&body, &[&server.url])).await.unwrap();
        assert_eq!(server.state.sent.load(SeqCst), sent as u64);
        assert_eq!(names(&bed.path("assets/partial")), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_is_asked_again_from_the_start() {
    let bed = Bed::new().await;
    let body = large();
    let server = Server::start(body.clone(), 1, false, Duration::ZERO).await;
    bed.cache.ensure(&pinned(&body, &[&server.url])).await.unwrap();
}

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
async fn an_archive_becomes_a_directory_owned_by_the_node() {
    let tar = Layer::new()
        .dir("bin/", 0o700)
        .entry(
            EntryType::Regular,
            "bin/tool",
            |h| {
                h.set_mode(0o4700);
                h.set_uid(1000);
            },
            b"tool",
        )
        .symlink("bin/alias", "../bin/tool")
        .hard_link("copy", "bin/tool")
        .file("deep/down/data", "data")
        .bytes();
    for bytes in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let bed = Bed::new().await;
        let asset = archive(&bytes, &bed.source("a.tar", &bytes));
        let dir = bed.cache.ensure(&asset).await.unwrap();
        let tool = fs::metadata(dir.join("bin/alias")).unwrap();
        assert_eq!((tool.mode() & 0o7777, tool.uid(), tool.nlink()), (0o555, fs::metadata(&dir).unwrap().uid(), 2));
        assert_eq!(fs::read(dir.join("deep/down/data")).unwrap(), b"data");
        assert_eq!(fs::metadata(dir.join("deep/down/data")).unwrap().mode() & 0o7777, 0o444);

        // Anything that changes in it is noticed and it is unpacked again.
        fs::remove_file(bed.path("a.tar")).unwrap();
        for change in [
            (|d: &Path| fs::write(d.join("deep/added"), "x").unwrap()) as fn(&Path),
            |d| fs::remove_file(d.join("copy")).unwrap(),
            |d| fs::write(d.join("deep/down/data"), "evil").unwrap(),
        ] {
            change(&dir);
            assert_eq!(bed.cache.ensure(&asset).await.unwrap(), dir);
            assert_eq!(fs::read(dir.join("deep/down/data")).unwrap(), b"data");
            assert!(dir.join("copy").exists() && !dir.join("deep/added").exists());
        }
        let bed = bed.reopen().await;
        assert_eq!(bed.cache.verified_path(&asset).await.unwrap(), Some(dir));
        bed.assert_clean();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_are_refused_and_touch_nothing() {
    let victim = tempfile::tempdir().unwrap();
    fs::write(victim.path().join("secret"), "secret").unwrap();
    let before = support::snapshot(victim.path());
    let outside = victim.path().to_str().unwrap();
    let hostile: Vec<(&str, Layer)> = vec![
        ("dotdot", Layer::new().file("../escaped", "x")),
        ("absolute symlink", Layer::new().symlink("x", outside)),
        ("symlink out", Layer::new().symlink("x", "../../../etc")),
        ("symlink out through another", Layer::new().dir("d", 0o755).symlink("d/l", "..").symlink("x", "d/l/..")),
        ("write through a symlink", Layer::new().dir("d", 0o755).symlink("l", "d").file("l/x", "x")),
        ("hard link out", Layer::new().hard_link("x", &format!("../../../../../..{outside}/secret"))),
        ("hard link to a symlink", Layer::new().file("f", "x").symlink("l", "f").hard_link("x", "l")),
        ("device", Layer::new().device("null", EntryType::Char, 1, 3)),
        ("pipe", Layer::new().entry(EntryType::Fifo, "pipe", |_| {}, b"")),
        ("file over directory", Layer::new().dir("d", 0o755).file("d", "x")),
    ];
    for (what, layer) in hostile {
        let bed = Bed::new().await;
        let bytes = layer.bytes();
        let error = bed.import("application/x-tar", &bytes).await.unwrap_err();
        assert!(matches!(error, AssetError::ArchiveInvalid { .. }), "{what}: {error}");
        assert_eq!(names(&bed.path("assets/imported")), Vec::<String>::new(), "{what}");
        assert_eq!(names(&bed.path("assets/trees")), Vec::<String>::new(), "{what}");
        assert_eq!(support::snapshot(victim.path()), before, "{what}");
        assert_eq!(names(bed.dir.path()), ["assets"], "{what}");
        bed.assert_clean();
    }
    let bed = Bed::new().await;
    let mut cut = gzip(&Layer::new().file("a", &"x".repeat(5000)).bytes());
    cut.truncate(cut.len() / 2);
    assert!(matches!(bed.import("application/x-tar", &cut).await, Err(AssetError::ArchiveInvalid { .. })));
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

/// A file system of one megabyte, unmounted at the end.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = ["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"];
        assert!(Command::new("mount").args(mount).arg(dir.path()).status().unwrap().success());
        SmallDisk(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_so_and_leaves_room_for_others() {
    let disk = SmallDisk::new();
    let cache = AssetCache::open(disk.0.path().join("assets")).await.unwrap();
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
    assert_eq!(names(&disk.0.path().join("assets/tmp")), Vec::<String>::new());
}
