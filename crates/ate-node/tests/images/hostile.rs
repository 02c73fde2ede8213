//! Damaged and hostile images are refused, and nothing outside the cache is touched.

use std::fs;

use ate_api::id::Digest;
use ate_node::images::{ImageError, User};
use serde_json::json;
use tar::EntryType;

use crate::{
    Bed, invalid,
    support::{self, Layer, Parts, digest_in, gzip, names},
};

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
async fn the_user_database_is_that_of_the_image_even_behind_symlinks() {
    let bed = Bed::new().await;
    let base = Layer::new().file("etc/passwd", "app:x:1:1::/old:/x\n").file("etc/group", "staff:x:50:app\n");
    let upper = Layer::new().file("usr/db", "app:x:1000:1000::/home/app:/x\n").symlink("etc/passwd", "/usr/db");
    let image = bed.unpack(&[&base, &upper]).await.unwrap();
    let app = User { uid: 1000, gid: 1000, additional_gids: vec![50], home: "/home/app".into() };
    assert_eq!(image.user("app").await.unwrap(), app);

    // The host has a file with a user; the image has none.
    let host = bed.path("passwd");
    fs::write(&host, "evil:x:0:0::/:/x\n").unwrap();
    for target in [host.display().to_string(), format!("../../../../../../../../..{}", host.display())] {
        let sly = bed.unpack(&[&Layer::new().symlink("etc/passwd", &target)]).await.unwrap();
        assert!(invalid(sly.user("evil").await).contains("no user"));
    }
    let huge = bed.unpack(&[&Layer::new().file("etc/passwd", &"x".repeat(2 << 20))]).await.unwrap();
    assert!(invalid(huge.user("root").await).contains("larger than"));
}
