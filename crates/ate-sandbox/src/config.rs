//! A `SandboxConfig` against its class: its settings by the class's own format, its assets by what the class needs.

use std::collections::BTreeMap;

use ate_api::{
    Error, Reason, canonical,
    id::Digest,
    resource::{Invalid, SandboxConfigSpec, Violation, sandbox_config::Asset},
};
use serde_json::{Map, Value};

use crate::{
    ClassDescriptor, ConfigField, ConfigRef, FieldType, PinnedAsset, SandboxRef,
    asset::{self, MEDIA_TYPES},
};

/// Settings by name, as in `spec.config`.
pub type Values = Map<String, Value>;

/// Every violation of the class's rules. Those every class shares are `ate_api::resource::validate`'s.
pub fn check(class: &ClassDescriptor, spec: &SandboxConfigSpec) -> Vec<Violation> {
    let mut v = Vec::new();
    for (key, value) in spec.config.iter().flatten() {
        let found = match class.config.get(key) {
            Some(field) => check_value(field, value),
            None => {
                let keys: Vec<_> = class.config.keys().map(String::as_str).collect();
                let message = format!("class {} has no such setting; it has {}", class.name, list(&keys));
                v.push(Violation::new(format!("spec.config.{}", shown(key)), Reason::UnknownField, message));
                continue;
            }
        };
        if let Err(message) = found {
            v.push(Violation::invalid(format!("spec.config.{key}"), message));
        }
    }
    for (arch, assets) in &spec.assets {
        check_assets(class, arch, assets, &mut v);
    }
    v
}

fn check_assets(class: &ClassDescriptor, arch: &str, assets: &BTreeMap<String, Asset>, v: &mut Vec<Violation>) {
    let names: Vec<_> = class.required_assets.iter().map(|r| r.name.as_str()).collect();
    for missing in names.iter().filter(|name| !assets.contains_key(**name)) {
        let message = format!("class {} needs this asset", class.name);
        v.push(Violation::invalid(format!("spec.assets.{arch}.{missing}"), message));
    }
    for (name, a) in assets {
        let field = format!("spec.assets.{arch}.{}", shown(name));
        let Some(requirement) = class.required_assets.iter().find(|r| r.name == *name) else {
            let message = format!("class {} has no such asset; it has {}", class.name, list(&names));
            v.push(Violation::new(field, Reason::UnknownField, message));
            continue;
        };
        if let Err(message) = asset::check_url(&a.url) {
            v.push(Violation::invalid(format!("{field}.url"), message));
        }
        let media_type = asset::media_type(a, requirement);
        if !requirement.media_types.iter().any(|m| m == media_type) || !MEDIA_TYPES.contains(&media_type) {
            let message = format!("class {} takes it as {}", class.name, list(&requirement.media_types));
            v.push(Violation::invalid(format!("{field}.mediaType"), message));
        }
    }
}

/// What a field may be, with the reason if a value is not that.
pub(crate) fn check_value(field: &ConfigField, value: &Value) -> Result<(), String> {
    match (&field.r#type, value) {
        (FieldType::Boolean, Value::Bool(_)) => Ok(()),
        (FieldType::Boolean, _) => Err("must be true or false".to_owned()),
        (FieldType::Integer { min, max }, value) => match value.as_i64() {
            Some(n) if (*min..=*max).contains(&n) => Ok(()),
            _ => Err(format!("must be a whole number between {min} and {max}")),
        },
        (FieldType::Choice { values }, Value::String(s)) if values.contains(s) => Ok(()),
        (FieldType::Choice { values }, _) => Err(format!("must be one of {}", list(values))),
        (FieldType::Text { max_bytes }, Value::String(s))
            if s.len() <= *max_bytes as usize && !s.contains(char::is_control) =>
        {
            Ok(())
        }
        (FieldType::Text { max_bytes }, _) => Err(format!("must be printable text of at most {max_bytes} bytes")),
    }
}

/// The settings in force: what is given, and the class's defaults for the rest.
pub fn effective(class: &ClassDescriptor, given: Option<&Values>) -> Values {
    let value = |(key, field): (&String, &ConfigField)| {
        let given = given.and_then(|given| given.get(key));
        (key.clone(), given.unwrap_or(&field.default).clone())
    };
    class.config.iter().map(value).collect()
}

/// sha256 of the canonical JSON of complete settings, as in [`ConfigRef`].
pub fn digest(values: &Values) -> Digest {
    canonical::digest(&Value::Object(values.clone()))
}

/// Pins a configuration for machines of one architecture (Go's name, see [`crate::host::arch`]).
///
/// # Errors
/// Whatever [`check`] finds, and `NO_SANDBOX_CONFIG` if the class needs assets and there are none for the
/// architecture.
pub fn pin(
    class: &ClassDescriptor,
    name: &str,
    revision: u64,
    spec: &SandboxConfigSpec,
    arch: &str,
) -> Result<SandboxRef, Error> {
    let object = format!("sandboxconfig/{name}");
    if spec.sandbox_class != class.name {
        let message = format!("it is of class {}, not {}", spec.sandbox_class, class.name);
        return Err(Error::new(Reason::NoSandboxConfig, message).on(object));
    }
    Invalid::check(object.as_str(), check(class, spec))?;
    let empty = BTreeMap::new();
    let assets = match spec.assets.get(arch) {
        Some(assets) => assets,
        None if class.required_assets.is_empty() => &empty,
        None => {
            let has: Vec<_> = spec.assets.keys().map(String::as_str).collect();
            let names: Vec<_> = class.required_assets.iter().map(|r| r.name.as_str()).collect();
            let message = format!("it has no assets for {arch}, only for {}", list(&has));
            let hint = format!("add {} under spec.assets.{arch}", list(&names));
            return Err(Error::new(Reason::NoSandboxConfig, message).on(object).hint(hint));
        }
    };
    let values = effective(class, spec.config.as_ref());
    let pin = |(name, asset): (&String, &Asset)| {
        let requirement = class.required_assets.iter().find(|r| r.name == *name)?;
        Some(PinnedAsset {
            name: name.clone(),
            sha256: asset.sha256.clone(),
            size: asset.size,
            media_type: asset::media_type(asset, requirement).to_owned(),
            urls: vec![asset.url.clone()],
        })
    };
    Ok(SandboxRef {
        class: class.name.clone(),
        config: ConfigRef { name: name.to_owned(), revision, digest: digest(&values), values },
        assets: assets.iter().filter_map(pin).collect(),
    })
}

/// For people: `a, b, c`, or `none`.
pub(crate) fn list<S: AsRef<str>>(words: &[S]) -> String {
    match words.is_empty() {
        true => "none".to_owned(),
        false => words.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
    }
}

/// A key of the user's, for a message: long and strange ones are cut and escaped.
fn shown(key: &str) -> String {
    key.chars().take(63).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
pub(crate) mod tests;
