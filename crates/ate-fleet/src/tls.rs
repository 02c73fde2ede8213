//! Mutual TLS with certificates from files: `ca.crt`, `tls.crt` and `tls.key` in one directory, as cert-manager and the
//! kubelet lay them out. They are looked at with every new connection, so a certificate is replaced by replacing the files.
//!
//! Who is at the other end is a DNS name in its certificate, not an address: `control` or `node`, whatever address was dialled.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ate_api::{Error, Reason};
use futures::Stream;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// A connection on which nothing is heard for this long is asked, and given up when it then says nothing for as long.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that are established and wait to be served.
const BACKLOG: usize = 64;
/// A listener that cannot accept, for want of descriptors perhaps, tries again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Far more than a chain of certificates has.
const MAX_FILE: u64 = 1 << 20;

/// What proves who we are, and whom we trust.
pub struct Certificates {
    dir: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    files: Files,
    /// Callers must show a certificate.
    mutual: Arc<ServerConfig>,
    /// Callers may show one, or prove who they are otherwise.
    open: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// What the three files look like.
type Files = [(u64, i64, i64, u64); 3];

#[derive(Debug, thiserror::Error)]
enum CertificateError {
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    #[error("{0} is larger than {MAX_FILE} bytes")]
    TooLarge(PathBuf),
    #[error("{0} holds no usable PEM: {1}")]
    Pem(PathBuf, rustls::pki_types::pem::Error),
    #[error("{0} holds no certificate")]
    Empty(PathBuf),
    #[error("the certificates in {0} do not fit together: {1}")]
    Unusable(PathBuf, String),
}

impl Certificates {
    /// # Errors
    /// `INVALID` when the files are not there or do not fit together.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Arc<Self>, Error> {
        let dir = dir.into();
        let loaded = look(&dir).and_then(|files| load(&dir, files)).map_err(|e| {
            Error::new(Reason::Invalid, e.to_string())
                .hint("the directory needs ca.crt, tls.crt and tls.key, as in a secret of cert-manager")
        })?;
        Ok(Arc::new(Certificates { dir, loaded: Mutex::new(loaded) }))
    }

    /// Those in the files now; while these are no good, those that were good last.
    fn current(&self) -> Loaded {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = look(&self.dir).and_then(|files| match files == loaded.files {
            true => Ok(None),
            false => load(&self.dir, files).map(Some),
        });
        match newer {
            Ok(None) => {}
            Ok(Some(newer)) => {
                tracing::info!(dir = %self.dir.display(), "new certificates");
                *loaded = newer;
            }
            Err(e) => tracing::warn!("the former certificates stay in use: {e}"),
        }
        loaded.clone()
    }
}

fn look(dir: &Path) -> Result<Files, CertificateError> {
    let look = |name| {
        let path = dir.join(name);
        let m = fs::metadata(&path).map_err(|e| CertificateError::Read(path, e))?;
        Ok((m.ino(), m.mtime(), m.mtime_nsec(), m.len()))
    };
    Ok([look("ca.crt")?, look("tls.crt")?, look("tls.key")?])
}

fn load(dir: &Path, files: Files) -> Result<Loaded, CertificateError> {
    let unusable = |e: &dyn std::fmt::Display| CertificateError::Unusable(dir.to_owned(), e.to_string());
    let mut roots = RootCertStore::empty();
    for authority in certificates(&dir.join("ca.crt"))? {
        roots.add(authority).map_err(|e| unusable(&e))?;
    }
    let roots = Arc::new(roots);
    let chain = certificates(&dir.join("tls.crt"))?;
    let path = dir.join("tls.key");
    let key = PrivateKeyDer::from_pem_slice(&read(&path)?).map_err(|e| CertificateError::Pem(path, e))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let versions = || ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let server = |verifier| -> Result<Arc<ServerConfig>, CertificateError> {
        let builder = versions().map_err(|e| unusable(&e))?.with_client_cert_verifier(verifier);
        let mut config = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(|e| unusable(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    };
    let verifier = || WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let mutual = server(verifier().build().map_err(|e| unusable(&e))?)?;
    let open = server(verifier().allow_unauthenticated().build().map_err(|e| unusable(&e))?)?;
    let client = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let client = client.map_err(|e| unusable(&e))?.with_root_certificates(roots);
    let mut client = client.with_client_auth_cert(chain.clone(), key.clone_key()).map_err(|e| unusable(&e))?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Loaded { files, mutual, open, client: Arc::new(client) })
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |e| CertificateError::Read(path.to_owned(), e);
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE {
        return Err(CertificateError::TooLarge(path.to_owned()));
    }
    fs::read(path).map_err(failed)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|e| CertificateError::Pem(path.to_owned(), e))?;
    if found.is_empty() { Err(CertificateError::Empty(path.to_owned())) } else { Ok(found) }
}

