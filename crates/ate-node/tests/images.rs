//! What the image cache promises: honest images come out as they were built, others not at all.

mod support;

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ate_api::id::Digest;
use ate_node::images::{Image, ImageCache, ImageError, User};
use serde_json::json;
use support::{Layer, Layout, Parts, arch, digest_in, gzip, names, zstd};
use tar::EntryType;
use tempfile::TempDir;

struct Bed {
    dir: TempDir,
    cache: ImageCache,
}

impl Bed {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = ImageCache::open(dir.path().join("images")).await.unwrap();
        Bed { dir, cache }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn layout(&self) -> Layout {
        Layout::new(self.path("layout"))
    }

    async fn unpack(&self, layers: &[&Layer]) -> Result<std::sync::Arc<Image>, ImageError> {
        let reference = self.layout().add(&Parts::new(layers), "t");
        self.cache.resolve(&reference).await
    }

    /// After a failure nothing may be left, neither finished nor half done.
    fn assert_empty(&self) {
        for dir in ["layers", "tmp"] {
            assert_eq!(names(&self.path("images").join(dir)), Vec::<String>::new(), "left in {dir}");
        }
    }
}

fn invalid<T: std::fmt::Debug>(result: Result<T, ImageError>) -> String {
    match result {
        Err(ImageError::Invalid { message, .. }) => message,
        other => panic!("expected an invalid image, got {other:?}"),
    }
}

