//! Rules of `WorkerPool`.

use super::rules;
use crate::resource::{Violation, WorkerPoolSpec};

const MAX_TOLERATIONS: usize = 16;

pub(super) fn check(spec: &WorkerPoolSpec, v: &mut Vec<Violation>) {
    if spec.replicas < 0 {
        v.push(Violation::invalid("spec.replicas", format!("{} is less than none", spec.replicas)));
    }
    if spec.ateom_image.is_empty() {
        v.push(Violation::invalid("spec.ateomImage", "empty"));
    }
    rules::class(&spec.sandbox_class, "spec.sandboxClass", v);
    let Some(template) = &spec.template else { return };
    rules::at_most(template.tolerations.len(), MAX_TOLERATIONS, "spec.template.tolerations", v);
    for (i, toleration) in template.tolerations.iter().enumerate().filter(|(_, t)| !t.is_object()) {
        v.push(Violation::invalid(format!("spec.template.tolerations[{i}]"), format!("{toleration} is not a map")));
    }
    for (field, value) in [("nodeAffinity", &template.node_affinity), ("resources", &template.resources)] {
        if value.as_ref().is_some_and(|value| !value.is_object()) {
            v.push(Violation::invalid(format!("spec.template.{field}"), "not a map"));
        }
    }
}
