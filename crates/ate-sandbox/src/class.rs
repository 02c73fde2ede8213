//! A class describes itself: `ateom-NAME describe` prints a [`ClassDescriptor`] as JSON. Nobody else
//! knows what is particular to it, so a new class is a new herder binary and nothing more.

use std::collections::BTreeMap;

use ate_api::{Error, Reason};
use serde::{Deserialize, Serialize};

/// What a herder says of its class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassDescriptor {
    /// As in `sandboxClass`; a DNS label.
    pub name: String,
    pub driver_name: String,
    pub driver_version: String,
    /// Version of the driver contract the herder speaks.
    pub contract_version: u32,
    pub required_assets: Vec<AssetRequirement>,
    /// The class's own configuration format: key → what it may be.
    pub config: BTreeMap<String, ConfigField>,
    pub host_needs: HostNeeds,
    /// The form it takes images in.
    #[serde(default)]
    pub image_format: ImageFormat,
    /// What keeps its actors in.
    #[serde(default)]
    pub isolation: Isolation,
}

/// What stands between an actor and the node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// The sandbox that the class is for.
    #[default]
    Sandbox,
    /// Nothing to speak of: actors are processes of the node. Never anybody's default.
    None,
}

impl ClassDescriptor {
    /// Whether the class, or a configuration of it, may be given to those who name none.
    ///
    /// # Errors
    /// `NOT_A_SANDBOX` if it keeps nobody in: whoever wants that has to say so.
    pub fn may_be_default(&self) -> Result<(), Error> {
        match self.isolation {
            Isolation::Sandbox => Ok(()),
            Isolation::None => {
                let message = format!("class {} is no sandbox (isolation: none) and never a default", self.name);
                Err(Error::new(Reason::NotASandbox, message)
                    .hint("name it where it is wanted: sandboxClass in templates, sandboxConfigName in pools"))
            }
        }
    }
}

/// How a container's image reaches a herder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// As directories, one a layer.
    #[default]
    Layers,
    /// As one file with an EROFS filesystem of all layers.
    Erofs,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssetRequirement {
    /// Key in `SandboxConfig.spec.assets[arch]`.
    pub name: String,
    /// Media types it may have; the first is the default.
    pub media_types: Vec<String>,
    pub description: String,
    /// A program of this name on the PATH can serve when nothing is configured; empty if none can.
    #[serde(default)]
    pub found_on_path_as: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigField {
    #[serde(flatten)]
    pub r#type: FieldType,
    pub default: serde_json::Value,
    pub description: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum FieldType {
    Boolean,
    Integer {
        min: i64,
        max: i64,
    },
    /// One of these words.
    Choice {
        values: Vec<String>,
    },
    /// Printable text of at most this many bytes.
    Text {
        max_bytes: u32,
    },
}

/// What a machine must have for workers of this class.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HostNeeds {
    /// Device files, for example `/dev/kvm`.
    pub devices: Vec<String>,
    /// Programs that must be on the PATH.
    pub programs: Vec<String>,
    /// Linux capabilities, for example `CAP_SYS_ADMIN`.
    pub capabilities: Vec<String>,
    pub node_labels: BTreeMap<String, String>,
}

/// One line of `ateom-NAME doctor`, which prints a JSON array of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    pub name: String,
    pub ok: bool,
    /// Not ok, but only slower or with fewer features.
    #[serde(default)]
    pub optional: bool,
    pub detail: String,
    /// What to do about it; empty when ok.
    #[serde(default)]
    pub fix: String,
}
