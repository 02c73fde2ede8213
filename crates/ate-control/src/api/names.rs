//! Names in requests: checked before anything is looked up, since keys and paths are made of them.

use std::collections::BTreeMap;

use ate_api::{
    Error, Reason, ateapi,
    id::{ActorName, DEFAULT_SPACE, Digest, GOLDEN_ATESPACE, ObjectName},
    name,
};

/// Labels in a worker selector; more than anybody writes by hand.
const MAX_LABELS: usize = 64;

fn invalid(message: String) -> Error {
    Error::new(Reason::Invalid, message)
}

pub(crate) fn label(what: &str, text: &str) -> Result<(), Error> {
    if name::is_label(text) {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(invalid(format!("{what} {shown:?} is not a DNS label: {}", name::LABEL_RULE)))
}

/// An actor that is there already, or is asked for: any name that is safe.
pub(crate) fn actor(reference: Option<ateapi::ActorRef>) -> Result<ActorName, Error> {
    let reference = reference.ok_or_else(|| invalid("actor_ref is missing".to_owned()))?;
    label("atespace", &reference.atespace)?;
    label("actor name", &reference.name)?;
    Ok(ActorName::new(reference.atespace, reference.name))
}

/// An actor that is to be: its name must also work in a host name.
pub(crate) fn new_actor(reference: Option<ateapi::ActorRef>) -> Result<ActorName, Error> {
    let actor = actor(reference)?;
    name::check_actor(&actor.name).map_err(invalid)?;
    Ok(actor)
}

/// An actor by kind, namespace and name.
pub(crate) fn actor_object(namespace: &str, name: &str) -> Result<ActorName, Error> {
    let atespace = if namespace.is_empty() { DEFAULT_SPACE } else { namespace };
    label("atespace", atespace)?;
    label("actor name", name)?;
    Ok(ActorName::new(atespace, name))
}

pub(crate) fn object(namespace: &str, name: &str) -> Result<ObjectName, Error> {
    let namespace = if namespace.is_empty() { DEFAULT_SPACE } else { namespace };
    label("namespace", namespace)?;
    subdomain(name)?;
    Ok(ObjectName::new(namespace, name))
}

pub(crate) fn subdomain(text: &str) -> Result<(), Error> {
    if name::is_subdomain(text) {
        return Ok(());
    }
    let shown: String = text.chars().take(80).collect();
    Err(invalid(format!("{shown:?} is not a DNS name: {}", name::SUBDOMAIN_RULE)))
}

/// A whole digest.
pub(crate) fn digest(text: &str) -> Result<Digest, Error> {
    Digest::parse(text).ok_or_else(|| invalid("a digest is a sha256: 64 lower-case hex digits".to_owned()))
}

pub(crate) fn selector(selector: Option<ateapi::Selector>) -> Result<BTreeMap<String, String>, Error> {
    let labels: BTreeMap<String, String> = selector.unwrap_or_default().match_labels.into_iter().collect();
    if labels.len() > MAX_LABELS {
        return Err(invalid(format!("a worker selector has at most {MAX_LABELS} labels")));
    }
    match labels.iter().find(|(k, v)| !name::is_label_key(k) || !name::is_label_value(v)) {
        Some(_) => Err(invalid("a worker selector has keys and values as Kubernetes labels have them".to_owned())),
        None => Ok(labels),
    }
}

/// Actors that golden snapshots are of are nobody's to command.
pub(crate) fn not_golden(name: &ActorName) -> Result<(), Error> {
    if name.atespace != GOLDEN_ATESPACE {
        return Ok(());
    }
    Err(Error::new(Reason::PermissionDenied, "golden actors belong to the system").on(format!("actor/{name}")))
}
