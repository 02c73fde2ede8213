//! What users declare in the cluster of a test.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::SPACE;
use crate::{RUNSC_A, binary, counter_image, provided, runsc, user::run};

const TAR: &str = "application/x-tar";

/// A default configuration of a class. What has to be made of a distribution's packages is left in `dir`.
pub(super) fn config(class: &str, dir: &Path) -> Value {
    let files = match class {
        "gvisor" => BTreeMap::from([("runsc".to_owned(), runsc(RUNSC_A))]),
        _ => collected(class, dir),
    };
    let assets: serde_json::Map<String, Value> = files.into_iter().map(|(name, path)| (name, pinned(&path))).collect();
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "SandboxConfig", "metadata": {"name": format!("{class}-default")},
        "spec": {"sandboxClass": class, "default": true, "assets": {arch: assets}},
    })
}

/// What the herder of the class makes of the packages.
fn collected(class: &str, dir: &Path) -> BTreeMap<String, PathBuf> {
    let out = dir.join(class);
    std::fs::create_dir_all(&out).unwrap();
    let mut collect = Command::new(binary(&format!("ateom-{class}")));
    collect.arg("collect").arg("--from").arg(provided("microvm/7.2")).arg("--out").arg(out);
    serde_json::from_str(&run(&mut collect, "").ok()).expect("assets and their files")
}

fn pinned(path: &Path) -> Value {
    let sha256 = hex::encode(Sha256::digest(std::fs::read(path).unwrap()));
    let mut asset = json!({"url": format!("file://{}", path.display()), "sha256": sha256});
    if path.extension().is_some_and(|e| e == "tar") {
        asset["mediaType"] = TAR.into();
    }
    asset
}

pub(super) fn pool(replicas: u32) -> Value {
    json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": "pool", "namespace": SPACE},
        "spec": {"replicas": replicas, "ateomImage": "ateom-gvisor:test"},
    })
}

pub(super) fn template() -> Value {
    json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "ActorTemplate", "metadata": {"name": "counter", "namespace": SPACE},
        "spec": {
            "containers": [{"name": "main", "image": counter_image(),
                "readyz": {"httpGet": {"path": "/readyz", "port": 80}}}],
            "pauseImage": "unused@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "snapshotsConfig": {"location": "default"},
            "idleTimeout": "0",
        },
    })
}
