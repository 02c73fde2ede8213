//! Rules of `SandboxConfig` that are the same for every class. Settings, asset names and URLs are the class's.

use super::rules;
use crate::{
    name,
    resource::{SandboxConfigSpec, Violation, violation::quoted},
};

/// Longest URL in bytes; object stores and HTTP servers refuse longer ones.
const MAX_URL: usize = 4096;

pub(super) fn check(spec: &SandboxConfigSpec, v: &mut Vec<Violation>) {
    rules::class(&spec.sandbox_class, "spec.sandboxClass", v);
    for (arch, assets) in &spec.assets {
        // Ours: Go's architecture names are such words; anything else could match no machine.
        if !name::is_label(arch) {
            v.push(Violation::invalid("spec.assets", format!("{} is not an architecture", quoted(arch))));
        }
        for (name, asset) in assets {
            let field = format!("spec.assets.{arch}.{name}");
            if asset.url.is_empty() {
                v.push(Violation::invalid(format!("{field}.url"), "empty"));
            }
            rules::at_most(asset.url.len(), MAX_URL, &format!("{field}.url"), v);
            // Ours: `size` is a field of ours.
            if asset.size == Some(0) {
                v.push(Violation::invalid(format!("{field}.size"), "an empty file is no asset"));
            }
        }
    }
}
