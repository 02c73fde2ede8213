//! The configuration format of this class. The defaults are part of it: `describe` publishes both.

use ate_api::{Error, Reason};
use ateom::driver::Sandbox;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A configuration is a handful of words.
const MAX_CONFIG: usize = 64 * 1024;

/// How runsc intercepts system calls. A snapshot is only good for the platform it was made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Platform {
    /// systrap where the binary has it, else ptrace: always the same for the same binary.
    #[default]
    Auto,
    Systrap,
    Ptrace,
    Kvm,
}

/// Where what an actor writes to its root filesystem lives. Both are saved in snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RootfsOverlay {
    #[default]
    Memory,
    Disk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Compression {
    #[default]
    None,
    FlateBestSpeed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) platform: Platform,
    pub(crate) rootfs_overlay: RootfsOverlay,
    pub(crate) directfs: bool,
    pub(crate) gso: bool,
    pub(crate) net_disconnect: bool,
    pub(crate) net_raw: bool,
    pub(crate) compression: Compression,
    pub(crate) debug_log: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            platform: Platform::default(),
            rootfs_overlay: RootfsOverlay::default(),
            directfs: true,
            gso: true,
            net_disconnect: true,
            net_raw: false,
            compression: Compression::default(),
            debug_log: false,
        }
    }
}

impl Config {
    /// Reads the configuration of a sandbox; refuses one whose bytes are not those the digest names.
    pub(crate) fn of(sandbox: &Sandbox) -> Result<Self, Error> {
        let object = format!("sandboxconfig/{}", sandbox.config_name);
        if sandbox.config_json.len() > MAX_CONFIG {
            return Err(Error::new(Reason::Invalid, "the configuration is larger than 64 KiB").on(object));
        }
        if hex::encode(Sha256::digest(&sandbox.config_json)) != sandbox.config_digest {
            let message = "the configuration's bytes do not have the digest it came with";
            return Err(Error::new(Reason::Invalid, message).on(object));
        }
        Self::parse(&sandbox.config_json).map_err(|e| e.on(object))
    }

    pub(crate) fn parse(json: &[u8]) -> Result<Self, Error> {
        // By way of a map: a list of values in the right order would do otherwise.
        let map = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(json);
        map.and_then(|map| serde_json::from_value(map.into())).map_err(|e| {
            Error::new(Reason::Invalid, format!("not a configuration of class gvisor: {e}"))
                .hint("`ateom-gvisor describe` lists the keys and what they may be")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_configuration_means_the_defaults() {
        assert_eq!(Config::parse(b"{}").unwrap(), Config::default());
    }

    #[test]
    fn unknown_keys_and_ill_typed_values_are_refused() {
        for bad in [r#"{"plattform":"kvm"}"#, r#"{"platform":"vmware"}"#, r#"{"gso":"yes"}"#, "[]", "{"] {
            assert_eq!(Config::parse(bad.as_bytes()).unwrap_err().reason, Reason::Invalid, "{bad}");
        }
    }

    #[test]
    fn bytes_that_differ_from_the_digest_are_refused() {
        let json = b"{}".to_vec();
        let config_digest = hex::encode(Sha256::digest(&json));
        let mut sandbox = Sandbox { config_json: json, config_digest, ..Sandbox::default() };
        Config::of(&sandbox).unwrap();
        sandbox.config_json = b"{\"gso\":false}".to_vec();
        assert!(Config::of(&sandbox).unwrap_err().message.contains("digest"));
    }
}
