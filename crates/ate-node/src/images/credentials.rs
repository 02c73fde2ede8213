//! Credentials for registries, from the file that `docker login` and `podman login` write.

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

/// Such a file has a few lines.
const MAX_FILE: u64 = 1 << 20;

/// User and password for a registry; `None` when nobody logged in, or the file cannot be read.
/// Looks at `$REGISTRY_AUTH_FILE`, then `$DOCKER_CONFIG/config.json`, then `~/.docker/config.json`.
pub(super) async fn find(registry: &str) -> Option<(String, String)> {
    let path = env::var_os("REGISTRY_AUTH_FILE")
        .map(PathBuf::from)
        .or_else(|| env::var_os("DOCKER_CONFIG").map(|dir| Path::new(&dir).join("config.json")))
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".docker/config.json")))?;
    let size = tokio::fs::metadata(&path).await.ok()?.len();
    if size > MAX_FILE {
        tracing::warn!(path = %path.display(), size, "ignoring an overlong file of registry credentials");
        return None;
    }
    let found = in_file(&tokio::fs::read(&path).await.ok()?, registry);
    found
        .inspect_err(|e| tracing::warn!(path = %path.display(), error = %e, "cannot read registry credentials"))
        .ok()?
}

pub(super) fn in_file(bytes: &[u8], registry: &str) -> Result<Option<(String, String)>, serde_json::Error> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        auths: HashMap<String, Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        auth: String,
    }
    let file: File = serde_json::from_slice(bytes)?;
    // Docker writes its own registry under an old URL.
    let old_name = if registry == "index.docker.io" { "https://index.docker.io/v1/" } else { registry };
    let entry = file.auths.get(registry).or_else(|| file.auths.get(old_name));
    let decoded = entry.and_then(|e| BASE64_STANDARD.decode(&e.auth).ok());
    let text = decoded.and_then(|d| String::from_utf8(d).ok());
    Ok(text.and_then(|t| t.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_of_that_registry_alone() {
        let file = br#"{"auths": {"r.example.org": {"auth": "dXNlcjpwYTpzcw=="}, "other": {}}, "credsStore": "x"}"#;
        assert_eq!(in_file(file, "r.example.org").unwrap(), Some(("user".into(), "pa:ss".into())));
        assert_eq!(in_file(file, "other").unwrap(), None);
        assert_eq!(in_file(file, "example.org").unwrap(), None);
        assert!(in_file(b"{", "other").is_err());
    }
}
