//! Which server a command talks to, and how it proves who calls.
//!
//! Nothing is said and nothing is needed where `ate up` runs: its unix socket in the data directory knows root, and the
//! user it runs as, by what the kernel tells. Everybody else has an address and a token. A token is never an argument:
//! the arguments of a process can be read by everybody on the machine. With a kubeconfig, and always for `kubectl ate`, the
//! way is that through the cluster, and the token the kubeconfig's.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ate_api::{Error, Reason};
use clap::Args;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, ClientTlsConfig, Endpoint},
};

use crate::{
    failure::{Outcome, Trying as _},
    in_cluster::{self, InCluster},
};

/// Where `ate up` keeps everything, its socket included, unless told otherwise.
pub(crate) const DEFAULT_DATA_DIR: &str = "/var/lib/ate";
/// Tells both `ate up` and the commands of another data directory.
pub(crate) const DATA_DIR_ENV: &str = "ATE_DATA_DIR";
/// A token itself, for where files are inconvenient.
const TOKEN_ENV: &str = "ATE_TOKEN";
/// Time to reach a server; it is on this machine or near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A token has 68 bytes, a cluster's a few KiB; what is larger is another file.
const MAX_TOKEN_FILE: u64 = 16 << 10;

/// The socket of an `ate up` with this data directory.
pub(crate) fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("ate.sock")
}

/// The connection every service uses.
pub(crate) type Channel = InterceptedService<tonic::transport::Channel, Bearer>;

/// Flags that say which server is meant and who calls.
#[derive(Args, Clone, Default)]
pub(crate) struct Server {
    /// The server: https://HOST:PORT, http://HOST:PORT or unix:/PATH [default: the socket in the data directory of this
    /// machine].
    #[arg(long = "server", global = true, env = "ATE_SERVER", value_name = "ADDRESS", help_heading = "Global options")]
    address: Option<String>,
    /// File with the token to show it; ATE_TOKEN may hold the token itself.
    #[arg(long, global = true, env = "ATE_TOKEN_FILE", value_name = "FILE", help_heading = "Global options")]
    token_file: Option<PathBuf>,
    /// Certificates (PEM) that vouch for an https:// server [default: those this machine trusts].
    #[arg(long, global = true, env = "ATE_CA_FILE", value_name = "FILE", help_heading = "Global options")]
    ca_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) cluster: InCluster,
}

impl Server {
    /// The server at an address, without credentials but those the kernel tells.
    pub(crate) fn at(address: &str) -> Server {
        Server { address: Some(address.to_owned()), ..Server::default() }
    }

    fn address(&self) -> String {
        match &self.address {
            Some(a) if a.contains("://") || a.starts_with("unix:") => a.clone(),
            Some(a) => format!("http://{a}"),
            None => {
                let dir = std::env::var_os(DATA_DIR_ENV).map_or_else(|| DEFAULT_DATA_DIR.into(), PathBuf::from);
                format!("unix:{}", socket(&dir).display())
            }
        }
    }

    pub(crate) async fn connect(&self) -> Outcome<Channel> {
        if self.address.is_none() && self.cluster.is_meant() {
            return self.connect_through_the_cluster().await;
        }
        let address = self.address();
        let what = || format!("cannot reach the server at {address}");
        let bearer = match self.bearer()? {
            Bearer(None) if self.cluster.is_meant() => {
                self.callers_own(&self.cluster.config().await.trying(what)?).await?
            }
            bearer => bearer,
        };
        let invalid = |e: tonic::transport::Error| {
            Error::new(Reason::Invalid, cause(&e)).hint("write https://HOST:PORT, http://HOST:PORT or unix:/PATH")
        };
        let mut endpoint =
            Endpoint::try_from(address.clone()).map_err(invalid).trying(what)?.connect_timeout(CONNECT_TIMEOUT);
        if bearer.0.is_some() && goes_in_the_clear(&endpoint, &address) {
            return Err(Error::new(Reason::Invalid, "a token may not cross a network unencrypted")
                .hint("write https://…; the server then needs --tls-cert and --tls-key, or --tls-self-signed"))
            .trying(what);
        }
        if address.starts_with("https://") {
            endpoint = endpoint.tls_config(self.tls()?).map_err(invalid).trying(what)?;
        }
        let channel = endpoint.connect().await.map_err(|e| unreachable(&e, &address)).trying(what)?;
        Ok(InterceptedService::new(channel, bearer))
    }

