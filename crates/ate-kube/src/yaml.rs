//! Manifests as text.

use serde_json::Value;

/// Documents one after the other, as `kubectl apply -f` takes them.
pub(crate) fn documents<'a>(objects: impl IntoIterator<Item = &'a Value>) -> String {
    objects
        .into_iter()
        .map(|o| format!("---\n{}\n", serde_saphyr::to_string(o).unwrap_or_default().trim_end()))
        .collect()
}
