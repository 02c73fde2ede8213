//! The contract between the control plane and a node agent.
//!
//! One machine: the node agent is a struct in the same process. A cluster: the same trait over the network.
//! The control plane decides (who runs where, under which number), the node agent does (fetch, verify, start,
//! freeze, store). Whatever the node is told to run, it was told with digests; it trusts nothing else.
#![forbid(unsafe_code)]

pub mod hub;
pub mod node;
pub mod types;

pub use hub::Hub;
pub use node::{AssetUpload, LogTail, NodeAgent, NodeEvents};
pub use types::*;
