//! What a sandbox class is, how a class and its configuration are chosen, and which binaries may run.
#![forbid(unsafe_code)]

pub mod class;
pub mod reference;

pub use class::{AssetRequirement, Check, ClassDescriptor, ConfigField, FieldType, HostNeeds};
pub use reference::{PinnedAsset, SandboxRef};
