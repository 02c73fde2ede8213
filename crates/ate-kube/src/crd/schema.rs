//! From a Rust type to a structural schema, and the way to one place in it.

use schemars::{JsonSchema, generate::SchemaSettings, transform::AddNullable};
use serde_json::{Map, Value};

/// What JSON Schema says and Kubernetes has no use for, or refuses beside `properties`.
const LEFT_OUT: [&str; 3] = ["$schema", "title", "additionalProperties"];
/// The formats of numbers that Kubernetes knows.
const FORMATS: [&str; 4] = ["int32", "int64", "double", "date-time"];

/// The schema of a type, without references.
pub(super) fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::openapi3().with(|s| {
        s.inline_subschemas = true;
        s.meta_schema = None;
    });
    let generator = settings
        .with_transform(AddNullable::default())
        .with_transform(kube_core::schema::StructuralSchemaRewriter)
        .with_transform(kube_core::schema::OptionalEnum)
        .into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    tidy(&mut schema);
    schema
}

fn tidy(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        // `true`: anything.
        *schema = serde_json::json!({"x-kubernetes-preserve-unknown-fields": true});
        return;
    };
    let is_map = map.get("additionalProperties").is_some_and(|a| a.is_object()) && !map.contains_key("properties");
    for key in LEFT_OUT.iter().filter(|key| !(is_map && **key == "additionalProperties")) {
        map.remove(*key);
    }
    if map.get("format").and_then(Value::as_str).is_some_and(|f| !FORMATS.contains(&f)) {
        map.remove("format");
    }
    if map.get("default").is_some_and(Value::is_null) {
        map.remove("default");
    }
    one_of_several(map);
    if map.is_empty() {
        map.insert("x-kubernetes-preserve-unknown-fields".to_owned(), true.into());
    }
    let required = map.get("required").cloned();
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            tidy(property);
            optional(
                property,
                required.as_ref().is_some_and(|r| r.as_array().is_some_and(|r| r.contains(&name.as_str().into()))),
            );
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            tidy(inner);
        }
    }
}

/// A field that may be left out may be null, as on one machine; one with a default gets that then.
fn optional(property: &mut Value, required: bool) {
    let Some(map) = property.as_object_mut() else { return };
    if required || map.contains_key("default") {
        map.remove("nullable");
    } else {
        map.insert("nullable".to_owned(), true.into());
    }
}

/// An optional struct comes as `allOf` or `anyOf` with one branch that says something.
fn one_of_several(map: &mut Map<String, Value>) {
    for key in ["allOf", "anyOf"] {
        let Some(Value::Array(branches)) = map.remove(key) else { continue };
        for branch in branches {
            let Value::Object(branch) = branch else { continue };
            if branch.get("enum") == Some(&Value::Array(vec![Value::Null])) {
                continue;
            }
            for (name, value) in branch {
                map.entry(name).or_insert(value);
            }
        }
    }
}

pub(super) fn remove_defaults(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("default");
    for key in ["items", "additionalProperties"] {
        map.get_mut(key).into_iter().for_each(remove_defaults);
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(remove_defaults);
    }
}

/// Adds to the schema at a path: `a.b` is a property, `a[]` the items of a list, `a{}` the values of a map.
///
/// # Panics
/// When there is no such place: a rule that holds nowhere is a mistake of this crate.
pub(super) fn add(schema: &mut Value, path: &str, rule: Value) {
    let mut place = schema;
    for word in path.split('.').filter(|w| !w.is_empty()) {
        let name = word.trim_end_matches(['[', ']', '{', '}']);
        if !name.is_empty() {
            place = &mut place["properties"][name];
        }
        let mut rest = &word[name.len()..];
        while !rest.is_empty() {
            place = if rest.starts_with("[]") { &mut place["items"] } else { &mut place["additionalProperties"] };
            rest = &rest[2..];
        }
    }
    let place = place.as_object_mut().filter(|p| !p.is_empty()).unwrap_or_else(|| panic!("no schema at {path}"));
    let Value::Object(rule) = rule else { return };
    for (key, value) in rule {
        match (place.get_mut(&key), value) {
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
            (_, value) => drop(place.insert(key, value)),
        }
    }
}
