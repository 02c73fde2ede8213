//! The node agent: asset cache, image cache, workers and snapshot movement.
//!
//! [`Node`] implements [`ate_agent::NodeAgent`]. Where to look:
//!
//! * [`assets`], [`images`]: what actors are made of, fetched once and verified.
//! * `workers`: pools, herder processes and the state machine of each worker.
//! * [`network`]: how workers are reached and what they reach.
//! * `revoked`: which binaries must not run any more.
//! * `secrets`: variables of a template that come from elsewhere.
//! * `activate`, `restore`, `capture`: an actor onto a worker, and a snapshot of it off again.
#![forbid(unsafe_code)]

pub mod assets;
pub mod images;
pub mod network;

mod activate;
mod agent;
mod capture;
mod disk;
mod fence;
mod flight;
mod logs;
mod node;
mod pins;
mod platform;
mod probe;
mod restore;
mod revoked;
mod secrets;
mod unpack;
mod workers;
mod workload;

pub use node::{Node, Options};
pub use secrets::{SecretData, Secrets};
pub use workers::{Pods, Source, WorkerPod};
