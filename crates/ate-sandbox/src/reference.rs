//! A fully pinned sandbox: class, configuration revision and the digests of its binaries.

use ate_api::{canonical, id::Digest};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Names exactly one set of binaries and settings. Written into manifests; two that are equal behave equally.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxRef {
    pub class: String,
    pub config: ConfigRef,
    /// For this machine's architecture, ordered by name.
    pub assets: Vec<PinnedAsset>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigRef {
    pub name: String,
    pub revision: u64,
    /// sha256 of the canonical JSON of `values`.
    pub digest: Digest,
    /// Complete: defaults of the class are filled in.
    pub values: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PinnedAsset {
    pub name: String,
    pub sha256: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub media_type: String,
    /// Where it can be had; tried in order.
    pub urls: Vec<String>,
}

impl SandboxRef {
    /// Equal for two that run the same bytes under the same settings, whatever their configurations are called and
    /// wherever the bytes come from. What was prepared for one is good for the other.
    pub fn key(&self) -> Digest {
        let mut assets: Vec<_> = self.assets.iter().map(|a| (&a.name, &a.sha256, &a.media_type)).collect();
        assets.sort_unstable();
        canonical::digest(&json!({ "class": self.class, "config": self.config.digest, "assets": assets }))
    }

    /// `name@revision`, for people.
    pub fn config_label(&self) -> String {
        format!("{}@{}", self.config.name, self.config.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> SandboxRef {
        let asset = |name: &str| PinnedAsset {
            name: name.into(),
            sha256: Digest::of(name.as_bytes()),
            size: None,
            media_type: crate::asset::PLAIN.into(),
            urls: vec!["file:///a".into()],
        };
        let config =
            ConfigRef { name: "a".into(), revision: 1, digest: Digest::of(b"{}"), values: serde_json::Map::new() };
        SandboxRef { class: "toy".into(), config, assets: vec![asset("kernel"), asset("vmm")] }
    }

    #[test]
    fn a_preparation_fits_whatever_runs_the_same_bytes_under_the_same_settings() {
        let (a, mut b) = (reference(), reference());
        (b.config.name, b.config.revision) = ("b".into(), 7);
        b.assets[0].urls = vec!["https://elsewhere.example/a".into()];
        b.assets.reverse();
        assert_eq!(a.key(), b.key());
    }

    #[test]
    fn a_preparation_fits_nothing_else() {
        let a = reference();
        let mut others = [reference(), reference(), reference(), reference()];
        others[0].class = "other".into();
        others[1].config.digest = Digest::of(b"other");
        others[2].assets[1].sha256 = Digest::of(b"other");
        others[3].assets.pop();
        assert!(others.iter().all(|b| b.key() != a.key()));
    }
}
