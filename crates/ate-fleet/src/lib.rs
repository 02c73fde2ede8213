//! Many nodes as one [`ate_agent::NodeAgent`], and node agents over the network.
//!
//! * [`Fleet`] joins nodes: each call goes to the node of its worker, or to all.
//! * [`RemoteNode`] is a node elsewhere; [`server::serve`] is its other end, around whatever implements the trait.
//! * [`registry`]: how nodes become known to a control plane, whoever leads.
//! * [`tls`]: both ends prove who they are, by certificates from files that may be replaced at any time.
#![forbid(unsafe_code)]

mod fleet;
mod json;
pub mod registry;
mod remote;
pub mod server;
pub mod tls;

pub use fleet::Fleet;
pub use remote::{NODE, RemoteNode};
pub use server::CONTROL;

/// Version of what control plane and nodes say to each other. Grows with every change of it.
pub const PROTOCOL: u32 = 1;

/// The protocol as generated from `proto/node.proto`.
pub(crate) mod pb {
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("ate.node.v1");
}
