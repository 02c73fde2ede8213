//! Rules of metadata: names as Kubernetes has them, labels, annotations.

use super::rules;
use crate::{
    name::{self, SUBDOMAIN_RULE},
    resource::{Resource, Violation, violation::quoted},
};

/// All annotations of an object together, keys and values, in bytes. Kubernetes' limit.
const MAX_ANNOTATIONS: usize = 256 << 10;

pub(super) fn check(resource: &Resource, v: &mut Vec<Violation>) {
    let meta = resource.metadata();
    if let Resource::Atespace(_) = resource {
        if let Err(message) = name::check_user_atespace(&meta.name) {
            v.push(Violation::invalid("metadata.name", message));
        }
    } else if !name::is_subdomain(&meta.name) {
        let message = format!("{} is not a DNS name: {SUBDOMAIN_RULE}", quoted(&meta.name));
        v.push(Violation::invalid("metadata.name", message));
    }
    // Empty is the caller's default namespace, filled in before anything is stored.
    if !meta.namespace.is_empty() {
        rules::label(&meta.namespace, "metadata.namespace", v);
    }
    rules::labels(&meta.labels, "metadata.labels", v);
    let mut size = 0;
    for (key, value) in &meta.annotations {
        size += key.len() + value.len();
        if !name::is_label_key(&key.to_ascii_lowercase()) {
            let message = format!("{} is not an annotation key", quoted(key));
            v.push(Violation::invalid("metadata.annotations", message));
        }
    }
    if size > MAX_ANNOTATIONS {
        let message = format!("{size} bytes are more than the {MAX_ANNOTATIONS} allowed");
        v.push(Violation::invalid("metadata.annotations", message));
    }
}
