//! The control plane: API services, scheduler, workflows and policies.
//!
//! Where to read first: [`control`] (what is started), `workflow` (what happens to an actor), `scheduler` (who gets
//! which worker), `records` (what is stored), `resources` (what users declare), `usage` (what needs which binaries),
//! `declared` (what is declared elsewhere, as on Kubernetes), `revocation` (which must not run any more), `rollout` (how actors come to newer ones), `explain` (why something runs as
//! it does), `reconcile` and `policy` (what happens by itself), `api` (the gRPC services), `access` (who may call them).
#![forbid(unsafe_code)]

mod access;
mod api;
#[cfg(feature = "bench")]
pub mod bench;
mod catalog;
mod control;
mod core;
mod db;
pub mod declared;
mod explain;
#[cfg(test)]
mod fuzz;
mod options;
mod policy;
mod reconcile;
mod records;
mod resources;
mod revocation;
mod rollout;
mod scheduler;
mod traffic;
mod usage;
mod workflow;

pub use access::review::{Identity, Question, Reviewer};
pub use control::Control;
pub use core::Running;
pub use options::Options;
pub use traffic::{NoTraffic, Traffic};
