//! What users declare in the cluster of a test.

use serde_json::{Value, json};

use super::SPACE;
use crate::{RUNSC_A, counter_image, runsc};

pub(super) const CONFIG: &str = "gvisor-default";

pub(super) fn config() -> Value {
    use sha2::Digest as _;
    let program = runsc(RUNSC_A);
    let sha256 = hex::encode(sha2::Sha256::digest(std::fs::read(&program).unwrap()));
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "SandboxConfig", "metadata": {"name": CONFIG},
        "spec": {"sandboxClass": "gvisor", "default": true,
            "assets": {arch: {"runsc": {"url": format!("file://{}", program.display()), "sha256": sha256}}}},
    })
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
