//! One veth pair per worker. The pair's name is the claim on its subnet: the kernel makes a name once, so
//! several nodes on one machine never give out the same addresses.
//!
//! A worker that dies takes its link along, at once, while a route to it may still be in use. An address is therefore given
//! out again only when all others of the range have been: the next worker, of whichever node, is never where one was
//! that somebody still asks.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth,
    packet_route::link::{InfoData, InfoVeth, LinkAttribute},
};
use rustix::io::Errno;

use super::{Cidr, NetworkError, subnet::WORKER_PREFIX};

/// Constant, with a permanent neighbour entry: an unanswered ARP request costs a second.
const HOST_MAC: [u8; 6] = [0x02, 0x61, 0x74, 0x65, 0x00, 0x01];
const WORKER_MAC: [u8; 6] = [0x02, 0x61, 0x74, 0x65, 0x00, 0x02];
/// What the worker's end is called inside the worker.
pub(crate) const INTERFACE: &str = "eth0";

/// Makes the links of one node.
#[derive(Clone)]
pub(crate) struct Links {
    handle: Handle,
    cidr: Cidr,
    /// The kernel's link group, which marks links as this node's from the moment they exist.
    group: u32,
    /// Where the search for a free subnet begins.
    next: Arc<AtomicU32>,
}

/// One worker's link, both ends.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// The host end's.
    name: String,
    pub(crate) gateway: Ipv4Addr,
    /// The worker's.
    pub(crate) address: Ipv4Addr,
}

impl Link {
    pub(crate) fn address_with_prefix(&self) -> String {
        format!("{}/{WORKER_PREFIX}", self.address)
    }

    fn peer_name(&self) -> String {
        format!("{}p", self.name)
    }
}

impl Links {
    /// `group` tells this node's links from those of others; 0 is the kernel's default and not allowed.
    pub(crate) fn open(cidr: Cidr, group: u32) -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetworkError::io("open netlink"))?;
        tokio::spawn(connection);
        // Somewhere else for each start of each node.
        let next = Arc::new(AtomicU32::new(group ^ std::process::id().wrapping_mul(0x9e37_79b9)));
        Ok(Links { handle, cidr, group: group.max(1), next })
    }

    /// Makes a pair, both ends still here, and takes the next subnet that is free on this machine.
    pub(crate) async fn claim(&self) -> Result<Link, NetworkError> {
        for _ in 0..self.cidr.subnets() {
            let n = self.next.fetch_add(1, Ordering::Relaxed) % self.cidr.subnets();
            let Some((gateway, address)) = self.cidr.addresses(n) else { break };
            let link = Link { name: format!("ate{n}"), gateway, address };
            match self.create(&link).await {
                Ok(()) => match self.configure(&link).await {
                    Ok(()) => return Ok(link),
                    Err(e) => {
                        self.remove(&link).await?;
                        return Err(e);
                    }
                },
                Err(e) if is(&e, Errno::EXIST) => (),
                Err(e) => return Err(NetworkError::netlink("create a worker's link")(e)),
            }
        }
        Err(NetworkError::Exhausted(self.cidr.subnets(), self.cidr))
    }

    async fn create(&self, link: &Link) -> Result<(), rtnetlink::Error> {
        let group = LinkAttribute::Group(self.group);
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(link.peer_name())
            .address(WORKER_MAC.to_vec())
            .append_extra_attribute(group.clone())
            .build();
        let pair = LinkVeth::new(&link.name, "")
            .address(HOST_MAC.to_vec())
            .append_extra_attribute(group)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.handle.link().add(pair).execute().await
    }

    async fn configure(&self, link: &Link) -> Result<(), NetworkError> {
        let index = self.find(&link.name).await?.ok_or_else(|| NetworkError::Netlink {
            what: "find a worker's link",
            cause: format!("{} is gone", link.name),
        })?;
        let add = self.handle.address().add(index, IpAddr::V4(link.gateway), WORKER_PREFIX);
        add.execute().await.map_err(NetworkError::netlink("set the address of a worker's link"))?;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().change(up).execute().await.map_err(NetworkError::netlink("set a worker's link up"))?;
        let neighbour = self.handle.neighbours().add(index, IpAddr::V4(link.address)).link_layer_address(&WORKER_MAC);
        neighbour.replace().execute().await.map_err(NetworkError::netlink("add a worker as a neighbour"))
    }

    /// Moves the worker's end into the network namespace of a process and calls it `eth0` there.
    pub(crate) async fn hand_over(&self, link: &Link, pid: u32) -> Result<(), NetworkError> {
        let index = self.find(&link.peer_name()).await?.ok_or_else(|| NetworkError::Netlink {
            what: "hand a link to its worker",
            cause: format!("{} is gone", link.peer_name()),
        })?;
        // One message: moved under its new name, so the names of two workers never meet here.
        let moved = LinkUnspec::new_with_index(index).name(INTERFACE).setns_by_pid(pid).build();
        self.handle.link().change(moved).execute().await.map_err(NetworkError::netlink("hand a link to its worker"))
    }

    /// Removes a pair; fine if its worker took it along when it ended.
    pub(crate) async fn remove(&self, link: &Link) -> Result<(), NetworkError> {
        match self.find(&link.name).await? {
            Some(index) => self.delete(index).await,
            None => Ok(()),
        }
    }

    /// Removes every link of this node: what an earlier run left. No worker may be alive.
    pub(crate) async fn remove_all(&self) -> Result<(), NetworkError> {
        let links = self.handle.link().get().execute().try_collect::<Vec<_>>().await;
        for link in links.map_err(NetworkError::netlink("list links"))? {
            if link.attributes.contains(&LinkAttribute::Group(self.group)) {
                self.delete(link.header.index).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, index: u32) -> Result<(), NetworkError> {
        match self.handle.link().del(index).execute().await {
            Err(e) if !is(&e, Errno::NODEV) => Err(NetworkError::netlink("remove a worker's link")(e)),
            _ => Ok(()),
        }
    }

    async fn find(&self, name: &str) -> Result<Option<u32>, NetworkError> {
        match self.handle.link().get().match_name(name.to_owned()).execute().try_next().await {
            Ok(link) => Ok(link.map(|l| l.header.index)),
            Err(e) if is(&e, Errno::NODEV) => Ok(None),
            Err(e) => Err(NetworkError::netlink("look for a link")(e)),
        }
    }
}

fn is(e: &rtnetlink::Error, errno: Errno) -> bool {
    matches!(e, rtnetlink::Error::NetlinkError(m) if m.raw_code() == -errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_a_worker_was_the_next_one_is_not() {
        let links = Links::open("100.127.255.0/24".parse().unwrap(), 0x7e57).unwrap();
        let first = links.claim().await.unwrap();
        links.remove(&first).await.unwrap();
        let second = links.claim().await.unwrap();
        links.remove(&second).await.unwrap();
        assert_ne!(first.address, second.address);
    }
}
