//! The components' certificates as Kubernetes secrets, in the form cert-manager gives them, and the authority for clients.

use std::path::Path;

use ate_api::{Error, Reason};
use base64::Engine as _;
use serde_json::{Value, json};

use super::{
    component::Component,
    files::{AUTHORITY, CERTIFICATE, KEY, read},
};

/// Where clients find whom to trust; it holds nothing secret.
/// The config map that tells clients whom to trust.
pub(crate) const AUTHORITY_MAP: &str = "ate-ca";

/// One list, so that it can go into `kubectl apply` as it is.
pub(crate) fn objects(dir: &Path, namespace: &str, bundle: &str) -> Result<Value, Error> {
    let mut items = vec![json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": AUTHORITY_MAP, "namespace": namespace, "labels": labels()},
        "data": {AUTHORITY: bundle},
    })];
    for component in Component::ALL {
        let file = |name: &str| {
            let path = dir.join(component.name()).join(name);
            let text = read(&path)?;
            let text = text.ok_or_else(|| Error::new(Reason::NotFound, format!("{} is missing", path.display())))?;
            Ok::<_, Error>(base64::engine::general_purpose::STANDARD.encode(text))
        };
        items.push(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": secret(component), "namespace": namespace, "labels": labels()},
            "data": {AUTHORITY: file(AUTHORITY)?, CERTIFICATE: file(CERTIFICATE)?, KEY: file(KEY)?},
        }));
    }
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

/// As the manifests mount it.
fn secret(component: Component) -> String {
    format!("ate-{}-tls", component.name())
}

fn labels() -> Value {
    json!({"app.kubernetes.io/part-of": "agent-substrate"})
}
