//! How objects are shown: tables, descriptions, JSON, YAML and names.

pub(crate) mod columns;
pub(crate) mod describe;
pub(crate) mod explain;
pub(crate) mod human;
pub(crate) mod table;

use std::io::Write as _;

use serde_json::{Value, json};

use crate::client::Object;

/// `-o`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// One line for each object.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// The objects as the server has them.
    Json,
    Yaml,
    /// KIND/NAME, for scripts.
    Name,
}

/// Prints to stdout; a reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Objects in one of the forms that are not tables. One object stands alone, several become a List.
pub(crate) fn document(objects: &[Object], output: Output, single: bool) -> String {
    if output == Output::Name {
        return objects.iter().map(|o| format!("{}\n", o.label())).collect();
    }
    let value = match objects {
        [one] if single => one.value.clone(),
        _ => json!({
            "apiVersion": "v1",
            "kind": "List",
            "items": objects.iter().map(|o| o.value.clone()).collect::<Vec<_>>(),
        }),
    };
    render(&value, output)
}

/// One value as JSON or YAML.
pub(crate) fn render(value: &Value, output: Output) -> String {
    match output {
        Output::Yaml => serde_saphyr::to_string(value).unwrap_or_default(),
        _ => format!("{value:#}\n"),
    }
}
