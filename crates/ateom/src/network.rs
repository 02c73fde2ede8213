//! The network of a worker and of the actor inside it.
//!
//! The worker has `eth0` with an address of its own. Each sandbox gets a fresh network namespace below it with an
//! interior address that is the same everywhere, so that a snapshot fits on every worker; every TCP port of the
//! worker's address leads there. A namespace serves one sandbox only: runsc takes the addresses off the interface
//! when it takes over. The next one is made ahead, off the clock.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::link::{InfoData, InfoVeth},
};
use rustix::{mount::UnmountFlags, thread::UnshareFlags};
use tokio::time::{Instant, sleep};

use crate::{namespaces::unshare, process::Processes};

/// The actor's address, on every worker.
pub const ACTOR_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 17, 2);
/// Its gateway: the worker's end.
pub const ACTOR_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 17, 1);
const ACTOR_PREFIX: u8 = 30;
/// Constant, with permanent neighbour entries on both sides: an unanswered ARP request costs a second.
const ACTOR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
const GATEWAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

const LINK_POLL: Duration = Duration::from_millis(5);
const NFT_LIMIT: Duration = Duration::from_secs(10);
const NFT_CAP: usize = 4096;

#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("cannot {what}: {cause}")]
    Netlink { what: &'static str, cause: rtnetlink::Error },
    #[error("cannot {what}: {cause}")]
    Io { what: &'static str, cause: io::Error },
    #[error("no link {0} appeared within {1:?}")]
    NoLink(String, Duration),
    #[error("nft refused the address translation: {0} (Debian package: nftables)")]
    Nft(String),
}

fn netlink(what: &'static str) -> impl Fn(rtnetlink::Error) -> NetworkError {
    move |cause| NetworkError::Netlink { what, cause }
}

fn os(what: &'static str) -> impl Fn(io::Error) -> NetworkError {
    move |cause| NetworkError::Io { what, cause }
}

/// The worker's own interface, as the node agent says it must be.
#[derive(Debug, Clone)]
pub struct WorkerInterface {
    pub name: String,
    pub address: Ipv4Addr,
    pub prefix: u8,
    pub gateway: Option<Ipv4Addr>,
}

/// The network namespace of one sandbox.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    link: u32,
}

impl Netns {
    /// For `linux.namespaces[network].path` and its like.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the namespaces of a worker's sandboxes, one after the other.
pub struct ActorNetwork {
    handle: Handle,
    count: u32,
    spare: Option<Netns>,
}

impl ActorNetwork {
    /// Waits for the interface, configures it, and sets up address translation for every actor to come.
    pub async fn start(
        interface: &WorkerInterface,
        limit: Duration,
        processes: &Processes,
    ) -> Result<Self, NetworkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(os("open netlink"))?;
        tokio::spawn(connection);
        up(&handle, find(&handle, "lo").await?.ok_or_else(|| no_link("lo", limit))?).await?;
        let deadline = Instant::now() + limit;
        let link = loop {
            if let Some(link) = find(&handle, &interface.name).await? {
                break link;
            }
            if Instant::now() > deadline {
                return Err(no_link(&interface.name, limit));
            }
            sleep(LINK_POLL).await;
        };
        let add = handle.address().add(link, IpAddr::V4(interface.address), interface.prefix).replace();
        add.execute().await.map_err(netlink("set the worker's address"))?;
        up(&handle, link).await?;
        if let Some(gateway) = interface.gateway {
            default_route(&handle, gateway).await?;
        }
        translate(interface, processes).await?;
        let mut network = ActorNetwork { handle, count: 0, spare: None };
        network.make_spare().await?;
        Ok(network)
    }

    /// Makes the next namespace unless it is there. Off the clock.
    pub async fn make_spare(&mut self) -> Result<(), NetworkError> {
        if self.spare.is_none() {
            self.count += 1;
            self.spare = Some(create(&self.handle, self.count).await?);
        }
        Ok(())
    }

    /// A fresh namespace, connected. The one before must have been removed.
    pub async fn take(&mut self) -> Result<Netns, NetworkError> {
        self.make_spare().await?;
        let Some(netns) = self.spare.take() else {
            return Err(NetworkError::Io { what: "make a network namespace", cause: io::ErrorKind::NotFound.into() });
        };
        let add = self.handle.address().add(netns.link, IpAddr::V4(ACTOR_GATEWAY), ACTOR_PREFIX);
        add.execute().await.map_err(netlink("set the gateway's address"))?;
        up(&self.handle, netns.link).await?;
        neighbour(&self.handle, netns.link, ACTOR_ADDRESS, ACTOR_MAC).await?;
        Ok(netns)
    }

    /// Takes a namespace and its link away. Nothing may run in it any more.
    pub async fn remove(&self, netns: Netns) -> Result<(), NetworkError> {
        let gone = self.handle.link().del(netns.link).execute().await;
        let unmounted = rustix::mount::unmount(&netns.path, UnmountFlags::DETACH);
        let removed = fs::remove_file(&netns.path);
        gone.map_err(netlink("remove the actor's link"))?;
        unmounted.map_err(|e| os("unmount the network namespace")(e.into()))?;
        removed.map_err(os("remove the network namespace"))
    }
}

