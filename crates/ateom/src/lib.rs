//! The herder framework: the driver contract, actor network, root filesystems, readiness and logs.
#![forbid(unsafe_code)]

/// The driver contract as generated from `proto/driver.proto`.
pub mod driver {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("ateom.v1");
}

/// Version of the driver contract this build speaks.
pub const CONTRACT_VERSION: u32 = 1;
