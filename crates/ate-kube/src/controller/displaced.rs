//! A default that another configuration took: on one machine the one that lost it is changed in the same transaction, so
//! here its object is too. Otherwise both would go on to say that they are the default, and the next look would take it back.

use ate_api::resource::{Condition, Resource, SandboxConfig, choice::DEFAULT_CLASS_ANNOTATION};
use kube::{
    ResourceExt as _,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use super::{Context, Failure, object, status};
use crate::crd::Kind;

/// True: the object was changed.
pub(super) async fn write_back(object: &DynamicObject, stored: &Resource, context: &Context) -> Result<bool, Failure> {
    let Resource::SandboxConfig(stored) = stored else { return Ok(false) };
    let mut change = json!({});
    // The loss counts as a change of the spec, which the object is behind by until it is written.
    if object.data["spec"]["default"] == true && !stored.spec.default && is_behind(object, stored) {
        change["spec"] = json!({"default": false});
    }
    // An annotation has no generation. What the object does not tell of yet has not been written yet.
    let stands = object.annotations().get(DEFAULT_CLASS_ANNOTATION).is_some_and(|v| v == "true");
    if stands && lost(stored, "DefaultClass").is_some_and(|lost| !tells(object, lost)) {
        change["metadata"] = json!({"annotations": {DEFAULT_CLASS_ANNOTATION: null}});
    }
    if change == json!({}) {
        return Ok(false);
    }
    // Only if it still is what was looked at.
    change["metadata"]["resourceVersion"] = json!(object.resource_version());
    let api = context.api(Kind::SandboxConfig, None);
    api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(&change)).await?;
    Ok(true)
}

fn is_behind(object: &DynamicObject, stored: &SandboxConfig) -> bool {
    object::generation(object) < stored.metadata.generation
}

/// The word on a default that was taken away.
fn lost<'a>(stored: &'a SandboxConfig, default: &str) -> Option<&'a Condition> {
    let conditions = stored.status.iter().flat_map(|s| &s.conditions);
    conditions.into_iter().find(|c| c.r#type == default && !c.is_true())
}

fn tells(object: &DynamicObject, condition: &Condition) -> bool {
    let is_it =
        |c: &Condition| c.r#type == condition.r#type && c.status == condition.status && c.message == condition.message;
    status::told(object).iter().any(is_it)
}