/// Runs a shell script inside the mounted image. The mount lives in a namespace of its own and ends with it.
fn inside(image: &Image, script: &str) -> String {
    let work = tempfile::tempdir().unwrap();
    let layers: Vec<String> = image.layers.iter().rev().map(|l| l.display().to_string()).collect();
    // overlayfs wants two lower layers when there is no upper one.
    let lower = if layers.len() == 1 { format!("{}:{}", layers[0], work.path().display()) } else { layers.join(":") };
    let mount = format!("mount -t overlay overlay -o ro,lowerdir={lower} \"$1\" && cd \"$1\" && {script}");
    let target = work.path().join("merged");
    fs::create_dir(&target).unwrap();
    let shell = ["--mount", "--propagation", "private", "sh", "-ec", &mount, "sh"];
    let out = Command::new("unshare").args(shell).arg(&target).output().expect("unshare runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

const LIST: &str = r"find . -mindepth 1 -printf '%P %y %m %U:%G %l\n' | sed 's/ $//' | sort";

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_image_shows_what_its_layers_say() {
    let bed = Bed::new().await;
    let long = format!("usr/{}/{}", "d".repeat(90), "f".repeat(90));
    let base = Layer::new()
        .dir("./", 0o755)
        .dir("etc/", 0o755)
        .file("etc/gone", "x")
        .file("etc/kept", "kept")
        .dir("usr/", 0o755)
        .dir("usr/lib/", 0o750)
        .file("usr/lib/a", "a")
        .symlink("lib", "usr/lib")
        .dir("tmp/", 0o1777)
        .dir("cache/", 0o755)
        .file("cache/old", "old")
        .file("becomes-dir", "file")
        .dir("becomes-file/", 0o755)
        .file("becomes-file/inner", "x")
        .dir("reborn/", 0o755)
        .file("reborn/old", "x")
        .file_mode("su", "root", 0o4755)
        .hard_link("su-too", "su")
        .device("null", EntryType::Char, 1, 3)
        .entry(EntryType::Fifo, "pipe", |_| {}, b"")
        .entry(
            EntryType::Regular,
            "owned",
            |h| {
                h.set_uid(1234);
                h.set_gid(5678);
                h.set_mode(0o600);
            },
            b"mine",
        )
        .symlink("out", "/etc/kept")
        .file(&long, "long");
    let upper = Layer::new()
        .file("etc/.wh.gone", "")
        .file("etc/.wh.never-was", "")
        .file("lib/b", "b")
        .file("tmp/note", "hi")
        .file("cache/new", "new")
        .file("cache/.wh..wh..opq", "")
        .dir("becomes-dir/", 0o711)
        .file("becomes-dir/in", "x")
        .file("becomes-file", "file now")
        .file(".wh.reborn", "")
        .dir("reborn/", 0o700)
        .file("reborn/new", "x")
        .hard_link("kept-too", "etc/kept");
    let image = bed.unpack(&[&base, &upper]).await.unwrap();
    let shown = inside(&image, LIST);
    let (d, f) = ("d".repeat(90), "f".repeat(90));
    let mut expected: Vec<String> = [
        "becomes-dir d 711 0:0",
        "becomes-dir/in f 644 0:0",
        "becomes-file f 644 0:0",
        "cache d 755 0:0",
        "cache/new f 644 0:0",
        "etc d 755 0:0",
        "etc/kept f 644 0:0",
        "kept-too f 644 0:0",
        "lib l 777 0:0 usr/lib",
        "null c 644 0:0",
        "out l 777 0:0 /etc/kept",
        "owned f 600 1234:5678",
        "pipe p 644 0:0",
        "reborn d 700 0:0",
        "reborn/new f 644 0:0",
        "su f 4755 0:0",
        "su-too f 4755 0:0",
        "tmp d 1777 0:0",
        "tmp/note f 644 0:0",
        "usr d 755 0:0",
        "usr/lib d 750 0:0",
        "usr/lib/a f 644 0:0",
        "usr/lib/b f 644 0:0",
    ]
    .map(str::to_owned)
    .to_vec();
    expected.extend([format!("usr/{d} d 755 0:0"), format!("usr/{d}/{f} f 644 0:0")]);
    let mut shown: Vec<&str> = shown.lines().collect();
    (shown.sort(), expected.sort());
    assert_eq!(shown, expected);
    assert_eq!(
        inside(&image, "cat lib/b kept-too becomes-file; stat -c %h su kept-too; stat -c %t:%T null"),
        "bkeptfile now2\n2\n1:3\n"
    );
    assert_eq!(inside(&image, "stat -c %Y etc/kept usr/lib lib"), "1000000000\n".repeat(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_survive_except_those_that_steer_the_overlay() {
    let bed = Bed::new().await;
    // Version 2, cap_net_bind_service.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Layer::new()
        .pax("SCHILY.xattr.security.capability", &capability)
        .file_mode("bind", "x", 0o755)
        .pax("SCHILY.xattr.user.note", b"hello")
        .dir("noted", 0o755)
        .pax("SCHILY.xattr.trusted.overlay.opaque", b"y")
        .dir("sly", 0o755);
    let image = bed.unpack(&[&layer]).await.unwrap();
    let at = |name: &str, key: &str| xattr::get(image.layers[0].join(name), key).unwrap();
    assert_eq!(at("bind", "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(at("noted", "user.note").as_deref(), Some(&b"hello"[..]));
    assert_eq!(at("sly", "trusted.overlay.opaque"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_may_be_plain_gzip_or_zstd_and_are_shared_between_images() {
    let bed = Bed::new().await;
    let base = Layer::new().file("base", "b").bytes();
    let top = Layer::new().file("top", "t").bytes();
    let mut layout = bed.layout();
    let first = layout.add(&Parts::stored(vec![(gzip(&base), base.clone()), (zstd(&top), top)]), "first");
    let other = Layer::new().file("other", "o").bytes();
    let second = layout.add(&Parts::stored(vec![(base.clone(), base), (other.clone(), other)]), "second");
    let (first, second) = tokio::join!(bed.cache.resolve(&first), bed.cache.resolve(&second));
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.layers[0], second.layers[0]);
    assert_eq!(fs::read(first.layers[1].join("top")).unwrap(), b"t");
    assert_eq!(names(&bed.path("images/layers")).len(), 3);
}

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
async fn what_an_image_wants_to_run_is_read_from_its_configuration() {
    let bed = Bed::new().await;
    let mut parts = Parts::new(&[&Layer::new().file("a", "a")]);
    parts.config["config"] = json!({
        "User": "app:staff", "Entrypoint": ["/bin/app"], "Cmd": ["--serve"], "Env": ["A=1", "B=x=y"],
        "WorkingDir": "/srv", "ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "9090": {}}, "Labels": {"k": "v"},
        "Healthcheck": {"Test": ["NONE"]},
    });
    let reference = bed.layout().add(&parts, "t");
    let config = bed.cache.resolve(&reference).await.unwrap().config.clone();
    assert_eq!((config.entrypoint, config.cmd), (vec!["/bin/app".to_owned()], vec!["--serve".to_owned()]));
    assert_eq!((config.env, config.workdir), (vec!["A=1".to_owned(), "B=x=y".into()], "/srv".into()));
    let ports: HashSet<u16> = config.exposed_ports.into_iter().collect();
    assert_eq!(ports, HashSet::from([8080, 9090]));
    assert_eq!((config.user.as_str(), config.labels["k"].as_str()), ("app:staff", "v"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_variant_of_this_machine_is_taken_and_others_are_refused() {
    let bed = Bed::new().await;
    let mut layout = bed.layout();
    let entry = |file: &str, platform: &str| {
        let mut parts = Parts::new(&[&Layer::new().file(file, "x")]);
        parts.config["architecture"] = json!(platform);
        let mut d = layout.image(&parts);
        d["platform"] = json!({"os": "linux", "architecture": platform});
        d
    };
    let (ours, theirs) = (entry("ours", arch()), entry("theirs", "s390x"));
    let index = |manifests: Vec<serde_json::Value>| {
        json!({"schemaVersion": 2, "mediaType": support::INDEX, "manifests": manifests}).to_string()
    };
    let both = layout.blob(support::INDEX, index(vec![theirs.clone(), ours]).as_bytes());
    let foreign = layout.blob(support::INDEX, index(vec![theirs.clone()]).as_bytes());
    let both = layout.tag(both, "both");
    let foreign = layout.tag(foreign, "foreign");
    let direct = layout.tag(theirs, "direct");
    let image = bed.cache.resolve(&both).await.unwrap();
    assert!(image.layers[0].join("ours").exists());
    assert!(invalid(bed.cache.resolve(&foreign).await).contains("linux/s390x"));
    assert!(invalid(bed.cache.resolve(&direct).await).contains("linux/s390x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_layers_are_refused_and_touch_nothing() {
    let victim = tempfile::tempdir().unwrap();
    fs::write(victim.path().join("secret"), "secret").unwrap();
    let before = support::snapshot(victim.path());
    let outside = victim.path().to_str().unwrap();
    let deep = "../../../../../../../../../..";
    let hostile: Vec<(&str, Layer)> = vec![
        ("dotdot", Layer::new().file("../escaped", "x")),
        ("dotdot inside", Layer::new().file("a/../../escaped", "x")),
        ("hard link out", Layer::new().hard_link("x", &format!("{deep}{outside}/secret"))),
        ("hard link to nothing", Layer::new().hard_link("x", "missing")),
        ("hard link to a directory", Layer::new().dir("d", 0o755).hard_link("x", "d")),
        ("whiteout device", Layer::new().device("x", EntryType::Char, 0, 0)),
        ("whiteout of dotdot", Layer::new().file("a/.wh...", "")),
        ("symlink loop", Layer::new().symlink("a", "b").symlink("b", "a").file("a/x", "x")),
        ("below a file", Layer::new().file("a", "x").file("a/b", "x")),
        ("unknown kind", Layer::new().entry(EntryType::new(b'Z'), "x", |_| {}, b"")),
        ("huge user id", Layer::new().entry(EntryType::Regular, "x", |h| h.set_uid(1 << 40), b"")),
        ("overlong name", Layer::new().file(&"n".repeat(256), "x")),
        ("overlong path", Layer::new().file(&"dir/".repeat(1100), "x")),
    ];
    for (what, layer) in &hostile {
        let bed = Bed::new().await;
        let message = invalid(bed.unpack(&[layer]).await);
        bed.assert_empty();
        assert_eq!(support::snapshot(victim.path()), before, "{what}: {message}");
        assert_eq!(names(bed.dir.path()), ["images", "layout"], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_an_image_lead_nowhere_but_into_the_image() {
    let victim = tempfile::tempdir().unwrap();
    let outside = victim.path().to_str().unwrap().trim_start_matches('/').to_owned();
    // Every way a symlink can be planted before something is written through it.
    let attacks = [
        vec![Layer::new().symlink("door", &format!("/{outside}")).file("door/written", "x")],
        vec![Layer::new().symlink("door", &format!("../../../../../../../../{outside}")).file("door/written", "x")],
        vec![Layer::new().symlink("door", &format!("/{outside}")), Layer::new().file("door/written", "x")],
        vec![Layer::new().symlink("a", "/").symlink("b", &format!("a/{outside}")).file("b/written", "x")],
        vec![Layer::new().symlink("door", &format!("/{outside}/written")).file("door", "x")],
        vec![Layer::new().symlink("door", &format!("/{outside}")).hard_link("door/written", "door")],
        vec![Layer::new().symlink("door", &format!("/{outside}")), Layer::new().file("door/.wh.written", "")],
        vec![Layer::new().symlink("door", &format!("/{outside}")), Layer::new().file("door/.wh..wh..opq", "")],
        vec![Layer::new().file(&format!("/{outside}/written"), "x")],
    ];
    for (n, layers) in attacks.iter().enumerate() {
        let bed = Bed::new().await;
        let image = bed.unpack(&layers.iter().collect::<Vec<_>>()).await.unwrap();
        assert_eq!(names(victim.path()), Vec::<String>::new(), "attack {n}");
        if [0, 1, 2, 3, 8].contains(&n) {
            let written = image.layers.last().unwrap().join(&outside).join("written");
            assert_eq!(fs::read(written).unwrap(), b"x", "attack {n} ends inside the image");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_they_should_be_are_refused() {
    let plain = Layer::new().file("a", "a").bytes();
    let other = Layer::new().file("a", "b").bytes();
    let mut cut = gzip(&plain);
    cut.truncate(cut.len() - 12);
    let swap = |bed: &Bed, of: &[u8], with: &[u8]| fs::write(bed.layout().blob_path(&Digest::of(of)), with).unwrap();

    let bed = Bed::new().await;
    let good = bed.layout().add(&Parts::stored(vec![(plain.clone(), plain.clone())]), "t");
    swap(&bed, &plain, &other);
    assert!(invalid(bed.cache.resolve(&good).await).contains(Digest::of(&other).as_str()), "names the digest it got");
    swap(&bed, &plain, &plain[..plain.len() - 512]);
    assert!(invalid(bed.cache.resolve(&good).await).contains("bytes"), "another size than the manifest says");
    bed.assert_empty();

    let bed = Bed::new().await;
    let wrong_diff = bed.layout().add(&Parts::stored(vec![(gzip(&plain), other.clone())]), "t");
    assert!(invalid(bed.cache.resolve(&wrong_diff).await).contains("uncompressed"));
    let truncated = bed.layout().add(&Parts::stored(vec![(cut, plain.clone())]), "t");
    invalid(bed.cache.resolve(&truncated).await);
    let noise = bed.layout().add(&Parts::stored(vec![(b"not a tar at all".repeat(64), plain.clone())]), "t");
    invalid(bed.cache.resolve(&noise).await);
    let mut parts = Parts::stored(vec![(plain.clone(), plain.clone())]);
    parts.config["rootfs"]["diff_ids"] = json!([]);
    let missing_diff = bed.layout().add(&parts, "t");
    assert!(invalid(bed.cache.resolve(&missing_diff).await).contains("diff ids"));
    bed.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_that_are_damaged_or_huge_are_refused() {
    let bed = Bed::new().await;
    let mut layout = bed.layout();
    let image = layout.image(&Parts::new(&[&Layer::new().file("a", "a")]));
    let reference = layout.tag(image.clone(), "t");
    let path = layout.blob_path(&digest_in(&image));
    let honest = fs::read(&path).unwrap();

    fs::write(&path, [honest.clone(), b" ".to_vec()].concat()).unwrap();
    assert!(invalid(bed.cache.ensure(&reference, &digest_in(&image)).await).contains("expected sha256:"));
    for bad in [&b"{"[..], b"[]", b"{\"schemaVersion\": 1}", &vec![b' '; 5 << 20], b"\xff"] {
        let reference = {
            let d = layout.blob(support::MANIFEST, bad);
            layout.tag(d, "bad")
        };
        invalid(bed.cache.resolve(&reference).await);
    }
    let layer = support::descriptor(support::LAYER, b"x");
    let many = json!({"schemaVersion": 2, "config": layer, "layers": vec![layer.clone(); 200]}).to_string();
    let d = layout.blob(support::MANIFEST, many.as_bytes());
    assert!(invalid(bed.cache.resolve(&layout.tag(d, "many")).await).contains("200 layers"));
    for absent in [format!("oci:{}:nope", layout.dir.display()), "oci:/nowhere:t".into()] {
        assert!(matches!(bed.cache.resolve(&absent).await, Err(ImageError::NotFound { .. })), "{absent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_hold_the_same_image_as_directories() {
    let bed = Bed::new().await;
    let layer = Layer::new().file("a", "from an archive");
    let parts = Parts::new(&[&layer]);
    let mut layout = bed.layout();
    let reference = layout.add(&parts, "t");
    let from_dir = bed.cache.resolve(&reference).await.unwrap();

    let archive = bed.path("oci.tar");
    let status = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&layout.dir).arg(".").status().unwrap();
    assert!(status.success());
    let cache = ImageCache::open(bed.path("second")).await.unwrap();
    let from_archive = cache.resolve(&format!("oci-archive:{}:t", archive.display())).await.unwrap();
    assert_eq!(from_archive.digest, from_dir.digest);

    // As `docker save` writes it, the older way: a second, equal layer is a symlink.
    let config = parts.config.to_string();
    let mut twice = parts.config.clone();
    let diff_id = twice["rootfs"]["diff_ids"][0].clone();
    twice["rootfs"]["diff_ids"] = json!([diff_id.clone(), diff_id]);
    let manifest = json!([
        {"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["one/layer.tar"]},
        {"Config": "d.json", "RepoTags": ["app:2"], "Layers": ["one/layer.tar", "two/layer.tar"]},
    ]);
    let saved = Layer::new()
        .file("c.json", &config)
        .file("d.json", &twice.to_string())
        .entry(EntryType::Regular, "one/layer.tar", |_| {}, &layer.bytes())
        .symlink("two/layer.tar", "../one/layer.tar")
        .file("manifest.json", &manifest.to_string());
    let path = bed.path("docker.tar");
    fs::write(&path, saved.bytes()).unwrap();
    let one = cache.resolve(&format!("docker-archive:{}:app:1", path.display())).await.unwrap();
    assert_eq!(fs::read(one.layers[0].join("a")).unwrap(), b"from an archive");
    assert_eq!(one.layers, from_archive.layers, "the same layer is not unpacked again");
    let two = cache.resolve(&format!("docker-archive:{}:app:2", path.display())).await.unwrap();
    assert_eq!(two.layers.len(), 2);
    let again = cache.ensure(&format!("docker-archive:{}:app:2", path.display()), &two.digest).await.unwrap();
    assert_eq!(again, two);
    let untagged = cache.resolve(&format!("docker-archive:{}", path.display())).await;
    assert!(matches!(untagged, Err(ImageError::NotFound { ref message, .. }) if message.contains("app:1, app:2")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_database_is_that_of_the_image_even_behind_symlinks() {
    let bed = Bed::new().await;
    let base = Layer::new().file("etc/passwd", "app:x:1:1::/old:/x\n").file("etc/group", "staff:x:50:app\n");
    let upper = Layer::new().file("usr/db", "app:x:1000:1000::/home/app:/x\n").symlink("etc/passwd", "/usr/db");
    let image = bed.unpack(&[&base, &upper]).await.unwrap();
    let app = User { uid: 1000, gid: 1000, additional_gids: vec![50], home: "/home/app".into() };
    assert_eq!(image.user("app").await.unwrap(), app);

    // The host has a user root in /etc/passwd; this image has none.
    let sly = bed.unpack(&[&Layer::new().symlink("etc/passwd", "../../../../../../../../etc/passwd")]).await.unwrap();
    assert!(invalid(sly.user("root").await).contains("no user"));
    assert!(invalid(sly.user("daemon").await).contains("no user"));
    let huge = bed.unpack(&[&Layer::new().file("etc/passwd", &"x".repeat(2 << 20))]).await.unwrap();
    assert!(invalid(huge.user("root").await).contains("larger than"));
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
    assert_eq!(bed.cache.collect(&live, Duration::ZERO).await.unwrap(), [gone.digest.clone()]);
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
async fn images_that_real_tools_build_unpack_as_they_unpack_them() {
    // GNU tar's own idea of a tree with everything in it, against ours.
    let bed = Bed::new().await;
    let tree = bed.path("tree");
    let script = r#"
        mkdir -p "$1"/a/b "$1"/empty; cd "$1"
        echo one > a/one; ln a/one a/b/same; ln -s ../one a/b/link; ln -s /nowhere dangling
        mkfifo -m 600 pipe; mknod -m 660 loop b 7 3; chmod 2755 a; chmod 1777 empty; chown 7:8 a/b a/one
        touch -d @1234567890 a/one; truncate -s 3M sparse; dd if=/dev/urandom of=sparse bs=4k count=1 seek=99 conv=notrunc status=none
        touch "name with spaces" "ünïcode"; mkdir -p "$(printf 'x%.0s' $(seq 120))/$(printf 'y%.0s' $(seq 120))"
        touch -d @1000000000 a empty .
        tar -cf "$2" --format="$3" .
    "#;
    let list = |dir: &Path| {
        let find =
            "find . -exec stat -c '%N %F %a %u:%g %h %Y %t:%T' {} + | sort; find . -type f -exec sha256sum {} + | sort";
        let out = Command::new("sh").args(["-ec", find]).current_dir(dir).output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    };
    for format in ["gnu", "pax"] {
        let _ = fs::remove_dir_all(&tree);
        let archive = bed.path("layer.tar");
        let made =
            Command::new("sh").args(["-ec", script, "sh"]).arg(&tree).arg(&archive).arg(format).status().unwrap();
        assert!(made.success());
        let plain = fs::read(&archive).unwrap();
        let reference = bed.layout().add(&Parts::stored(vec![(gzip(&plain), plain)]), "t");
        let image = bed.cache.resolve(&reference).await.unwrap();
        assert_eq!(list(&image.layers[0]), list(&tree), "{format}");
        assert!(fs::symlink_metadata(image.layers[0].join("pipe")).unwrap().file_type().is_fifo());
        assert_eq!(fs::metadata(image.layers[0].join("a/one")).unwrap().nlink(), 2);
    }
}
