//! The sockets of `ate up`, bound before anything else starts, so that a port that is taken is known at once.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ate_api::{Error, Reason};
use tokio::net::{TcpListener, UnixListener};

use super::settings::Listen;
use crate::{
    connection::socket,
    failure::{Outcome, Trying as _},
};

/// Where the API listens.
pub(crate) enum ApiListener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// Only the owner may connect.
const OWNER: u32 = 0o600;
/// Everybody may connect, and then has to say who they are.
const EVERYBODY: u32 = 0o666;
/// Longest path of a unix socket on Linux.
const MAX_SOCKET_PATH: usize = 107;

/// The file of a socket; it goes with the process.
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl ApiListener {
    pub(crate) async fn bind(listen: &Listen) -> Outcome<ApiListener> {
        match listen {
            Listen::Tcp(address) => Ok(ApiListener::Tcp(tcp(*address, "--listen").await?)),
            Listen::Unix(path) => unix(path, EVERYBODY).await,
        }
    }

    /// The socket in the data directory, which is always served.
    pub(crate) async fn own(data_dir: &Path) -> Outcome<ApiListener> {
        unix(&socket(data_dir), OWNER).await
    }

    /// What goes into ATE_SERVER.
    pub(crate) fn server(&self, encrypted: bool) -> Outcome<String> {
        match self {
            ApiListener::Tcp(listener) => {
                let address = listener.local_addr().trying(|| "cannot listen".to_owned())?;
                let scheme = if encrypted { "https" } else { "http" };
                Ok(format!("{scheme}://{}", reachable(address)))
            }
            ApiListener::Unix(_, file) => Ok(format!("unix:{}", file.0.display())),
        }
    }
}

pub(crate) async fn tcp(address: SocketAddr, flag: &str) -> Outcome<TcpListener> {
    let bound = TcpListener::bind(address).await;
    let bound = bound.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => Error::new(Reason::InUse, "another program listens there")
            .hint(format!("stop it (`ss -ltnp` names it), or choose another address with {flag}")),
        _ => Error::new(Reason::Invalid, e.to_string().to_lowercase())
            .hint(format!("choose another address with {flag}")),
    });
    bound.trying(|| format!("cannot listen on {address}"))
}

async fn unix(path: &Path, mode: u32) -> Outcome<ApiListener> {
    let what = || format!("cannot listen on unix:{}", path.display());
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(Error::new(Reason::Invalid, format!("the path of a socket has at most {MAX_SOCKET_PATH} bytes"))
            .hint("choose a directory with a shorter path"))
        .trying(what);
    }
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        return Err(Error::new(Reason::InUse, "another server answers there")
            .hint("stop it, or choose another path with --listen"))
        .trying(what);
    }
    // Left behind by a process that was killed.
    match std::fs::symlink_metadata(path) {
        Ok(m) if std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()) => {
            std::fs::remove_file(path).trying(what)?;
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).trying(what)?;
    let file = SocketFile(path.to_owned());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(path, mode).trying(what)?;
    Ok(ApiListener::Unix(listener, file))
}

/// The address to give to others on this machine: not "every interface".
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(a) if a.ip().is_unspecified() => ([127, 0, 0, 1], a.port()).into(),
        SocketAddr::V6(a) if a.ip().is_unspecified() => (std::net::Ipv6Addr::LOCALHOST, a.port()).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_told_with_what_to_do() {
        let taken = tcp("127.0.0.1:0".parse().unwrap(), "--listen").await.unwrap();
        let failure = tcp(taken.local_addr().unwrap(), "--router-listen").await.unwrap_err();
        assert_eq!(failure.code(), 4);
        assert!(format!("{failure:?}").contains("--router-listen"), "{failure:?}");
    }

    #[tokio::test]
    async fn a_socket_file_left_behind_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let live = unix(&path, OWNER).await.unwrap();
        assert_eq!(live.server(false).unwrap(), format!("unix:{}", path.display()));
        assert_eq!(unix(&path, OWNER).await.err().unwrap().reason(), Some(Reason::InUse));
        drop(live);
        assert!(!path.exists());
    }

    #[test]
    fn every_interface_is_reached_over_loopback() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}
