//! What is checked of every resource before it is stored: form, class, configuration, binaries.

use ate_api::{
    Error, Reason,
    id::Digest,
    resource::{ActorTemplate, ObjectMeta, SandboxConfig, WorkerPool},
};
use ate_sandbox::{ClassDescriptor, PinnedAsset, SandboxRef, reference::ConfigRef};

use crate::core::{Classes, Core};

pub(crate) enum Object {
    Atespace(ObjectMeta, serde_json::Value),
    SandboxConfig(SandboxConfig),
    WorkerPool(WorkerPool),
    ActorTemplate(ActorTemplate),
}

/// Reads one object of an apply.
pub(crate) fn parse(json: &[u8]) -> Result<Object, Error> {
    let invalid = |e: serde_json::Error| {
        let reason = if e.to_string().starts_with("unknown field") { Reason::UnknownField } else { Reason::Invalid };
        Error::new(reason, e.to_string())
    };
    let mut value: serde_json::Value = serde_json::from_slice(json).map_err(invalid)?;
    let kind = value["kind"].as_str().unwrap_or_default().to_owned();
    if let Some(map) = value.as_object_mut() {
        map.remove("status");
    }
    if matches!(kind.as_str(), "WorkerPool" | "ActorTemplate") && value["metadata"]["namespace"].is_null() {
        value["metadata"]["namespace"] = ate_api::id::DEFAULT_SPACE.into();
    }
    Ok(match kind.as_str() {
        "Atespace" => {
            let meta = serde_json::from_value(value["metadata"].clone()).map_err(invalid)?;
            Object::Atespace(meta, value["spec"].clone())
        }
        "SandboxConfig" => Object::SandboxConfig(serde_json::from_value(value).map_err(invalid)?),
        "WorkerPool" => Object::WorkerPool(serde_json::from_value(value).map_err(invalid)?),
        "ActorTemplate" => Object::ActorTemplate(serde_json::from_value(value).map_err(invalid)?),
        other => return Err(Error::new(Reason::Invalid, format!("unknown kind {other:?}"))),
    })
}

pub(crate) fn known_class<'a>(classes: &'a Classes, class: &str) -> Result<&'a ClassDescriptor, Error> {
    classes.get(class).ok_or_else(|| {
        let mut known: Vec<&str> = classes.keys().map(String::as_str).collect();
        known.sort_unstable();
        Error::new(Reason::UnknownSandboxClass, format!("no herder is installed for sandbox class {class:?}"))
            .hint(format!("known classes: {}", known.join(", ")))
    })
}

/// The configuration as one fully pinned reference: defaults filled in, assets of this architecture.
pub(crate) fn pin(
    config: &SandboxConfig,
    class: &ClassDescriptor,
    arch: &str,
    revision: u64,
) -> Result<SandboxRef, Error> {
    let mut values: serde_json::Map<String, serde_json::Value> =
        class.config.iter().map(|(k, f)| (k.clone(), f.default.clone())).collect();
    for (key, value) in config.spec.config.iter().flatten() {
        if !class.config.contains_key(key) {
            return Err(Error::new(Reason::UnknownField, format!("class {} has no setting {key}", class.name)));
        }
        values.insert(key.clone(), value.clone());
    }
    let given = config.spec.assets.get(arch);
    let mut assets = Vec::new();
    for wanted in &class.required_assets {
        let asset = given.and_then(|a| a.get(&wanted.name)).ok_or_else(|| {
            Error::new(
                Reason::Invalid,
                format!("asset {} for {arch}, the architecture of this node, is missing", wanted.name),
            )
        })?;
        let default_type = wanted.media_types.first().cloned().unwrap_or_default();
        assets.push(PinnedAsset {
            name: wanted.name.clone(),
            sha256: asset.sha256.clone(),
            size: asset.size,
            media_type: asset.media_type.clone().unwrap_or(default_type),
            urls: vec![asset.url.clone()],
        });
    }
    let json = serde_json::to_vec(&values).map_err(|e| Error::new(Reason::Internal, e.to_string()))?;
    let config = ConfigRef { name: config.metadata.name.clone(), revision, digest: Digest::of(&json), values };
    Ok(SandboxRef { class: class.name.clone(), config, assets })
}

/// sha256 of the canonical JSON of a template's spec.
pub(crate) fn spec_digest(spec: &ate_api::resource::ActorTemplateSpec) -> Result<Digest, Error> {
    let value = serde_json::to_value(spec).map_err(|e| Error::new(Reason::Internal, e.to_string()))?;
    Ok(Digest::of(value.to_string().as_bytes()))
}

impl Core {
    /// May these binaries run (I4)?
    pub(crate) fn check_trust(&self, _sandbox: &SandboxRef) -> Result<(), Error> {
        Ok(())
    }
}
