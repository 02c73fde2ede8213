//! The declarative resources (group `ate.dev`, version `v1alpha1`) and the read-only views of the rest.
//!
//! The same YAML is valid on one machine and on Kubernetes. Unknown fields are refused.

pub mod meta;
pub mod sandbox_config;
pub mod template;
pub mod view;
pub mod worker_pool;

pub use meta::{API_VERSION, Condition, ObjectMeta};
pub use sandbox_config::{Asset, SandboxConfig, SandboxConfigSpec, SandboxConfigStatus};
pub use template::{ActorTemplate, ActorTemplateSpec, ActorTemplateStatus};
pub use worker_pool::{WorkerPool, WorkerPoolSpec, WorkerPoolStatus};
