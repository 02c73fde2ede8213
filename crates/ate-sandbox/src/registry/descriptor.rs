//! The rules a descriptor must keep before anybody relies on it.

use std::collections::BTreeSet;

use ate_api::name::is_label;

use super::RegistryError;
use crate::{
    AssetRequirement, ClassDescriptor, ConfigField, FieldType,
    asset::{self, MEDIA_TYPES},
    config::{check_value, list},
};

/// Assets a class may need, settings it may have, entries of each list of host needs. Real ones have a tenth.
const MAX_ENTRIES: usize = 64;
/// Longest name, version or description in bytes.
const MAX_TEXT: usize = 1024;
/// Longest `Text` setting in bytes: settings travel in every manifest.
const MAX_SETTING: u32 = 16 << 10;

pub(super) fn check(d: &ClassDescriptor, contract: u32) -> Result<(), RegistryError> {
    let mut problems = Vec::new();
    if !is_label(&d.name) {
        problems.push(format!("its name is not a DNS label: {}", ate_api::name::LABEL_RULE));
    }
    if d.contract_version != contract {
        let v = d.contract_version;
        problems.push(format!("its herder speaks driver contract {v}, this program {contract}; install matching ones"));
    }
    for (what, text) in [("driver name", &d.driver_name), ("driver version", &d.driver_version)] {
        if text.is_empty() || text.len() > MAX_TEXT {
            problems.push(format!("its {what} is empty or too long"));
        }
    }
    let needs = &d.host_needs;
    let lists = [d.required_assets.len(), d.config.len(), needs.devices.len(), needs.programs.len()];
    if lists.into_iter().chain([needs.capabilities.len(), needs.node_labels.len()]).any(|n| n > MAX_ENTRIES) {
        problems.push(format!("one of its lists has more than {MAX_ENTRIES} entries"));
    }
    let names: BTreeSet<_> = d.required_assets.iter().map(|r| &r.name).collect();
    if names.len() < d.required_assets.len() {
        problems.push("it names an asset twice".to_owned());
    }
    problems.extend(d.required_assets.iter().filter_map(requirement));
    problems.extend(d.config.iter().filter_map(|(key, field)| setting(key, field)));
    match problems.is_empty() {
        true => Ok(()),
        false => Err(RegistryError::Invalid { class: d.name.chars().take(63).collect(), problems }),
    }
}

fn requirement(r: &AssetRequirement) -> Option<String> {
    if !asset::is_name(&r.name) {
        return Some(format!("{:?} cannot be the name of an asset", r.name.chars().take(63).collect::<String>()));
    }
    let known = |m: &String| MEDIA_TYPES.contains(&m.as_str());
    (r.media_types.is_empty() || !r.media_types.iter().all(known))
        .then(|| format!("asset {} must have media types among {}", r.name, list(&MEDIA_TYPES)))
}

fn setting(key: &str, field: &ConfigField) -> Option<String> {
    if !asset::is_name(key) {
        return Some(format!("{:?} cannot be the name of a setting", key.chars().take(63).collect::<String>()));
    }
    let sane = match &field.r#type {
        FieldType::Boolean => true,
        FieldType::Integer { min, max } => min <= max,
        FieldType::Choice { values } => !values.is_empty() && values.len() <= MAX_ENTRIES,
        FieldType::Text { max_bytes } => *max_bytes <= MAX_SETTING,
    };
    if !sane || field.description.len() > MAX_TEXT {
        return Some(format!("setting {key} has an impossible or too large type"));
    }
    check_value(field, &field.default).err().map(|e| format!("the default of setting {key} {e}"))
}
