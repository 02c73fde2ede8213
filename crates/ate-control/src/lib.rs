//! The control plane: API services, scheduler, workflows and policies.
//!
//! Where to read first: [`control`] (what is started), `workflow` (what happens to an actor), `scheduler` (who gets
//! which worker), `records` (what is stored), `resources` (what users declare), `reconcile` and `policy` (what
//! happens by itself), `api` (the gRPC services).
#![forbid(unsafe_code)]

mod api;
mod catalog;
mod control;
mod core;
mod db;
mod options;
mod policy;
mod reconcile;
mod records;
mod resources;
mod scheduler;
mod traffic;
mod workflow;

pub use control::Control;
pub use core::Running;
pub use options::Options;
pub use traffic::{NoTraffic, Traffic};
