//! The configuration format of this class. The defaults are part of it: `describe` publishes both.

use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use ate_api::{Error, Reason};
    use ateom::driver::Sandbox;

    use super::*;

    fn parse(json: impl Into<Vec<u8>>) -> Result<Config, Error> {
        ateom::config::of(&Sandbox::with_config(json))
    }

    #[test]
    fn an_empty_configuration_means_the_defaults() {
        assert_eq!(parse("{}").unwrap(), Config::default());
    }

    #[test]
    fn fuzz_configurations() {
        ate_fuzz::Target::named("gvisor.config")
            .sample("full", || serde_json::to_vec(&Config::default()).unwrap())
            .run(|bytes| {
                let config = parse(bytes)?;
                assert_eq!(parse(serde_json::to_vec(&config).unwrap()), Ok(config));
                Ok::<_, Error>(())
            });
    }

    #[test]
    fn unknown_keys_and_ill_typed_values_are_refused() {
        for bad in [r#"{"plattform":"kvm"}"#, r#"{"platform":"vmware"}"#, r#"{"gso":"yes"}"#, "[]", "{"] {
            assert_eq!(parse(bad).unwrap_err().reason, Reason::Invalid, "{bad}");
        }
    }
}
