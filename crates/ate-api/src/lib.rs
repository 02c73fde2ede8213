//! Wire types, resource types, names and their validation.
//!
//! Knows nothing of runtimes, stores or servers. Every other crate may import this one.
#![forbid(unsafe_code)]

pub mod canonical;
pub mod error;
#[cfg(test)]
mod fuzz;
pub mod host;
pub mod id;
pub mod name;
pub mod resource;
pub mod role;
pub mod time;

/// The compatible control API (`ateapi.Control`).
pub mod ateapi {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("ateapi");
}

/// Our own services beside it: resources, assets, snapshots, logs, choices, usage, revocations, rollouts, tokens.
pub mod v1 {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("ate.v1");
}

/// Encoded `FileDescriptorSet` of all, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub use error::{Error, Reason};
