//! What a sandbox class is, how a class and its configuration are chosen, and which binaries may run.
//!
//! Everything here is a pure function of what it is given, except [`registry`], which asks the installed herders to
//! describe themselves, and [`host`], which looks at this machine.
#![forbid(unsafe_code)]

pub mod asset;
pub mod capability;
pub mod class;
pub mod config;
#[cfg(test)]
mod fuzz;
pub mod host;
pub mod reference;
pub mod registry;
pub mod resolve;
pub mod revision;
pub mod revocations;
pub mod signature;
pub mod trust;

pub use class::{AssetRequirement, Check, ClassDescriptor, ConfigField, FieldType, HostNeeds, ImageFormat, Isolation};
pub use reference::{ConfigRef, PinnedAsset, SandboxRef};
pub use registry::Registry;
pub use revocations::{Revocation, Revocations};
pub use signature::Verification;
pub use trust::Admitted;
