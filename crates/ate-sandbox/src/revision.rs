//! When an edit of a `SandboxConfig` makes a new revision: when anything changes that could run differently.

use ate_api::{canonical, id::Digest, resource::SandboxConfigSpec};
use serde_json::json;

use crate::{ClassDescriptor, config};

/// Digest of what a revision fixes: class, assets of every architecture, and the settings in force; also the keys that
/// the assets must be signed by, which are asked once for each revision. Labels and the `default` flag are not in it, nor is
/// a setting that is written out as its default.
pub fn content_digest(class: &ClassDescriptor, spec: &SandboxConfigSpec) -> Digest {
    let mut content = json!({
        "class": spec.sandbox_class,
        "assets": spec.assets,
        "config": config::effective(class, spec.config.as_ref()),
    });
    // Absent without keys: the digests of revisions that were made before there were any stay what they are.
    if let Some(verification) = &spec.verification {
        content["verification"] = json!(verification);
    }
    canonical::digest(&content)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::tests::{spec, toy};

    #[test]
    fn only_what_could_run_differently_makes_a_new_revision() {
        let asset = json!({ "url": "file:///k", "sha256": "0".repeat(64) });
        let base = json!({ "sandboxClass": "toy", "assets": { "amd64": { "kernel": asset } } });
        let digest = |value: &serde_json::Value| content_digest(&toy(), &spec(value.clone()));
        let changed = |path: &str, to: serde_json::Value| {
            let mut value = base.clone();
            let (parent, key) = path.rsplit_once('/').unwrap();
            value.pointer_mut(parent).unwrap()[key] = to;
            digest(&value)
        };
        let original = digest(&base);
        assert_eq!(changed("/default", json!(true)), original);
        assert_eq!(changed("/config", json!({ "mode": "safe" })), original);
        assert_ne!(changed("/config", json!({ "mode": "fast" })), original);
        assert_ne!(changed("/sandboxClass", json!("other")), original);
        assert_ne!(changed("/assets/amd64/kernel/sha256", json!("1".repeat(64))), original);
        assert_ne!(changed("/assets/amd64/kernel/url", json!("file:///l")), original);
        assert_ne!(changed("/assets/arm64", json!({})), original);
        assert_ne!(changed("/verification", json!({ "publicKeys": ["k"] })), original);
    }
}
