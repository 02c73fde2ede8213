//! What the class is: printed by `describe`, read by the control plane and the node agent.

use std::collections::BTreeMap;

use ate_sandbox::{AssetRequirement, ClassDescriptor, ConfigField, FieldType, HostNeeds, ImageFormat, Isolation};
use serde_json::Value;

use crate::config::Config;

pub(crate) const CLASS: &str = "gvisor";
pub(crate) const DRIVER: &str = "ateom-gvisor";
/// Name of the one asset: the runsc binary.
pub(crate) const ASSET: &str = "runsc";

pub(crate) fn descriptor() -> ClassDescriptor {
    ClassDescriptor {
        name: CLASS.into(),
        driver_name: DRIVER.into(),
        driver_version: env!("CARGO_PKG_VERSION").into(),
        contract_version: ateom::CONTRACT_VERSION,
        required_assets: vec![AssetRequirement {
            name: ASSET.into(),
            media_types: vec!["application/octet-stream".into()],
            description: "gVisor's runsc, a static executable".into(),
            found_on_path_as: "runsc".into(),
        }],
        config: fields(),
        host_needs: HostNeeds {
            programs: vec!["nft".into()],
            capabilities: ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE"].map(String::from).to_vec(),
            ..HostNeeds::default()
        },
        image_format: ImageFormat::Layers,
        isolation: Isolation::Sandbox,
    }
}

fn fields() -> BTreeMap<String, ConfigField> {
    let choice = |values: &[&str]| FieldType::Choice { values: values.iter().map(|v| (*v).to_owned()).collect() };
    let described = [
        (
            "platform",
            choice(&["auto", "systrap", "ptrace", "kvm"]),
            "how system calls are intercepted; auto: systrap where the binary has it, else ptrace",
        ),
        (
            "rootfsOverlay",
            choice(&["memory", "disk"]),
            "where writes to the root filesystem live while the actor runs; snapshots hold them either way",
        ),
        ("directfs", FieldType::Boolean, "open files without asking the gofer each time, where the binary can"),
        ("gso", FieldType::Boolean, "segmentation offload on the actor's network interface"),
        (
            "netDisconnect",
            FieldType::Boolean,
            "cut open connections when a snapshot is taken, where the binary can; otherwise it fails while any is open",
        ),
        ("netRaw", FieldType::Boolean, "allow raw sockets inside, for ping and the like"),
        (
            "compression",
            choice(&["none", "flate-best-speed"]),
            "runsc's own compression of snapshots; none is several times faster",
        ),
        ("debugLog", FieldType::Boolean, "write runsc's debug logs to the worker's directory; slow and large"),
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
