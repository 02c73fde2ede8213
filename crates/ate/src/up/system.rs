//! The running parts: how they are joined, and the order in which they end.

use std::{sync::Arc, time::Duration};

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
    transport::{Server, server::TcpIncoming},
};

use super::{
    adapters::{Routes, Wake},
    listen::ApiListener,
    settings::Settings,
};
use crate::failure::{Outcome, Trying as _};

/// For suspending everything that runs. What is not suspended by then is put to rest at the next start, at its last
/// committed snapshot.
const SUSPEND_ALL: Duration = Duration::from_secs(60);
/// For API calls that are under way when everything ends; watches go on for ever and are cut.
const CALLS: Duration = Duration::from_secs(2);

pub(crate) struct System {
    control: Control,
    node: Arc<Node>,
    router: JoinHandle<()>,
    api: JoinHandle<()>,
    stop_router: CancellationToken,
    stop_api: CancellationToken,
}

impl System {
    pub(crate) async fn start(
        settings: &Settings,
        api: ApiListener,
        router: TcpListener,
        router_port: u16,
        classes: Registry,
    ) -> Outcome<System> {
        let what = || "cannot start".to_owned();
        let path = settings.data_dir.join("control");
        let store = tokio::task::spawn_blocking(move || EmbeddedStore::open(path)).await;
        let store: Arc<dyn Store> = match store {
            Ok(Ok(store)) => Arc::new(store),
            Ok(Err(e)) => return Err(Error::new(Reason::StorageUnavailable, e.to_string())).trying(what),
            Err(e) => return Err(Error::new(Reason::Internal, e.to_string())).trying(what),
        };
        let options = ate_node::Options {
            name: host_name(),
            data_dir: settings.data_dir.clone(),
            herder_dir: settings.herder_dir.clone(),
            objects_dir: settings.objects_dir.clone(),
            cidr: settings.worker_cidr,
            egress: settings.egress,
        };
        let node = Node::start(options).await.trying(|| "cannot start the node".to_owned())?;
        let table = Arc::new(RouteTable::new());
        let options = ate_control::Options { router_port: Some(router_port), ..Default::default() };
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
        Ok(System {
            router: tokio::spawn(async move { proxy.serve(router, drain).await }),
            api: tokio::spawn(serve(api, control.services().await, stop_api.clone())),
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
        let mut api = self.api;
        if tokio::time::timeout(CALLS, &mut api).await.is_err() {
            api.abort();
        }
        self.node.shutdown().await;
    }
}

async fn serve(listener: ApiListener, services: Services, stop: CancellationToken) {
    let server = Server::builder().add_routes(services);
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

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
