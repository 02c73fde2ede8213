//! The network of a worker and of the actor inside it.
//!
//! The worker has `eth0` with an address of its own. Each sandbox gets a fresh network namespace below it with an
//! interior address that is the same everywhere, so that a snapshot fits on every worker; every TCP port of the
//! worker's address leads there. A namespace serves one sandbox only: runsc takes the addresses off the interface
//! when it takes over. The next one is made ahead, off the clock.

mod tap;

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ate_api::{Error, Reason};
use futures::TryStreamExt;
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder,
    packet_route::{
        address::AddressAttribute,
        link::{InfoData, InfoVeth},
    },
};
use rustix::{mount::UnmountFlags, thread::UnshareFlags};
use tokio::time::{Instant, sleep};

use crate::{namespaces::unshare, process::Processes, serve::Given};

/// The actor's address, on every worker.
pub const ACTOR_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 17, 2);
/// Its gateway: the worker's end.
pub const ACTOR_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 17, 1);
pub const ACTOR_PREFIX: u8 = 30;
/// Constant, with permanent neighbour entries on both sides: an unanswered ARP request costs a second.
pub const ACTOR_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

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

impl From<NetworkError> for Error {
    fn from(e: NetworkError) -> Self {
        Error::new(Reason::SandboxFailed, e.to_string())
    }
}

fn netlink(what: &'static str) -> impl Fn(rtnetlink::Error) -> NetworkError {
    move |cause| NetworkError::Netlink { what, cause }
}

fn os(what: &'static str) -> impl Fn(io::Error) -> NetworkError {
    move |cause| NetworkError::Io { what, cause }
}

/// The worker's own interface.
#[derive(Debug, Clone)]
pub struct WorkerInterface {
    pub name: String,
    /// What the node agent says it must be; none: it is complete already, and a pod's.
    pub given: Option<Given>,
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

/// The actor's link as a TAP device.
#[derive(Debug)]
pub struct Tap {
    link: u32,
}

/// Marks of connections: who closed first.
const PEER_FIRST: u32 = 1;
const ACTOR_FIRST: u32 = 2;

/// TCP connections that are not over yet inside the actor, as `CLIENT:PORT STATE`.
pub fn open_connections() -> io::Result<Vec<String>> {
    Ok(parse_conntrack(&fs::read_to_string("/proc/net/nf_conntrack")?))
}

pub(crate) fn parse_conntrack(table: &str) -> Vec<String> {
    let actor = format!("src={ACTOR_ADDRESS}");
    let open = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let state = *words.get(5)?;
        let mark = format!("mark={ACTOR_FIRST}");
        let over = state == "CLOSE" || (state == "TIME_WAIT" && !words.contains(&mark.as_str()));
        let is_open = words[2] == "tcp" && words.contains(&actor.as_str()) && !over;
        let value = |name: &str| words.iter().find_map(|w| w.strip_prefix(name));
        is_open.then(|| format!("{}:{} {state}", value("src=").unwrap_or("?"), value("sport=").unwrap_or("?")))
    };
    table.lines().filter_map(open).collect()
}

