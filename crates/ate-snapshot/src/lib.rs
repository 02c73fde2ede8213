//! Snapshot manifests, their verification, and the repository that holds snapshots.
#![forbid(unsafe_code)]

pub mod manifest;

pub use manifest::Manifest;
