//! The way to the API of a cluster, as `kubectl ate` goes it: the kubeconfig says which cluster and who calls; the API
//! server forwards a port of the pod that leads; the caller's own token goes through, so the control plane sees who they
//! are. Nothing has to be exposed for it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ate_api::{Error, Reason};
use clap::Args;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, Config,
    api::ListParams,
    client::{Body, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
};
use tonic::{
    codegen::http::{Request, Response, Uri, header::AUTHORIZATION},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tower::{BoxError, Layer as _, ServiceExt as _};

use crate::certs::{AUTHORITY as AUTHORITY_KEY, AUTHORITY_MAP};

/// As the manifests name them.
const LEADER: &str = "app=ate-control,ate.dev/leader=true";
const PORT_NAME: &str = "api";
/// Where the control plane listens if its pod does not say.
const PORT: u16 = 7600;
const TIMEOUT: Duration = Duration::from_secs(20);

/// The name in the certificate of the API, of an installation in this namespace.
pub(crate) fn api_name(namespace: &str) -> String {
    format!("api.{namespace}.svc")
}

/// Which cluster is meant.
#[derive(Args, Clone, Default)]
pub(crate) struct InCluster {
    /// Reach the API through a Kubernetes cluster: its kubeconfig [default of kubectl ate: as kubectl finds it].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Global options")]
    context: Option<String>,
    /// Namespace of the installation [default: ate-system].
    #[arg(long, global = true, env = "ATE_SYSTEM_NAMESPACE", value_name = "NAME", help_heading = "Global options")]
    system_namespace: Option<String>,
    /// Called as a kubectl plugin.
    #[arg(skip)]
    pub(crate) plugin: bool,
}

impl InCluster {
    /// Whether a cluster is meant where no address is given.
    pub(crate) fn is_meant(&self) -> bool {
        self.plugin || self.kubeconfig.is_some() || self.context.is_some()
    }

    fn namespace(&self) -> &str {
        self.system_namespace.as_deref().unwrap_or("ate-system")
    }

    /// The cluster as the kubeconfig describes it.
    pub(crate) async fn config(&self) -> Result<Config, Error> {
        let unusable = |e: kube::config::KubeconfigError| {
            Error::new(Reason::Invalid, format!("the kubeconfig cannot be used: {e}"))
                .hint("name one with --kubeconfig, or a server with --server")
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        match &self.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file).map_err(unusable)?;
                Config::from_custom_kubeconfig(read, &options).await.map_err(unusable)
            }
            None => Config::from_kubeconfig(&options).await.map_err(unusable),
        }
    }

    /// A connection to the leader.
    pub(crate) async fn connect(&self, config: Config, authority: Option<Vec<u8>>) -> Result<Channel, Error> {
        let client = Client::try_from(config).map_err(|e| failed("the cluster cannot be reached", &e))?;
        let authority = match authority {
            Some(pem) => pem,
            None => self.authority(&client).await?,
        };
        let (pod, port) = self.leader(&client).await?;
        let pods: Api<Pod> = Api::namespaced(client, self.namespace());
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
        let invalid = |e: tonic::transport::Error| Error::new(Reason::Invalid, e.to_string());
        let endpoint = Endpoint::try_from(format!("https://{}", api_name(self.namespace()))).map_err(invalid)?;
        let endpoint = endpoint.tls_config(tls).map_err(invalid)?.connect_timeout(TIMEOUT);
        // What went wrong is told by the connector; the channel only knows that it has no connection.
        let why: Arc<Mutex<Option<Error>>> = Arc::default();
        let told = why.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let (pods, pod, told) = (pods.clone(), pod.clone(), told.clone());
            async move {
                forwarded(&pods, &pod, port).await.map(TokioIo::new).map_err(|e| {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.clone());
                    std::io::Error::other(e.message)
                })
            }
        });
        endpoint.connect_with_connector(connector).await.map_err(|e| {
            let told = why.lock().unwrap_or_else(PoisonError::into_inner).take();
            told.unwrap_or_else(|| {
                let message = format!("the API does not answer through the cluster: {}", innermost(&e));
                Error::new(Reason::Unavailable, message)
            })
        })
    }

    async fn authority(&self, client: &Client) -> Result<Vec<u8>, Error> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), self.namespace());
        let what = format!("cannot read whom to trust (configmap {AUTHORITY_MAP} in {})", self.namespace());
        let map = maps.get(AUTHORITY_MAP).await.map_err(|e| {
            failed(&what, &e)
                .hint("`ate certs -o yaml` makes it; or name a file with --ca-file; role ate-connect may read it")
        })?;
        let found = map.data.and_then(|mut d| d.remove(AUTHORITY_KEY));
        found.map(String::into_bytes).ok_or_else(|| Error::new(Reason::NotFound, format!("{what}: no {AUTHORITY_KEY}")))
    }

    /// The pod that leads, and its port.
    async fn leader(&self, client: &Client) -> Result<(String, u16), Error> {
        let pods: Api<Pod> = Api::namespaced(client.clone(), self.namespace());
        let found = pods.list(&ListParams::default().labels(LEADER)).await.map_err(|e| {
            failed(&format!("cannot look for the control plane in {}", self.namespace()), &e)
                .hint("role ate-connect in that namespace allows it; --system-namespace names another one")
        })?;
        let running = |p: &&Pod| p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
        let pod = found.items.iter().find(running).ok_or_else(|| {
            Error::new(Reason::Unavailable, format!("no control plane leads in namespace {}", self.namespace()))
                .hint(format!("kubectl -n {} get pods -l app=ate-control -L ate.dev/leader", self.namespace()))
        })?;
        let containers = pod.spec.iter().flat_map(|s| &s.containers);
        let ports = containers.flat_map(|c| c.ports.iter().flatten());
        let port =
            ports.filter(|p| p.name.as_deref() == Some(PORT_NAME)).find_map(|p| u16::try_from(p.container_port).ok());
        Ok((pod.metadata.name.clone().unwrap_or_default(), port.unwrap_or(PORT)))
    }
}

