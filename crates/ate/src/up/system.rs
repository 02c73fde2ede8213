//! The running parts: how they are joined, and the order in which they end.

use std::{path::PathBuf, sync::Arc, time::Duration};

use ate_api::{Error, Reason};
use ate_control::Control;
use ate_node::Node;
use ate_router::{RouteTable, Router, RouterOptions};
use ate_sandbox::Registry;
use ate_store::{EmbeddedStore, Store};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::Routes as Services,
    transport::{Server, ServerTlsConfig, server::TcpIncoming},
};

use super::{
    adapters::{Routes, Wake},
    listen::ApiListener,
    settings::Settings,
    tls::Encryption,
};
use crate::failure::{Outcome, Trying as _};

/// For suspending everything that runs. What is not suspended by then is put to rest at the next start, at its last
/// committed snapshot.
const SUSPEND_ALL: Duration = Duration::from_secs(60);
/// For API calls that are under way when everything ends; watches go on for ever and are cut.
const CALLS: Duration = Duration::from_secs(2);

/// Where the API is served.
pub(crate) struct Listeners {
    /// In the data directory; never encrypted, never leaves the machine.
    pub own: ApiListener,
    pub wide: ApiListener,
    pub encryption: Option<Encryption>,
}

pub(crate) struct System {
    control: Control,
    node: Arc<Node>,
    router: JoinHandle<()>,
    api: Vec<JoinHandle<()>>,
    stop_router: CancellationToken,
    stop_api: CancellationToken,
}

impl System {
    pub(crate) async fn start(
        settings: &Settings,
        api: Listeners,
        router: TcpListener,
        router_port: u16,
        classes: Registry,
    ) -> Outcome<System> {
        let store = embedded_store(settings.data_dir.join("control")).await;
        let store: Arc<dyn Store> = Arc::new(store.trying(|| "cannot start".to_owned())?);
        let options = ate_node::Options {
            name: host_name(),
            data_dir: settings.data_dir.clone(),
            herder_dir: settings.herder_dir.clone(),
            objects_dir: settings.objects_dir.clone(),
            cidr: settings.worker_cidr,
            egress: settings.egress,
            workers: ate_node::Source::Processes,
            secrets: None,
        };
        let node = Node::start(options).await.trying(|| "cannot start the node".to_owned())?;
        let table = Arc::new(RouteTable::new());
        let options = ate_control::Options {
            router_port: Some(router_port),
            audit_log: Some(settings.data_dir.join("audit.log")),
            ..Default::default()
        };
        let routes = Arc::new(Routes(table.clone()));
        let control = Control::start(options, store, node.clone(), routes, classes).await;
        let control = match control {
            Ok(control) => control,
            Err(e) => {
                node.shutdown().await;
                return Err(e).trying(|| "cannot start the control plane".to_owned());
            }
        };
        let (stop_router, stop_api) = (CancellationToken::new(), CancellationToken::new());
        let proxy = Router::new(table, Arc::new(Wake(control.clone())), RouterOptions::default());
        let drain = stop_router.clone();
        let services = control.services().await;
        let tls = api.encryption.map(|e| e.config);
        let api = [(api.own, None), (api.wide, tls)]
            .into_iter()
            .map(|(listener, tls)| tokio::spawn(serve(listener, tls, services.clone(), stop_api.clone())))
            .collect();
        Ok(System {
            router: tokio::spawn(async move { proxy.serve(router, drain).await }),
            api,
            control,
            node,
            stop_router,
            stop_api,
        })
    }

    /// No new requests, then everything is suspended, then the workers end.
    pub(crate) async fn stop(self) {
        self.stop_router.cancel();
        let _ = self.router.await;
        self.control.shutdown(SUSPEND_ALL).await;
        self.stop_api.cancel();
        let aborts: Vec<_> = self.api.iter().map(JoinHandle::abort_handle).collect();
        if tokio::time::timeout(CALLS, futures::future::join_all(self.api)).await.is_err() {
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
        self.node.shutdown().await;
    }
}

async fn serve(listener: ApiListener, tls: Option<ServerTlsConfig>, services: Services, stop: CancellationToken) {
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = match server.tls_config(tls) {
            Ok(server) => server,
            Err(e) => return tracing::error!("the API cannot be encrypted: {e}"),
        };
    }
    let server = server.add_routes(services);
    let served = match listener {
        ApiListener::Tcp(listener) => {
            // Set here: the server's own setting does not reach listeners that are handed to it. Without it each answer
            // may wait for a delayed acknowledgement.
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming_shutdown(incoming, stop.cancelled()).await
        }
        ApiListener::Unix(listener, _file) => {
            server.serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled()).await
        }
    };
    if let Err(e) = served {
        tracing::error!("the API ended: {e}");
    }
}

/// Opening it reads what is there, so it is done beside the runtime's threads.
pub(crate) async fn embedded_store(path: PathBuf) -> Result<EmbeddedStore, Error> {
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(path)).await;
    let opened = opened.map_err(|e| Error::new(Reason::Internal, e.to_string()))?;
    opened.map_err(|e| Error::new(Reason::StorageUnavailable, e.to_string()))
}

pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
