//! The declarative resources (group `ate.dev`, version `v1alpha1`) and the read-only views of the rest.
//!
//! The same YAML is valid on one machine and on Kubernetes. [`read`] makes typed objects of text, [`validate`]
//! holds every rule their values must keep.

pub mod atespace;
pub mod choice;
pub mod duration;
pub mod explanation;
pub mod meta;
pub mod read;
pub mod sandbox_config;
pub mod template;
pub mod validate;
pub mod view;
mod violation;
pub mod worker_pool;

pub use atespace::{Atespace, AtespaceSpec};
pub use choice::{Choice, Rule};
pub use explanation::Explanation;
pub use meta::{API_VERSION, Condition, ObjectMeta};
pub use read::{documents, from_json, from_value, parse};
pub use sandbox_config::{Asset, SandboxConfig, SandboxConfigSpec, SandboxConfigStatus, VerificationSpec};
pub use template::{ActorTemplate, ActorTemplateSpec, ActorTemplateStatus};
pub use validate::{check, validate, validate_update};
pub use violation::{Invalid, Violation};
pub use worker_pool::{WorkerPool, WorkerPoolSpec, WorkerPoolStatus};

/// An object that can be applied.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    Atespace(Atespace),
    SandboxConfig(SandboxConfig),
    WorkerPool(WorkerPool),
    ActorTemplate(ActorTemplate),
}

impl Resource {
    /// In the order in which they need each other.
    pub const KINDS: [&'static str; 4] = ["Atespace", "SandboxConfig", "WorkerPool", "ActorTemplate"];

    pub fn kind(&self) -> &'static str {
        match self {
            Resource::Atespace(_) => "Atespace",
            Resource::SandboxConfig(_) => "SandboxConfig",
            Resource::WorkerPool(_) => "WorkerPool",
            Resource::ActorTemplate(_) => "ActorTemplate",
        }
    }

    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Resource::Atespace(o) => &o.metadata,
            Resource::SandboxConfig(o) => &o.metadata,
            Resource::WorkerPool(o) => &o.metadata,
            Resource::ActorTemplate(o) => &o.metadata,
        }
    }

    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Resource::Atespace(o) => &mut o.metadata,
            Resource::SandboxConfig(o) => &mut o.metadata,
            Resource::WorkerPool(o) => &mut o.metadata,
            Resource::ActorTemplate(o) => &mut o.metadata,
        }
    }

    /// Whether objects of this kind have no namespace.
    pub fn is_cluster_scoped(kind: &str) -> bool {
        matches!(kind, "Atespace" | "SandboxConfig")
    }

    /// `kind/name` or `kind/namespace/name`, as in [`crate::Error::object`].
    pub fn label(&self) -> String {
        label(self.kind(), &self.metadata().namespace, &self.metadata().name)
    }
}

fn label(kind: &str, namespace: &str, name: &str) -> String {
    let lower = kind.to_ascii_lowercase();
    match namespace.is_empty() || Resource::is_cluster_scoped(kind) {
        true => format!("{lower}/{name}"),
        false => format!("{lower}/{namespace}/{name}"),
    }
}