async fn forwarded(
    pods: &Api<Pod>,
    pod: &str,
    port: u16,
) -> Result<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + use<>, Error> {
    let what = format!("cannot forward port {port} of pod {pod}");
    let mut forwarder = pods.portforward(pod, &[port]).await.map_err(|e| {
        failed(&what, &e)
            .hint("role ate-connect allows it (get and create on pods/portforward); or name a server with --server")
    })?;
    forwarder.take_stream(port).ok_or_else(|| Error::new(Reason::Internal, what))
}

/// The token the kubeconfig's user shows, whichever way it comes by it (a file, a command that logs in).
pub(crate) async fn token(config: &Config) -> Result<Option<String>, Error> {
    let layer = config.auth_layer().map_err(|e| failed("cannot log in as the kubeconfig says", &e))?;
    let Some(layer) = layer else { return Ok(None) };
    // What would be sent with a request is looked at, and nothing is sent.
    let seen: Arc<Mutex<Option<String>>> = Arc::default();
    let shown = seen.clone();
    let look = tower::service_fn(move |request: Request<Body>| {
        let header = request.headers().get(AUTHORIZATION).and_then(|h| h.to_str().ok()).map(str::to_owned);
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = header;
        async { Ok::<_, BoxError>(Response::new(())) }
    });
    let asked = layer.layer(look).oneshot(Request::new(Body::empty())).await;
    asked.map_err(|e| Error::new(Reason::Unauthenticated, format!("cannot log in as the kubeconfig says: {e}")))?;
    let header = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(header.and_then(|h| h.strip_prefix("Bearer ").map(str::to_owned)))
}

/// Said where the kubeconfig's user has a certificate, which cannot be passed on.
pub(crate) fn no_token() -> Error {
    Error::new(Reason::Unauthenticated, "the kubeconfig's user has no token, and a certificate cannot be passed on")
        .hint("show another one: kubectl create token SERVICE_ACCOUNT > file, then --token-file file")
}

fn failed(what: &str, e: &kube::Error) -> Error {
    let code = if let kube::Error::Api(status) = e { status.code } else { 0 };
    let reason = match code {
        401 => Reason::Unauthenticated,
        403 => Reason::PermissionDenied,
        404 => Reason::NotFound,
        _ => Reason::Unavailable,
    };
    Error::new(reason, format!("{what}: {}", innermost(e)))
}

pub(crate) fn innermost(e: &dyn std::error::Error) -> String {
    let mut cause = e;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