/// Makes the namespaces of a worker's sandboxes, one after the other.
pub struct ActorNetwork {
    handle: Handle,
    address: Ipv4Addr,
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
        let address = match interface.given {
            None => address_of(&handle, link).await?.ok_or_else(|| no_link(&interface.name, limit))?,
            Some(Given { address: (address, prefix), gateway }) => {
                let add = handle.address().add(link, IpAddr::V4(address), prefix).replace();
                add.execute().await.map_err(netlink("set the worker's address"))?;
                up(&handle, link).await?;
                if let Some(gateway) = gateway {
                    default_route(&handle, gateway).await?;
                }
                address
            }
        };
        translate(&interface.name, address, processes).await?;
        Ok(ActorNetwork { handle, address, count: 0, spare: None })
    }

    /// The worker's.
    pub fn address(&self) -> Ipv4Addr {
        self.address
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
        self.connect_link(netns.link).await?;
        Ok(netns)
    }

    /// A TAP device, not connected, and the end that the sandbox holds. It is gone when that is closed.
    pub async fn tap(&mut self) -> Result<(Tap, OwnedFd), NetworkError> {
        self.count += 1;
        let name = format!("actor{}", self.count);
        let fd = tap::create(&name).map_err(os("make a TAP device (/dev/net/tun)"))?;
        let link = find(&self.handle, &name).await?.ok_or_else(|| no_link(&name, Duration::ZERO))?;
        let mac = LinkUnspec::new_with_index(link).address(GATEWAY_MAC.to_vec()).build();
        self.handle.link().change(mac).execute().await.map_err(netlink("set the gateway's hardware address"))?;
        Ok((Tap { link }, fd))
    }

    /// From now on the actor is reached through this device. None other may be connected.
    pub async fn connect(&self, tap: &Tap) -> Result<(), NetworkError> {
        self.connect_link(tap.link).await
    }

    /// The device stays, without an address.
    pub async fn disconnect(&self, tap: &Tap) -> Result<(), NetworkError> {
        let mut addresses = self.handle.address().get().set_link_index_filter(tap.link).execute();
        while let Some(address) = addresses.try_next().await.map_err(netlink("list the gateway's addresses"))? {
            self.handle.address().del(address).execute().await.map_err(netlink("take the gateway's address away"))?;
        }
        Ok(())
    }

    async fn connect_link(&self, link: u32) -> Result<(), NetworkError> {
        let add = self.handle.address().add(link, IpAddr::V4(ACTOR_GATEWAY), ACTOR_PREFIX);
        add.execute().await.map_err(netlink("set the gateway's address"))?;
        up(&self.handle, link).await?;
        neighbour(&self.handle, link, ACTOR_ADDRESS, ACTOR_MAC).await
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

/// The first IPv4 address of a link.
async fn address_of(handle: &Handle, link: u32) -> Result<Option<Ipv4Addr>, NetworkError> {
    let mut addresses = handle.address().get().set_link_index_filter(link).execute();
    while let Some(address) = addresses.try_next().await.map_err(netlink("list the worker's addresses"))? {
        let v4 = address.attributes.into_iter().find_map(|a| match a {
            AddressAttribute::Address(IpAddr::V4(address)) => Some(address),
            _ => None,
        });
        if v4.is_some() {
            return Ok(v4);
        }
    }
    Ok(None)
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
async fn translate(name: &str, address: Ipv4Addr, processes: &Processes) -> Result<(), NetworkError> {
    // A herder that is started again finds the rules of the one before it, if the namespace is a pod's.
    let rules = format!(
        "table ip ate {{}}
        delete table ip ate
        table ip ate {{
            chain prerouting {{
                type nat hook prerouting priority dstnat;
                iifname \"{name}\" ip daddr {address} meta l4proto tcp dnat to {ACTOR_ADDRESS}
            }}
            # Our readiness probes need no translation and no memory of them.
            chain output {{
                type filter hook output priority raw;
                ip daddr {ACTOR_ADDRESS} notrack
            }}
            # Who closes a connection first keeps it for another minute: see `open_connections`.
            chain forward {{
                type filter hook forward priority filter;
                iifname \"{name}\" tcp flags & fin == fin ct mark 0 ct mark set {PEER_FIRST}
                iifname != \"{name}\" tcp flags & fin == fin ct mark 0 ct mark set {ACTOR_FIRST}
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

#[cfg(test)]
mod tests {
    use super::parse_conntrack;

    #[test]
    fn connections_of_the_actor_are_found_in_the_kernels_table_until_they_are_closed() {
        let table = "ipv4     2 tcp      6 431999 ESTABLISHED src=10.96.0.1 dst=10.96.0.2 sport=51656 dport=8080 src=169.254.17.2 dst=169.254.17.1 sport=8080 dport=51656 [ASSURED] mark=0 zone=0 use=2\n\
            ipv4     2 tcp      6 9 CLOSE src=10.96.0.1 dst=10.96.0.2 sport=51658 dport=8080 src=169.254.17.2 dst=169.254.17.1 sport=8080 dport=51658 [ASSURED] mark=0 zone=0 use=2\n\
            ipv4     2 udp      17 29 src=169.254.17.2 dst=9.9.9.9 sport=1 dport=53 src=9.9.9.9 dst=10.96.0.2 sport=53 dport=1 mark=0 zone=0 use=2\n\
            ipv4     2 tcp      6 110 TIME_WAIT src=169.254.17.2 dst=1.2.3.4 sport=999 dport=80 src=1.2.3.4 dst=10.96.0.2 sport=80 dport=999 [ASSURED] mark=2 zone=0 use=2\n\
            ipv4     2 tcp      6 110 TIME_WAIT src=169.254.17.2 dst=1.2.3.4 sport=998 dport=80 src=1.2.3.4 dst=10.96.0.2 sport=80 dport=998 [ASSURED] mark=1 zone=0 use=2\n";
        assert_eq!(parse_conntrack(table), ["10.96.0.1:51656 ESTABLISHED", "169.254.17.2:999 TIME_WAIT"]);
        assert!(parse_conntrack("").is_empty());
        assert!(parse_conntrack("tcp\nipv4 2 tcp").is_empty());
    }
}
