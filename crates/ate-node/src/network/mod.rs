//! The network between this machine and its workers: one veth pair and one small subnet per worker.
//!
//! The host end stays here, the other end becomes the worker's `eth0`. All by rtnetlink; only the address
//! translation for outbound traffic goes through `nft`, once per node.

mod egress;
mod link;
mod subnet;

use std::io;

pub(crate) use egress::Egress;
pub(crate) use link::{INTERFACE, Link, Links};
pub use subnet::Cidr;

#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    #[error("cannot {what}: {cause}")]
    Netlink { what: &'static str, cause: String },
    #[error("cannot {what}: {cause}")]
    Io { what: &'static str, cause: String },
    #[error("all {0} worker subnets of {1} are taken")]
    Exhausted(u32, Cidr),
    #[error("nft refused the address translation: {0} (Debian package: nftables)")]
    Nft(String),
}

impl NetworkError {
    fn netlink(what: &'static str) -> impl Fn(rtnetlink::Error) -> Self {
        move |e| NetworkError::Netlink { what, cause: e.to_string() }
    }

    fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |e| NetworkError::Io { what, cause: e.to_string() }
    }
}