/// Connections of callers whose certificate has this name.
pub(crate) fn accept(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    peer: &'static str,
    stop: CancellationToken,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    accept_from(listener, certificates, Some(peer), stop)
}

/// Connections of whoever comes. We prove who we are; they may.
pub fn accept_all(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    stop: CancellationToken,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    accept_from(listener, certificates, None, stop)
}

fn accept_from(
    listener: TcpListener,
    certificates: Arc<Certificates>,
    peer: Option<&'static str>,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (to, connections) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
                () = to.closed() => return,
            };
            match accepted {
                Ok((tcp, from)) => {
                    let (certificates, to) = (certificates.clone(), to.clone());
                    // Somebody who is slow does not hold up the others.
                    tokio::spawn(async move {
                        match timeout(HANDSHAKE, shake_hands(tcp, &certificates, peer)).await {
                            Ok(Ok(tls)) => drop(to.send(Ok(tls)).await),
                            Ok(Err(e)) => tracing::warn!(%from, "a connection was refused: {e}"),
                            Err(_) => tracing::debug!(%from, "a connection said nothing"),
                        }
                    });
                }
                Err(e) => {
                    tracing::warn!("cannot accept a connection: {e}");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            }
        }
    });
    ReceiverStream::new(connections)
}

async fn shake_hands(
    tcp: TcpStream,
    certificates: &Certificates,
    peer: Option<&'static str>,
) -> io::Result<TlsStream<TcpStream>> {
    tcp.set_nodelay(true)?;
    let current = certificates.current();
    let config = if peer.is_some() { current.mutual } else { current.open };
    let tls = TlsAcceptor::from(config).accept(tcp).await?;
    if let Some(peer) = peer {
        let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        if !shown.is_some_and(|shown| is_for(shown, peer)) {
            let message = format!("the caller's certificate is not for `{peer}`");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
    }
    Ok(tls)
}

/// Whether a certificate, verified before, has this name.
pub(crate) fn is_for(certificate: &CertificateDer<'_>, name: &'static str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    let entity = webpki::EndEntityCert::try_from(certificate);
    entity.is_ok_and(|entity| entity.verify_is_valid_for_subject_name(&name).is_ok())
}

/// A connection to whoever has this name, made when it is needed.
pub(crate) fn channel(address: String, certificates: Arc<Certificates>, peer: &'static str) -> Channel {
    let connector = tower::service_fn(move |_| {
        let (address, certificates) = (address.clone(), certificates.clone());
        async move {
            let connected = async {
                let tcp = TcpStream::connect(&address).await?;
                tcp.set_nodelay(true)?;
                let name = ServerName::try_from(peer).map_err(io::Error::other)?;
                TlsConnector::from(certificates.current().client).connect(name, tcp).await
            };
            let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT:?}")));
            timeout(CONNECT, connected).await.unwrap_or_else(late).map(TokioIo::new)
        }
    });
    // The address is only the HTTP authority.
    Endpoint::from_static("http://peer")
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

/// What a connection broke of, down to its cause.
pub(crate) fn cause(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(e) = source {
        text = format!("{text}: {e}");
        source = e.source();
    }
    text
}
