//! Rules of `SandboxConfig` that are the same for every class. Settings, asset names and URLs are the class's.

use super::rules;
use crate::{
    name,
    resource::{SandboxConfigSpec, Violation, violation::quoted},
};

/// Longest URL in bytes; object stores and HTTP servers refuse longer ones.
const MAX_URL: usize = 4096;
/// Signers of one configuration; one is usual, two while a key is replaced.
const MAX_KEYS: usize = 16;
/// A key or a signature of minisign in bytes, comments included, a few times over.
const MAX_SIGNATURE: usize = 4096;

pub(super) fn check(spec: &SandboxConfigSpec, v: &mut Vec<Violation>) {
    rules::class(&spec.sandbox_class, "spec.sandboxClass", v);
    // Ours: signatures are fields of ours.
    if let Some(verification) = &spec.verification {
        let field = "spec.verification.publicKeys";
        rules::at_most(verification.public_keys.len(), MAX_KEYS, field, v);
        for (i, key) in verification.public_keys.iter().enumerate() {
            rules::at_most(key.len(), MAX_SIGNATURE, &format!("{field}[{i}]"), v);
        }
    }
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
            let signature = asset.signature.as_ref().map_or(0, String::len);
            rules::at_most(signature, MAX_SIGNATURE, &format!("{field}.signature"), v);
            if asset.size == Some(0) {
                v.push(Violation::invalid(format!("{field}.size"), "an empty file is no asset"));
            }
        }
    }
}
