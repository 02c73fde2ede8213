//! Snapshot manifests, their verification, and the repository that holds snapshots.
//!
//! * [`manifest`]: what a snapshot is, how its manifest is read, and whether it fits a machine and an actor.
//! * [`local`]: copies on this node, where a driver writes a snapshot and from where it restores one.
//! * [`repository`]: object storage, where a snapshot outlives the node.
//!
//! The life of a snapshot: [`LocalSnapshots::staging`] → the driver writes → [`Staging::seal`] hashes →
//! [`LocalSnapshots::adopt`] makes it durable here → [`Repository::upload`] makes it durable elsewhere →
//! [`Repository::fetch`] brings it back to any node, verified.
#![forbid(unsafe_code)]

mod blocking;
mod error;
mod files;
#[cfg(test)]
mod fuzz;
pub mod local;
pub mod manifest;
pub mod repository;
#[cfg(test)]
mod sample;

pub use error::Error;
pub use local::{DriverFile, LocalEntry, LocalSnapshot, LocalSnapshots, Staging};
pub use manifest::Manifest;
pub use repository::{DEFAULT_LOCATION, Prefix, Repository, Stored};
