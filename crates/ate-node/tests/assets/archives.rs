//! Archives become directories; hostile ones do not.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use ate_node::assets::AssetError;
use tar::EntryType;

use crate::{
    Bed, archive,
    support::{self, Layer, gzip, names, zstd},
};

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
