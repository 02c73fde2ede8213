//! `ate describe`: objects in full, with conditions and events; for a snapshot also its manifest.

use ate_api::time::now;
use clap::Args;
use serde_json::Value;

use super::get::find;
use crate::{
    cli::Global,
    client::Client,
    failure::Outcome,
    kind::Kind,
    show::{describe, print},
    target,
};

/// Show objects in full, for people.
///
/// Of a snapshot it also shows the manifest: everything that is needed to use it.
#[derive(Args)]
#[command(after_help = "Examples:
  ate describe actor a
  ate describe sandboxconfig gvisor-default
  ate describe snapshot 3f9a2c             with its manifest
  ate describe templates")]
pub(crate) struct Describe {
    /// KIND, KIND NAME… or KIND/NAME ….
    #[arg(required = true, value_name = "KIND [NAME]")]
    what: Vec<String>,
}

impl Describe {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        let targets = target::parse(&self.what, &global.spaces)?;
        let client = Client::connect(&global.server).await?;
        let mut texts = Vec::new();
        for target in &targets {
            let objects = match &target.name {
                Some(_) => vec![find(&client, target).await?],
                None => client.list(target.kind, &target.space).await?,
            };
            for object in objects {
                let mut text = describe::describe(&object, now());
                if object.kind == Kind::Snapshot && target.name.is_some() {
                    let manifest = client.manifest(&object.name).await?;
                    text += "Manifest:\n";
                    text += &indented(&manifest);
                }
                texts.push(text);
            }
        }
        print(&texts.join("\n"));
        Ok(())
    }
}

/// The manifest as it is stored, only with line breaks.
fn indented(manifest: &[u8]) -> String {
    match serde_json::from_slice(manifest) {
        Ok(value) => format!("  {}\n", broken(&value, 1)),
        Err(_) => format!("  {}\n", String::from_utf8_lossy(manifest)),
    }
}

/// JSON with a line for each field. Lists of plain words stay on one: a CPU has a hundred features.
fn broken(value: &Value, depth: usize) -> String {
    let (open, close, parts): (_, _, Vec<String>) = match value {
        Value::Object(map) => {
            let part = |(key, value): (&String, &Value)| {
                format!("{}: {}", Value::from(key.as_str()), broken(value, depth + 1))
            };
            ('{', '}', map.iter().map(part).collect())
        }
        Value::Array(list) if list.iter().any(|v| v.is_object() || v.is_array()) => {
            ('[', ']', list.iter().map(|value| broken(value, depth + 1)).collect())
        }
        plain => return plain.to_string(),
    };
    if parts.is_empty() {
        return format!("{open}{close}");
    }
    let indent = "  ".repeat(depth);
    format!("{open}\n{indent}  {}\n{indent}{close}", parts.join(&format!(",\n{indent}  ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_manifest_is_shown_a_field_a_line_and_stays_json() {
        let manifest = json!({"a": {"b": [], "c": ["x", "y\n"]}, "files": [{"size": 3}, {}], "n": null});
        let text = indented(manifest.to_string().as_bytes());
        let expected = r#"  {
    "a": {
      "b": [],
      "c": ["x","y\n"]
    },
    "files": [
      {
        "size": 3
      },
      {}
    ],
    "n": null
  }
"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), manifest);
    }
}
