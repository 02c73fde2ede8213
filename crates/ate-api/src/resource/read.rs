//! From bytes to typed objects: YAML (several documents) or JSON, `List`s included, sizes capped.
//!
//! Nothing unknown is passed over: an unknown kind, version or field is refused. What Kubernetes itself adds to an
//! object (`status`, `managedFields`, …) is left out, so that `kubectl get -o yaml` can be applied again.

mod fields;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    ActorTemplate, Atespace, Invalid, Resource, SandboxConfig, Violation, WorkerPool, meta::API_VERSION,
    violation::quoted,
};
use crate::{Error, Reason, name::is_subdomain};

/// Largest text of several documents, in bytes; some thousand objects of the usual size.
pub const MAX_TEXT: usize = 16 << 20;
/// Largest single object as JSON, in bytes: what the API takes in one message.
pub const MAX_OBJECT: usize = 1 << 20;
/// Nesting of maps and lists. Resources need 12; recursion over a value stays far from the end of the stack.
const MAX_DEPTH: usize = 48;
/// Aliases (`*name`) in one text. People use a few; each may copy what its anchor holds.
const MAX_ALIASES: usize = 64;
/// Parser events that aliases may repeat, in one text.
const MAX_REPLAYED: usize = 20_000;
/// Unknown fields collected before giving up on an object.
const MAX_UNKNOWN: usize = 32;

/// Set by the API server, never by the user. Accepted and left out.
const MANAGED_METADATA: [&str; 10] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
    "ownerReferences",
    "finalizers",
];
const USER_METADATA: [&str; 4] = ["name", "namespace", "labels", "annotations"];

/// The objects in a text, as written: documents split, `List`s opened, empty documents skipped.
pub fn documents(text: &[u8]) -> Result<Vec<Value>, Error> {
    let invalid = |message: String| Error::new(Reason::Invalid, message);
    if text.len() > MAX_TEXT {
        return Err(invalid(format!("{} bytes are more than the {MAX_TEXT} that are read at once", text.len())));
    }
    let text = std::str::from_utf8(text).map_err(|e| invalid(format!("not UTF-8 text: {e}")))?;
    // JSON is YAML, so one parser does.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_aliases: MAX_ALIASES,
            max_recorded_anchor_bytes: MAX_OBJECT,
            max_recorded_anchor_events: MAX_REPLAYED,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED, max_replay_stack_depth: 8, },
        with_snippet: false,
    };
    let values: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|e| invalid(e.to_string()))?;
    let mut objects = Vec::new();
    for value in values {
        match value {
            Value::Object(mut list) if list.get("kind").is_some_and(|k| k == "List") => match list.remove("items") {
                Some(Value::Array(items)) => objects.extend(items),
                None | Some(Value::Null) => {}
                Some(_) => return Err(invalid("items of a List must be a list".to_owned())),
            },
            Value::Null => {}
            value => objects.push(value),
        }
    }
    for object in &objects {
        let size = size_of(object);
        if size > MAX_OBJECT {
            return Err(invalid(format!("an object of {size} bytes is larger than the {MAX_OBJECT} allowed"))
                .on(object_label(object)));
        }
    }
    Ok(objects)
}

/// Every object of a text, typed. Stops at the first that is not one of ours.
pub fn parse(text: &[u8]) -> Result<Vec<Resource>, Error> {
    documents(text)?.into_iter().map(|value| from_value(value).map_err(Error::from)).collect()
}

/// One object as JSON, for example of an `ApplyRequest`.
pub fn from_json(bytes: &[u8]) -> Result<Resource, Error> {
    if bytes.len() > MAX_OBJECT {
        let message = format!("an object of {} bytes is larger than the {MAX_OBJECT} allowed", bytes.len());
        return Err(Error::new(Reason::Invalid, message));
    }
    let mut objects = parse(bytes)?;
    match (objects.pop(), objects.is_empty()) {
        (Some(object), true) => Ok(object),
        _ => Err(Error::new(Reason::Invalid, "expected exactly one object")),
    }
}

