//! What administrators of a simulated world declare.

use std::{collections::BTreeMap, time::Duration};

use ate_control::Options;
use ate_sandbox::{AssetRequirement, ClassDescriptor, HostNeeds, Registry, registry::Herder};
use serde_json::{Value, json};

pub(crate) const CLASS: &str = "gvisor";
pub(crate) const CONFIG: &str = "gvisor-default";
pub(crate) const POOL: &str = "pool";
pub(crate) const ATESPACES: [&str; 2] = ["default", "other"];
/// Memory and files; files only; both, and soon suspended.
pub(crate) const TEMPLATES: [&str; 3] = ["full", "files", "hasty"];
/// Workers once the storm is over.
pub(crate) const WORKERS: usize = 3;
const CONTRACT: u32 = 1;

/// Short, so that a history sees many of them pass. Their order is that of the defaults.
pub(crate) fn options() -> Options {
    Options {
        arch: "amd64".to_owned(),
        eviction_grace: Duration::from_millis(250),
        queue_limit: 6,
        resume_timeout: Duration::from_secs(20),
        activate_timeout: Duration::from_secs(5),
        capture_timeout: Duration::from_secs(6),
        release_timeout: Duration::from_secs(3),
        drain: Duration::from_secs(1),
        golden_backoff: Duration::from_millis(500),
        golden_timeout: Duration::from_secs(30),
        tick: Duration::from_millis(500),
        collect_interval: Duration::from_secs(30),
        ..Options::default()
    }
}

pub(crate) fn classes() -> Registry {
    let descriptor = ClassDescriptor {
        name: CLASS.into(),
        driver_name: "simulated".into(),
        driver_version: "0".into(),
        contract_version: CONTRACT,
        required_assets: vec![AssetRequirement {
            name: "runsc".into(),
            media_types: vec!["application/octet-stream".into()],
            description: "the binary".into(),
            found_on_path_as: String::new(),
        }],
        config: BTreeMap::new(),
        host_needs: HostNeeds::default(),
        image_format: Default::default(),
        isolation: Default::default(),
    };
    let herder = Herder { descriptor, program: "/nonexistent/ateom-simulated".into() };
    Registry::of([herder], CONTRACT).expect("one class")
}

/// The digest of a binary, named by a hex digit.
pub(crate) fn binary(digit: char) -> String {
    std::iter::repeat_n(digit, 64).collect()
}

pub(crate) fn config(digit: char) -> Value {
    json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "SandboxConfig", "metadata": {"name": CONFIG},
        "spec": {"sandboxClass": CLASS, "default": true,
            "assets": {"amd64": {"runsc": {"url": "file:///runsc", "sha256": binary(digit)}}}}
    })
}

pub(crate) fn pool(replicas: usize) -> Value {
    json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "WorkerPool", "metadata": {"name": POOL, "namespace": "default"},
        "spec": {"replicas": replicas, "ateomImage": "unused"}
    })
}

fn template(name: &str) -> Value {
    let durable = name != "full";
    let (idle, scope) = match name {
        "hasty" => ("2s", "Full"),
        "files" => ("0", "Data"),
        _ => ("0", "Full"),
    };
    let mut container = json!({"name": "app", "image": "oci:/images/app"});
    let mut spec = json!({
        "snapshotsConfig": {"location": "default", "onPause": scope, "onCommit": scope}, "idleTimeout": idle,
    });
    if durable {
        spec["volumes"] = json!([{"name": "data", "durableDir": {}}]);
        container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    }
    spec["containers"] = json!([container]);
    json!({
        "apiVersion": "ate.dev/v1alpha1", "kind": "ActorTemplate", "metadata": {"name": name, "namespace": "default"},
        "spec": spec
    })
}

/// Everything there is at the beginning.
pub(crate) fn all() -> Vec<Value> {
    let atespace = |name| json!({"apiVersion": "ate.dev/v1alpha1", "kind": "Atespace", "metadata": {"name": name}});
    let mut all = vec![config('a'), pool(WORKERS)];
    all.extend(ATESPACES.map(atespace));
    all.extend(TEMPLATES.map(template));
    all
}
