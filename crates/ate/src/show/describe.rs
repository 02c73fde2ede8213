//! `ate describe`: one object in full, for people.

use std::fmt::Write as _;

use ate_api::time::Timestamp;
use serde_json::Value;

use super::human::{age_of, size};
use crate::client::Object;

/// Width of the labels before their values.
const LABEL: usize = 28;

/// Metadata, spec, status, then conditions and events as tables.
pub(crate) fn describe(object: &Object, now: Timestamp) -> String {
    let mut out = String::new();
    let v = &object.value;
    let mut line = |label: &str, value: &str| {
        let label = if label.is_empty() { String::new() } else { format!("{label}:") };
        let _ = writeln!(out, "{label:LABEL$}{value}");
    };
    line("Name", &object.name);
    if !object.namespace.is_empty() {
        line(if object.kind == crate::kind::Kind::Actor { "Atespace" } else { "Namespace" }, &object.namespace);
    }
    line("Kind", object.kind.name());
    if !object.uid.is_empty() {
        line("UID", &object.uid);
    }
    if let Some(created) = v["metadata"]["creationTimestamp"].as_str() {
        line("Created", &format!("{created} ({} ago)", age_of(created, now)));
    }
    let labels = v["metadata"]["labels"].as_object().into_iter().flatten();
    for (i, (key, value)) in labels.enumerate() {
        line(if i == 0 { "Labels" } else { "" }, &format!("{key}={}", plain(value)));
    }
    for (title, part) in [("Spec", &v["spec"]), ("Status", &v["status"])] {
        let Some(map) = part.as_object().filter(|m| !m.is_empty()) else { continue };
        let _ = writeln!(out, "{title}:");
        for (key, value) in map.iter().filter(|(k, _)| !matches!(k.as_str(), "conditions" | "events")) {
            field(&mut out, 1, &words(key), value);
        }
    }
    table(
        &mut out,
        "Conditions",
        &v["status"]["conditions"],
        now,
        &[
            ("TYPE", "type"),
            ("STATUS", "status"),
            ("REASON", "reason"),
            ("AGE", "lastTransitionTime"),
            ("MESSAGE", "message"),
        ],
    );
    table(
        &mut out,
        "Events",
        &v["status"]["events"],
        now,
        &[("AGE", "time"), ("REASON", "reason"), ("MESSAGE", "message")],
    );
    out
}

/// A value below a label; maps and lists go on indented lines of their own.
fn field(out: &mut String, depth: usize, label: &str, value: &Value) {
    let indent = "  ".repeat(depth);
    // However long a label is, its value stands apart from it.
    let width = LABEL.saturating_sub(indent.len()).max(label.chars().count() + 2);
    match value {
        Value::Object(map) if map.is_empty() => {
            let _ = writeln!(out, "{indent}{:width$}{{}}", format!("{label}:"));
        }
        Value::Object(map) => {
            let _ = writeln!(out, "{indent}{label}:");
            for (key, value) in map {
                field(out, depth + 1, key, value);
            }
        }
        Value::Array(list) if list.iter().all(|v| !v.is_object() && !v.is_array()) => {
            let text = list.iter().map(plain).collect::<Vec<_>>().join(", ");
            let _ = writeln!(out, "{indent}{:width$}{text}", format!("{label}:"));
        }
        Value::Array(list) => {
            let _ = writeln!(out, "{indent}{label}:");
            for (i, value) in list.iter().enumerate() {
                // What has a name is called by it.
                let label = value["name"].as_str().map_or_else(|| format!("[{i}]"), str::to_owned);
                field(out, depth + 1, &label, value);
            }
        }
        Value::Null => {}
        value => {
            let text = match (label, value.as_u64()) {
                ("Size" | "size", Some(bytes)) => format!("{} ({bytes} bytes)", size(bytes)),
                _ => plain(value),
            };
            let _ = writeln!(out, "{indent}{:width$}{text}", format!("{label}:"));
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `sandboxConfig` → `Sandbox Config`, `goldenActorID` → `Golden Actor ID`.
fn words(key: &str) -> String {
    if key == "url" {
        return "URL".to_owned();
    }
    let mut out = String::new();
    for c in key.chars() {
        match out.chars().last() {
            None => out.extend(c.to_uppercase()),
            Some(before) if c.is_uppercase() && !before.is_uppercase() => out.extend([' ', c]),
            Some(_) => out.push(c),
        }
    }
    out
}

fn table(out: &mut String, title: &str, list: &Value, now: Timestamp, columns: &[(&'static str, &str)]) {
    let Some(list) = list.as_array().filter(|l| !l.is_empty()) else { return };
    let cell = |item: &Value, title: &str, key: &str| match title {
        "AGE" => age_of(item[key].as_str().unwrap_or_default(), now),
        _ => item[key].as_str().unwrap_or_default().to_owned(),
    };
    let rows: Vec<Vec<String>> =
        list.iter().map(|item| columns.iter().map(|(title, key)| cell(item, title, key)).collect()).collect();
    let header = columns.iter().map(|(title, _)| *title).collect();
    let _ = writeln!(out, "{title}:");
    for line in super::table::Table::new(header).print(&rows).lines() {
        let _ = writeln!(out, "  {line}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kind::Kind;

    #[test]
    fn a_description_shows_spec_status_conditions_and_events() {
        let value = json!({
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"team": "a"}},
            "spec": {"sandboxClass": "gvisor", "goldenActorID": "x", "containers": [{"name": "app", "image": "x"}], "ports": [80, 81]},
            "status": {
                "size": 2048, "empty": null,
                "conditions": [{"type": "Ready", "status": "False", "reason": "Fetching", "message": "3 of 9 MiB",
                    "lastTransitionTime": "2026-01-01T00:01:00Z"}],
                "events": [{"time": "2026-01-01T00:02:00Z", "reason": "WorkerLost", "message": "activation 3 was lost"}],
            },
        });
        let object =
            Object { kind: Kind::Actor, namespace: "default".into(), name: "a".into(), uid: "u".into(), value };
        let text = describe(&object, "2026-01-01T00:03:00Z".parse().unwrap());
        for line in [
            "Name:                       a",
            "Atespace:                   default",
            "Labels:                     team=a",
            "Created:                    2026-01-01T00:00:00Z (3m ago)",
            "  Sandbox Class:            gvisor",
            "  Golden Actor ID:          x",
            "    app:",
            "      image:                x",
            "  Ports:                    80, 81",
            "  Size:                     2.0KiB (2048 bytes)",
            "  Ready   False    Fetching   2m    3 of 9 MiB",
            "  60s   WorkerLost   activation 3 was lost",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        }
    }
}
