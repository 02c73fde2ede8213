//! Honest layers come out as they were packed, alone and stacked.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    process::Command,
};

use ate_node::images::Image;
use tar::EntryType;

use crate::{
    Bed,
    support::{Layer, Parts, gzip, names, zstd},
};

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
    shown.sort();
    expected.sort();
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
