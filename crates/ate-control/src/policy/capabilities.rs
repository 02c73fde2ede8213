//! Which capabilities of a sandbox a template needs.

use ate_api::resource::{ActorTemplateSpec, template::Scope};

pub(crate) fn required(spec: &ActorTemplateSpec) -> Vec<String> {
    // Golden snapshots hold memory, whatever the template stores later.
    let mut needed = vec!["snapshot.full".to_owned()];
    let snapshots = &spec.snapshots_config;
    if snapshots.on_pause == Scope::Data || snapshots.on_commit == Scope::Data {
        needed.push("snapshot.data".to_owned());
    }
    if spec.containers.len() > 1 {
        needed.push("snapshot.multi-container".to_owned());
    }
    needed
}
