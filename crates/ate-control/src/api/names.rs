//! Names in requests: checked before anything is looked up, since keys and paths are made of them.

use std::collections::BTreeMap;

use ate_api::{
    Error, Reason, ateapi,
    id::{ActorName, DEFAULT_SPACE, ObjectName},
};

/// Labels in a worker selector; as many as anybody writes by hand.
const MAX_LABELS: usize = 64;
/// Longest label key or value, as in Kubernetes.
const MAX_LABEL: usize = 316;

/// Lower-case DNS label: letters, digits and hyphens, at most 63.
pub(crate) fn label(what: &str, name: &str) -> Result<(), Error> {
    let ok = !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if ok {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Error::new(
        Reason::Invalid,
        format!("{what} {shown:?} must be a DNS label: lower-case letters, digits and hyphens, at most 63"),
    ))
}

pub(crate) fn actor(reference: Option<ateapi::ActorRef>) -> Result<ActorName, Error> {
    let reference = reference.ok_or_else(|| Error::new(Reason::Invalid, "actor_ref is missing"))?;
    label("atespace", &reference.atespace)?;
    label("actor name", &reference.name)?;
    Ok(ActorName::new(reference.atespace, reference.name))
}

pub(crate) fn object(namespace: &str, name: &str) -> Result<ObjectName, Error> {
    let namespace = if namespace.is_empty() { DEFAULT_SPACE } else { namespace };
    label("namespace", namespace)?;
    subdomain(name)?;
    Ok(ObjectName::new(namespace, name))
}

/// DNS subdomain: labels joined by dots, at most 253.
pub(crate) fn subdomain(name: &str) -> Result<(), Error> {
    if name.len() > 253 {
        return Err(Error::new(Reason::Invalid, "a name has at most 253 characters"));
    }
    name.split('.').try_for_each(|part| label("name", part))
}

pub(crate) fn selector(selector: Option<ateapi::Selector>) -> Result<BTreeMap<String, String>, Error> {
    let labels: BTreeMap<String, String> = selector.unwrap_or_default().match_labels.into_iter().collect();
    if labels.len() > MAX_LABELS
        || labels.iter().any(|(k, v)| k.is_empty() || k.len() > MAX_LABEL || v.len() > MAX_LABEL)
    {
        return Err(Error::new(
            Reason::Invalid,
            format!("a worker selector has at most {MAX_LABELS} labels of at most {MAX_LABEL} characters"),
        ));
    }
    Ok(labels)
}
