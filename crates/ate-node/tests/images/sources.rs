//! Directories and archives, platforms and configurations.

use std::{collections::HashSet, fs, process::Command};

use ate_node::images::{ImageCache, ImageError};
use serde_json::json;
use tar::EntryType;

use crate::{
    Bed, invalid,
    support::{self, Layer, Parts, arch},
};

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
async fn an_image_that_buildah_pushes_to_a_layout_is_understood() {
    let bed = Bed::new().await;
    let script = r#"
        cd "$1"
        printf 'app:x:77:78::/srv:/x\n' > passwd
        printf 'FROM scratch\nCOPY passwd /etc/passwd\nENV A=1\nWORKDIR /srv\nUSER app\nEXPOSE 8080\nENTRYPOINT ["/app"]\n' > Containerfile
        # Storage of its own, so that nothing is left behind.
        store="--root $1/root --runroot $1/run --storage-driver vfs"
        buildah $store bud --isolation chroot -q -t built . && buildah $store push -q built "oci:$1/out:v1"
    "#;
    let built = Command::new("sh").args(["-ec", script, "sh"]).arg(bed.dir.path()).output().unwrap();
    assert!(built.status.success(), "is buildah there? run script/setup: {}", String::from_utf8_lossy(&built.stderr));
    let image = bed.cache.resolve(&format!("oci:{}:v1", bed.path("out").display())).await.unwrap();
    let config = &image.config;
    assert_eq!(
        (&config.entrypoint[..], &config.workdir[..], &config.exposed_ports[..]),
        (&["/app".to_owned()][..], "/srv", &[8080][..])
    );
    assert!(config.env.contains(&"A=1".to_owned()));
    let user = image.user(&config.user).await.unwrap();
    assert_eq!((user.uid, user.gid, user.home.as_str()), (77, 78, "/srv"));
}
