//! The configuration format of this class. The defaults are part of it: `describe` publishes both.

use serde::{Deserialize, Serialize};

/// Which program runs the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Vmm {
    #[default]
    Qemu,
}

/// The machine type: few devices, no PCI, boots the kernel directly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Machine {
    #[default]
    Microvm,
}

/// Who executes the guest's instructions. A snapshot is only good for the one it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Accelerator {
    /// KVM where a guest has been seen to run under it, else TCG.
    #[default]
    Auto,
    Kvm,
    Tcg,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) vmm: Vmm,
    pub(crate) machine: Machine,
    pub(crate) accelerator: Accelerator,
    #[serde(rename = "memoryMiB")]
    pub(crate) memory_mib: u32,
    pub(crate) cpus: u32,
    /// A CPU model of the VMM; the guest sees no other features, wherever it runs.
    pub(crate) cpu: String,
    pub(crate) kernel_args: String,
    pub(crate) debug_log: bool,
}

/// Less and the guest's kernel does not come up.
pub(crate) const MIN_MEMORY_MIB: i64 = 96;
pub(crate) const MAX_MEMORY_MIB: i64 = 64 << 10;
pub(crate) const MAX_CPUS: i64 = 16;
/// Of `cpu` and of `kernelArgs`, in bytes.
pub(crate) const MAX_CPU: u32 = 256;
pub(crate) const MAX_KERNEL_ARGS: u32 = 1024;

impl Default for Config {
    fn default() -> Self {
        Config {
            vmm: Vmm::default(),
            machine: Machine::default(),
            accelerator: Accelerator::default(),
            memory_mib: 256,
            cpus: 1,
            cpu: "qemu64".to_owned(),
            kernel_args: String::new(),
            debug_log: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use ate_api::Error;
    use ateom::driver::Sandbox;

    use super::*;

    fn parse(json: impl Into<Vec<u8>>) -> Result<Config, Error> {
        ateom::config::of(&Sandbox::with_config(json))
    }

    #[test]
    fn fuzz_configurations() {
        ate_fuzz::Target::named("microvm.config")
            .sample("full", || serde_json::to_vec(&Config::default()).unwrap())
            .run(|bytes| {
                let config = parse(bytes)?;
                assert_eq!(parse(serde_json::to_vec(&config).unwrap()), Ok(config));
                Ok::<_, Error>(())
            });
    }
}