fn no_link(name: &str, limit: Duration) -> NetworkError {
    NetworkError::NoLink(name.to_owned(), limit)
}

async fn find(handle: &Handle, name: &str) -> Result<Option<u32>, NetworkError> {
    let found = handle.link().get().match_name(name.to_owned()).execute().try_next().await;
    match found {
        Ok(link) => Ok(link.map(|l| l.header.index)),
        // ENODEV is how the kernel says "not there yet".
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -rustix::io::Errno::NODEV.raw_os_error() => Ok(None),
        Err(e) => Err(netlink("look for the link")(e)),
    }
}

async fn up(handle: &Handle, link: u32) -> Result<(), NetworkError> {
    let up = LinkUnspec::new_with_index(link).up().build();
    handle.link().change(up).execute().await.map_err(netlink("set the link up"))
}

async fn default_route(handle: &Handle, gateway: Ipv4Addr) -> Result<(), NetworkError> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
    handle.route().add(route).replace().execute().await.map_err(netlink("add the default route"))
}

async fn neighbour(handle: &Handle, link: u32, of: Ipv4Addr, mac: [u8; 6]) -> Result<(), NetworkError> {
    let add = handle.neighbours().add(link, IpAddr::V4(of)).link_layer_address(&mac).replace();
    add.execute().await.map_err(netlink("add the neighbour"))
}

/// A namespace with one end of a veth pair, configured; the other end is ours, and still down.
async fn create(handle: &Handle, number: u32) -> Result<Netns, NetworkError> {
    let path = PathBuf::from(format!("/run/netns/actor{number}"));
    let inner = enter_new(path.clone()).await.map_err(os("make a network namespace"))?;
    let file = fs::File::open(&path).map_err(os("open the network namespace"))?;
    let ours = format!("actor{number}");
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name("eth0")
        .address(ACTOR_MAC.to_vec())
        .setns_by_fd(file.as_raw_fd())
        .build();
    let pair = LinkVeth::new(&ours, "eth0")
        .address(GATEWAY_MAC.to_vec())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    handle.link().add(pair).execute().await.map_err(netlink("make the actor's link"))?;
    let link = find(handle, &ours).await?.ok_or_else(|| no_link(&ours, Duration::ZERO))?;

    let eth0 = find(&inner, "eth0").await?.ok_or_else(|| no_link("eth0", Duration::ZERO))?;
    if let Some(lo) = find(&inner, "lo").await? {
        up(&inner, lo).await?;
    }
    let add = inner.address().add(eth0, IpAddr::V4(ACTOR_ADDRESS), ACTOR_PREFIX);
    add.execute().await.map_err(netlink("set the actor's address"))?;
    up(&inner, eth0).await?;
    neighbour(&inner, eth0, ACTOR_GATEWAY, GATEWAY_MAC).await?;
    default_route(&inner, ACTOR_GATEWAY).await?;
    Ok(Netns { path, link })
}

/// Makes a network namespace that lives as long as `path` is mounted; answers with a netlink handle inside it.
async fn enter_new(path: PathBuf) -> io::Result<Handle> {
    let (tx, rx) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    // A thread of its own, which ends with its namespace: no pooled thread may be left in the wrong one.
    std::thread::Builder::new().name("netns".into()).spawn(move || {
        let _guard = runtime.enter();
        let made = (|| {
            unshare(UnshareFlags::NEWNET)?;
            fs::File::create(&path)?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)?;
            rtnetlink::new_connection()
        })();
        let _ = tx.send(made);
    })?;
    let (connection, handle, _) = rx.await.map_err(io::Error::other)??;
    tokio::spawn(connection);
    Ok(handle)
}

/// Every TCP port of the worker's address leads to the actor. Masquerade both ways: the actor only ever sees its
/// gateway, so nothing of the place it runs at gets into its snapshots, and the world only ever sees the worker.
async fn translate(interface: &WorkerInterface, processes: &Processes) -> Result<(), NetworkError> {
    let WorkerInterface { name, address, .. } = interface;
    let rules = format!(
        "table ip ate {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                iifname \"{name}\" ip daddr {address} meta l4proto tcp dnat to {ACTOR_ADDRESS}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                oifname \"{name}\" masquerade
                ip daddr {ACTOR_ADDRESS} masquerade
            }}
        }}"
    );
    let mut command = Command::new("nft");
    command.arg(rules);
    let output =
        processes.output(&mut command, NFT_LIMIT, NFT_CAP).await.map_err(|e| NetworkError::Nft(e.to_string()))?;
    if output.exit.success() { Ok(()) } else { Err(NetworkError::Nft(output.stderr.trim().to_owned())) }
}
