//! The herder framework: the command line, the driver contract, actor network, root filesystems, readiness and logs.
//!
//! A herder ("ateom") owns one worker: a place with its own process, mount and network namespaces that holds one
//! sandbox at a time. What is particular to a sandbox class is a [`Driver`]; everything else is here.
#![deny(unsafe_code)]

pub mod cli;
pub mod config;
pub mod data;
pub mod doctor;
#[cfg(test)]
mod fuzz;
pub mod identity;
pub mod logs;
pub mod namespaces;
pub mod network;
pub mod process;
pub mod program;
pub mod readiness;
pub mod rootfs;
pub mod sandbox;
pub mod serve;
mod server;
pub mod stats;
pub mod steps;
mod worker;
pub mod workload;

pub use sandbox::{Checkpoint, Checkpointed, Driver, Ended, Info, Preparation, Probed, Snapshot, Source, Start};
pub use serve::{Place, ServeArgs};

/// What an input or output error means to whoever called the driver; `what` was to be done.
pub fn failed(what: impl std::fmt::Display) -> impl Fn(std::io::Error) -> ate_api::Error {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    move |e| {
        let full = matches!(e.kind(), StorageFull | QuotaExceeded);
        let reason = if full { ate_api::Reason::DiskFull } else { ate_api::Reason::SandboxFailed };
        ate_api::Error::new(reason, format!("cannot {what}: {e}"))
    }
}

/// The driver contract as generated from `proto/driver.proto`.
pub mod driver {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("ateom.v1");
}

/// Version of the driver contract this build speaks.
pub const CONTRACT_VERSION: u32 = 2;
