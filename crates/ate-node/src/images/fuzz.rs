//! What images, registries and templates may say.

use std::fs;

use ate_fuzz::{Target, tar::with_checksums};
use serde_json::json;

use super::{
    credentials,
    document::{self, Document, MAX_LAYERS},
    layer,
    reference::Reference,
    source, user,
};
use crate::unpack::{Limits, UnpackError, sample};

fn descriptor(media_type: &str) -> serde_json::Value {
    let digest = format!("sha256:{}", ate_api::id::Digest::of(b"x"));
    json!({ "mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": digest, "size": 1 })
}

#[test]
fn manifests_and_indexes() {
    Target::named("node.image-manifest")
        .sample("manifest", || {
            let layers = [descriptor("layer.v1.tar"), descriptor("layer.v1.tar+gzip")];
            let config = descriptor("config.v1+json");
            json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string().into_bytes()
        })
        .sample("index", || {
            let mut entry = descriptor("manifest.v1+json");
            entry["platform"] = json!({ "os": "linux", "architecture": document::architecture() });
            entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
            json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes()
        })
        .run(|bytes| {
            let _ = source::named_in(bytes, Some("v1"), "oci:/x");
            let _ = source::named_in(bytes, None, "oci:/x");
            match document::parse(bytes)? {
                Document::Manifest { layers, .. } => assert!((1..=MAX_LAYERS).contains(&layers.len())),
                Document::Index(one) => assert_eq!(one.digest.as_str().len(), 64),
            }
            Ok::<_, String>(())
        });
}

#[test]
fn configurations() {
    Target::named("node.image-config")
        .sample("full", || {
            let config = json!({
                "Entrypoint": ["/app"], "Cmd": ["serve"], "Env": ["A=1"], "WorkingDir": "srv", "User": "app:staff",
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Labels": {"a": "b"},
            });
            let diff_ids = [format!("sha256:{}", ate_api::id::Digest::of(b"layer"))];
            let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
            json!({ "os": "linux", "architecture": document::architecture(), "config": config, "rootfs": rootfs })
                .to_string()
                .into_bytes()
        })
        .run(|bytes| {
            let (config, _) = document::parse_config(bytes)?;
            assert!(config.workdir.starts_with('/') && !config.exposed_ports.contains(&0));
            assert!(!config.env.iter().chain(&config.entrypoint).any(|text| text.contains('\0')));
            Ok::<_, String>(())
        });
}

#[test]
fn references() {
    Target::named("node.image-reference")
        .sample("layout", || b"oci:/srv/c:localhost/counter:v1".to_vec())
        .sample("registry", || b"127.0.0.1:5000/team/app:2".to_vec())
        .sample("archive", || b"docker-archive:/srv/web.tar:web:v1".to_vec())
        .run(|bytes| {
            let text = std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
            let reference = Reference::parse(text).map_err(|e| e.to_string())?;
            let again = Reference::parse(&reference.to_string()).map_err(|e| e.to_string());
            assert_eq!(again.as_ref(), Ok(&reference), "{text}");
            Ok::<_, String>(())
        });
}

/// The spec, then /etc/passwd, then /etc/group.
const PART: &str = "\n=====\n";

#[test]
fn users() {
    Target::named("node.image-user")
        .sample("by-name", || {
            let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n";
            ["app", passwd, "staff:x:50:app,other\napp:x:1001:\n"].join(PART).into_bytes()
        })
        .run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let mut parts = text.splitn(3, PART);
            let mut part = || parts.next().unwrap_or_default();
            let found = user::lookup(part(), part(), part())?;
            assert!(found.home.starts_with('/') && !found.additional_gids.contains(&found.gid));
            Ok::<_, UnpackError>(())
        });
}

#[test]
fn credentials_of_registries() {
    Target::named("node.registry-credentials")
        .sample("docker", || {
            br#"{"auths": {"r.example.org": {"auth": "dXNlcjpwYTpzcw=="}}, "credsStore": "x"}"#.to_vec()
        })
        .run(|bytes| match credentials::in_file(bytes, "r.example.org") {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("none for this registry".to_owned()),
            Err(e) => Err(e.to_string()),
        });
}

#[test]
fn layers() {
    const SMALL: Limits = Limits { entries: 100, bytes: 1 << 20 };
    Target::named("node.image-layer")
        .sample("plain", sample::layer)
        .sample("zstd", || zstd::encode_all(&sample::layer()[..], 1).unwrap())
        .run(|bytes| {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            let (below, into) = (dir.path().join("lower"), dir.path().join("upper"));
            fs::create_dir_all(below.join("below")).unwrap();
            fs::write(below.join("below/gone"), "x").unwrap();
            fs::write(below.join("file"), "below").unwrap();
            std::os::unix::fs::symlink("/", below.join("out")).unwrap();
            fs::create_dir(&into).unwrap();
            let applied = layer::apply(&with_checksums(bytes)[..], &into, std::slice::from_ref(&below), SMALL);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing lands beside it");
            assert_eq!(fs::read_dir(&below).unwrap().count(), 3, "layers below stay as they are");
            assert_eq!(fs::read(below.join("file")).unwrap(), b"below");
            applied.map(drop)
        });
}