/// One object, typed. Says nothing yet about the values of its fields: that is `validate`.
pub fn from_value(mut value: Value) -> Result<Resource, Invalid> {
    let object = object_label(&value);
    let fail = |violations| Invalid { object: object.clone(), violations };
    let Value::Object(map) = &mut value else {
        return Err(fail(vec![Violation::invalid(
            "",
            "an object must be a map with apiVersion, kind, metadata, spec",
        )]));
    };
    let kind = head(map).map_err(|v| fail(vec![v]))?;
    map.remove("status");
    let mut violations = clean_metadata(map, &kind);
    strip_nulls(&mut value, kind == "SandboxConfig");
    let resource = match kind.as_str() {
        "Atespace" => typed::<Atespace>(value, &kind, &mut violations).map(Resource::Atespace),
        "SandboxConfig" => typed::<SandboxConfig>(value, &kind, &mut violations).map(Resource::SandboxConfig),
        "WorkerPool" => typed::<WorkerPool>(value, &kind, &mut violations).map(Resource::WorkerPool),
        _ => typed::<ActorTemplate>(value, &kind, &mut violations).map(Resource::ActorTemplate),
    };
    resource.filter(|_| violations.is_empty()).ok_or_else(|| fail(violations))
}

/// The kind, if it and the version are known.
fn head(map: &Map<String, Value>) -> Result<String, Violation> {
    let kind = match map.get("kind") {
        Some(Value::String(kind)) if Resource::KINDS.contains(&kind.as_str()) => kind.clone(),
        Some(kind) => {
            let known = Resource::KINDS.join(", ");
            let kind = kind.as_str().map_or_else(|| quoted(&kind.to_string()), quoted);
            return Err(Violation::invalid("kind", format!("unknown kind {kind}; there are {known}")));
        }
        None => return Err(Violation::invalid("kind", "missing")),
    };
    match map.get("apiVersion") {
        Some(Value::String(v)) if v == API_VERSION => Ok(kind),
        Some(v) => {
            let v = v.as_str().map_or_else(|| quoted(&v.to_string()), quoted);
            Err(Violation::invalid("apiVersion", format!("unknown version {v}; {kind} is of {API_VERSION}")))
        }
        None => Err(Violation::invalid("apiVersion", format!("missing; {kind} is of {API_VERSION}"))),
    }
}

/// Leaves in the metadata what a user may say, and reports what nobody knows.
fn clean_metadata(map: &mut Map<String, Value>, kind: &str) -> Vec<Violation> {
    let Some(Value::Object(metadata)) = map.get_mut("metadata") else { return Vec::new() };
    metadata.retain(|key, _| !MANAGED_METADATA.contains(&key.as_str()));
    if Resource::is_cluster_scoped(kind) {
        metadata.remove("namespace");
    }
    let unknown: Vec<String> = metadata.keys().filter(|k| !USER_METADATA.contains(&k.as_str())).cloned().collect();
    for key in &unknown {
        metadata.remove(key);
    }
    unknown.iter().take(MAX_UNKNOWN).map(|key| fields::unknown(kind, "metadata", key)).collect()
}

/// As the API server does: a field that is null was not given. Not within a class's own settings.
fn strip_nulls(value: &mut Value, has_settings: bool) {
    let settings = match has_settings {
        true => value.pointer_mut("/spec/config").map(Value::take),
        false => None,
    };
    strip(value);
    if let (Some(settings), Some(Value::Object(spec))) = (settings.filter(|s| !s.is_null()), value.get_mut("spec")) {
        spec.insert("config".to_owned(), settings);
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Reads the type. Unknown fields are taken out one after the other, so that all of them are reported.
fn typed<T: DeserializeOwned>(mut value: Value, kind: &str, violations: &mut Vec<Violation>) -> Option<T> {
    for _ in 0..=MAX_UNKNOWN {
        let error = match serde_path_to_error::deserialize::<_, T>(&value) {
            Ok(object) => return Some(object),
            Err(error) => error,
        };
        let problem = fields::Problem::from(&error);
        violations.push(problem.violation(kind));
        if !problem.remove_from(&mut value) {
            return None;
        }
    }
    None
}

/// Bytes of the value as compact JSON, counted without writing it.
fn size_of(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}

/// `kind/name` as far as the object says them.
fn object_label(value: &Value) -> String {
    let text =
        |pointer| value.pointer(pointer).and_then(Value::as_str).filter(|s| is_subdomain(&s.to_ascii_lowercase()));
    let kind = text("/kind").unwrap_or("object");
    super::label(kind, text("/metadata/namespace").unwrap_or_default(), text("/metadata/name").unwrap_or("?"))
}
