//! What the class is: printed by `describe`, read by the control plane and the node agent.

use std::collections::BTreeMap;

use ate_sandbox::{
    AssetRequirement, ClassDescriptor, ConfigField, FieldType, HostNeeds, ImageFormat, Isolation, asset,
};
use serde_json::Value;

use crate::config::{Config, MAX_CPU, MAX_CPUS, MAX_KERNEL_ARGS, MAX_MEMORY_MIB, MIN_MEMORY_MIB};

pub(crate) const CLASS: &str = "microvm";
pub(crate) const DRIVER: &str = "ateom-microvm";
/// QEMU with its firmware and libraries: a directory, see `collect`.
pub(crate) const VMM: &str = "vmm";
/// The guest's kernel, an uncompressed ELF file with a PVH entry point.
pub(crate) const KERNEL: &str = "kernel";
/// The guest's first filesystem: the guest agent as init, and the kernel's modules.
pub(crate) const INITRD: &str = "initrd";

pub(crate) fn descriptor() -> ClassDescriptor {
    let required = |name: &str, media_type: &str, description: &str| AssetRequirement {
        name: name.into(),
        media_types: vec![media_type.into()],
        description: description.into(),
        found_on_path_as: String::new(),
    };
    ClassDescriptor {
        name: CLASS.into(),
        driver_name: DRIVER.into(),
        driver_version: env!("CARGO_PKG_VERSION").into(),
        contract_version: ateom::CONTRACT_VERSION,
        required_assets: vec![
            required(VMM, asset::TAR, "QEMU with its firmware and libraries"),
            required(KERNEL, asset::PLAIN, "the guest's kernel, an uncompressed ELF file"),
            required(INITRD, asset::PLAIN, "the guest's first filesystem: guest agent and kernel modules"),
        ],
        config: fields(),
        host_needs: HostNeeds {
            devices: vec!["/dev/net/tun".into()],
            programs: vec!["nft".into(), "mkfs.erofs".into()],
            capabilities: ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"].map(String::from).to_vec(),
            ..HostNeeds::default()
        },
        image_format: ImageFormat::Erofs,
        isolation: Isolation::Sandbox,
    }
}

fn fields() -> BTreeMap<String, ConfigField> {
    let choice = |values: &[&str]| FieldType::Choice { values: values.iter().map(|v| (*v).to_owned()).collect() };
    let described = [
        ("vmm", choice(&["qemu"]), "the program that runs the machine"),
        ("machine", choice(&["microvm"]), "the machine type"),
        (
            "accelerator",
            choice(&["auto", "kvm", "tcg"]),
            "who executes the guest; auto: kvm where a guest has been seen to run under it, else tcg (software)",
        ),
        (
            "memoryMiB",
            FieldType::Integer { min: MIN_MEMORY_MIB, max: MAX_MEMORY_MIB },
            "memory of the machine; what the actor writes to files lives in it as well",
        ),
        ("cpus", FieldType::Integer { min: 1, max: MAX_CPUS }, "virtual CPUs"),
        (
            "cpu",
            FieldType::Text { max_bytes: MAX_CPU },
            "CPU model as the VMM names it; never one that means whatever the host has",
        ),
        (
            "kernelArgs",
            FieldType::Text { max_bytes: MAX_KERNEL_ARGS },
            "more words for the guest kernel's command line",
        ),
        ("debugLog", FieldType::Boolean, "keep the guest's console in the herder's log"),
    ];
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let field = |(name, r#type, description): (&str, FieldType, &str)| {
        let default = defaults.get(name).cloned().unwrap_or(Value::Null);
        (name.to_owned(), ConfigField { r#type, default, description: description.to_owned() })
    };
    described.into_iter().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_format_is_described_with_the_default_it_has() {
        let described: BTreeMap<_, _> = fields().into_iter().map(|(k, f)| (k, f.default)).collect();
        let actual = serde_json::to_value(Config::default()).unwrap();
        let actual: BTreeMap<_, _> = actual.as_object().unwrap().clone().into_iter().collect();
        assert_eq!(described, actual);
    }
}
