//! What lies in `manifests/` is what the program would write.

mod support;

use std::path::{Path, PathBuf};

use ate_kube::{crd, policy};

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests")
}

/// With `ATE_WRITE_MANIFESTS=1` it is written anew.
fn check(path: &Path, content: &str) {
    if std::env::var_os("ATE_WRITE_MANIFESTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    let write = "ATE_WRITE_MANIFESTS=1 cargo test --workspace --test manifests";
    assert!(stored == content, "{} is stale; write it anew: {write}", path.display());
}

#[test]
fn the_definitions_are_those_of_the_types() {
    for (name, content) in crd::files() {
        check(&manifests().join("crds").join(name), &content);
    }
}

#[test]
fn the_policies_are_those_of_the_classes() {
    let classes = support::classes();
    let content = policy::manifests(support::own_classes(&classes));
    check(&manifests().join("policies").join("classes.yaml"), &content);
}
