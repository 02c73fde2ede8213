//! Between an object of Kubernetes and the same as the control plane knows it.

use ate_api::{
    Error, Reason,
    id::Uid,
    resource::{self, Resource},
};
use kube::{ResourceExt as _, api::DynamicObject};
use serde_json::Value;

/// Kept by `kubectl` for itself; as large as the object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The object as declared: with the uid and generation it has there, without its status.
///
/// # Errors
/// `INVALID`: it got past the API server, perhaps before a rule was there.
pub(super) fn declared(object: &DynamicObject) -> Result<Resource, Error> {
    let json = serde_json::to_value(object).map_err(|e| Error::new(Reason::Internal, e.to_string()))?;
    let mut resource = resource::from_value(json)?;
    let meta = resource.metadata_mut();
    meta.annotations.remove(LAST_APPLIED);
    meta.uid = object.metadata.uid.as_deref().and_then(Uid::parse);
    meta.generation = generation(object);
    // Another version of the same library.
    meta.creation_timestamp = object.metadata.creation_timestamp.as_ref().and_then(|t| t.0.to_string().parse().ok());
    Ok(resource)
}

pub(super) fn generation(object: &DynamicObject) -> u64 {
    object.metadata.generation.and_then(|g| u64::try_from(g).ok()).unwrap_or(1)
}

pub(super) fn uid(object: &DynamicObject) -> Option<Uid> {
    object.uid().as_deref().and_then(Uid::parse)
}

/// Its status as the control plane has it.
pub(super) fn status_of(resource: &Resource) -> Value {
    let status = match resource {
        Resource::SandboxConfig(o) => serde_json::to_value(&o.status),
        Resource::WorkerPool(o) => serde_json::to_value(&o.status),
        Resource::ActorTemplate(o) => serde_json::to_value(&o.status),
        Resource::Atespace(_) => Ok(Value::Null),
    };
    status.ok().filter(|s| s.is_object()).unwrap_or_else(|| serde_json::json!({}))
}