    async fn connect_through_the_cluster(&self) -> Outcome<Channel> {
        let what = || "cannot reach the server through the cluster".to_owned();
        let config = self.cluster.config().await.trying(what)?;
        let bearer = match self.bearer()? {
            Bearer(None) => self.callers_own(&config).await?,
            bearer => bearer,
        };
        if bearer.0.is_none() {
            return Err(in_cluster::no_token()).trying(what);
        }
        let authority = self.ca_file.as_deref().map(read_authority).transpose()?;
        let channel = self.cluster.connect(config, authority).await.trying(what)?;
        Ok(InterceptedService::new(channel, bearer))
    }

    /// What the kubeconfig's user shows to the cluster.
    async fn callers_own(&self, config: &kube::Config) -> Outcome<Bearer> {
        let what = || "cannot show who calls".to_owned();
        match in_cluster::token(config).await.trying(what)? {
            Some(token) => bearer(&token, what),
            None => Ok(Bearer(None)),
        }
    }

    fn tls(&self) -> Outcome<ClientTlsConfig> {
        let config = ClientTlsConfig::new();
        let Some(file) = &self.ca_file else { return Ok(config.with_enabled_roots()) };
        Ok(config.ca_certificate(Certificate::from_pem(read_authority(file)?)))
    }

    /// A file outweighs the variable: it may be a flag.
    fn bearer(&self) -> Outcome<Bearer> {
        let (text, what) = match (&self.token_file, std::env::var(TOKEN_ENV)) {
            (Some(file), _) => {
                let what = format!("cannot use the token in {}", file.display());
                (read_small(file).trying(|| what.clone())?, what)
            }
            (None, Ok(token)) if !token.is_empty() => (token, format!("cannot use the token in {TOKEN_ENV}")),
            (None, _) => return Ok(Bearer(None)),
        };
        bearer(&text, || what)
    }
}

fn bearer(token: &str, what: impl FnOnce() -> String) -> Outcome<Bearer> {
    let value = format!("Bearer {}", token.trim()).parse::<MetadataValue<Ascii>>();
    let mut value = value
        .map_err(|_| Error::new(Reason::Invalid, "it is not one line of text").hint("`ate token create` prints one"))
        .trying(what)?;
    // Kept out of what is printed for debugging.
    value.set_sensitive(true);
    Ok(Bearer(Some(value)))
}

fn read_authority(file: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(file).trying(|| format!("cannot read the certificates {}", file.display()))
}

fn read_small(file: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_TOKEN_FILE).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether what is sent could be read on the way.
fn goes_in_the_clear(endpoint: &Endpoint, address: &str) -> bool {
    if address.starts_with("unix:") || address.starts_with("https://") {
        return false;
    }
    let host = endpoint.uri().host().unwrap_or_default().trim_matches(['[', ']']);
    !(host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

fn unreachable(e: &tonic::transport::Error, address: &str) -> Error {
    let cause = cause(e);
    let hint = match address.starts_with("unix:") && cause.contains("permission denied") {
        true => {
            "only root and the user it runs as may use this socket; others need an address and a token: set \
                 ATE_SERVER=http://127.0.0.1:7600 and ATE_TOKEN_FILE"
        }
        false => "start one with `ate up`, or name it with --server or ATE_SERVER",
    };
    Error::new(Reason::Unavailable, cause).hint(hint)
}

/// Shows the token, if there is one, with each call.
#[derive(Clone)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// The innermost cause: "transport error" alone tells nobody anything.
fn cause(e: &dyn std::error::Error) -> String {
    in_cluster::innermost(e).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leaves_the_machine_only_encrypted() {
        let clear = |address: &str| goes_in_the_clear(&Endpoint::try_from(address.to_owned()).unwrap(), address);
        for address in
            ["http://10.0.0.1:7600", "http://example.com", "http://127.0.0.1.example.com", "http://0.0.0.0:1"]
        {
            assert!(clear(address), "{address}");
        }
        for address in
            ["http://127.0.0.1:7600", "http://[::1]:7600", "http://localhost:1", "https://example.com", "unix:/a"]
        {
            assert!(!clear(address), "{address}");
        }
    }
}
