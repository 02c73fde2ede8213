//! `ate control`: control plane, API and router of a cluster. Of several one leads; the others wait.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ate_api::{Error, Reason};
use ate_control::Control;
use ate_fleet::{
    Fleet, registry,
    tls::{self, Certificates},
};
use ate_router::{RouteTable, Router, RouterOptions};
use ate_sandbox::Registry;
use ate_store::{Lease, OpenError, PostgresStore, Store};
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{CERTIFICATES, certificates, kubernetes::Kubernetes, waiting::turn_away};
use crate::{
    connection::DEFAULT_DATA_DIR,
    failure::{Outcome, Trying as _},
    show::print,
    up::{
        adapters::{Routes, Wake},
        classes, listen, log_to_stderr,
        settings::own_dir,
        signals::Signals,
        system::{embedded_store, host_name},
    },
};

/// A node whose agent is replaced is back within seconds; a machine that is gone should not be waited for much longer.
const NODE_LOSS: Duration = Duration::from_secs(30);
/// Before a database that cannot be reached at the start is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// Requests that are under way may end, when this one ends in good order.
const DRAIN: Duration = Duration::from_secs(5);
/// Exit code of one that does not lead any more: to be started again.
const NOT_LEADER: i32 = 75;

/// Be the control plane of a cluster, with API and router.
///
/// Several may run over one PostgreSQL: one leads and serves, the others wait until its lease is over. Actors run on meanwhile:
/// nothing is suspended when a leader goes, and the next one asks the nodes who runs. One that loses the lease ends at
/// once, to be started again.
#[derive(Args)]
#[command(after_help = "Examples:
  ate control --store postgres://ate@db/ate
  ate control --store /var/lib/ate/control --cert-dir ./certs
  ate control --store postgres://ate@db/ate --kubernetes")]
pub(crate) struct ControlServer {
    /// postgres://USER:PASSWORD@HOST/DATABASE, or the directory of an embedded store, which only one process can use.
    #[arg(long, env = "ATE_STORE", value_name = "URL|DIR", hide_env_values = true)]
    store: String,
    /// Name of this process among those over the same database [default: the machine's].
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    name: Option<String>,
    /// Address of the API, for users and nodes.
    #[arg(long, env = "ATE_LISTEN", default_value = "0.0.0.0:7600", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Address of the router.
    #[arg(long, env = "ATE_ROUTER_LISTEN", default_value = "0.0.0.0:8000", value_name = "ADDRESS")]
    router_listen: SocketAddr,
    /// Directory with ca.crt, tls.crt and tls.key.
    #[arg(long, env = "ATE_CERT_DIR", default_value = CERTIFICATES, value_name = "DIR")]
    cert_dir: PathBuf,
    /// Where the audit log is kept.
    #[arg(long, env = "ATE_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    data_dir: PathBuf,
    /// Directory with the herders, `ateom-CLASS`, which are asked what their classes are [default: beside this program].
    #[arg(long, env = "ATE_HERDER_DIR", value_name = "DIR")]
    herder_dir: Option<PathBuf>,
    /// Run in Kubernetes: its users may call, and templates, pools and configurations are declared there.
    #[arg(long, env = "ATE_KUBERNETES")]
    kubernetes: bool,
    /// Namespace of this installation.
    #[arg(long, env = "POD_NAMESPACE", default_value = "ate-system", value_name = "NAME")]
    system_namespace: String,
    /// What to log.
    #[arg(long, env = "ATE_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

impl ControlServer {
    pub(crate) async fn run(mut self) -> Outcome {
        log_to_stderr(&self.log)?;
        let mut signals = Signals::listen()?;
        let certificates = certificates(&self.cert_dir)?;
        let classes = classes(&self.herder_dir.take().unwrap_or_else(own_dir))?;
        std::fs::create_dir_all(&self.data_dir).trying(|| format!("cannot use {}", self.data_dir.display()))?;
        let api = listen::tcp(self.listen, "--listen").await?;
        let router = listen::tcp(self.router_listen, "--router-listen").await?;
        let name = self.name.take().unwrap_or_else(host_name);
        let kubernetes = match self.kubernetes {
            true => Some(Kubernetes::connect(&name, &self.system_namespace).await?),
            false => None,
        };
        print(&format!("control plane {name}: waiting to lead\n"));
        let (store, lease) = tokio::select! {
            opened = open(&self.store, &name) => opened?,
            never = turn_away(&api) => never,
            () = signals.next() => return Ok(()),
        };
        print(&format!("control plane {name}: leads\n"));
        let lead = async {
            let leader = Leader::start(&self, store, certificates, classes, api, router, kubernetes).await?;
            signals.next().await;
            signals.end_at_next();
            leader.end().await;
            Ok(())
        };
        let led = tokio::select! {
            led = lead => led,
            () = lost(lease.as_ref()) => {
                // Whatever it is doing: what it knows grows old, and another one leads.
                eprintln!("this process does not lead any more, and ends");
                std::process::exit(NOT_LEADER);
            }
        };
        if let Some(lease) = lease {
            lease.step_down().await;
        }
        print("ended\n");
        led
    }
}

async fn lost(lease: Option<&Lease>) {
    match lease {
        Some(lease) => lease.lost().await,
        None => std::future::pending().await,
    }
}

/// Opens the store, and waits until this process leads if others may.
async fn open(store: &str, name: &str) -> Outcome<(Arc<dyn Store>, Option<Lease>)> {
    let what = || "cannot open the store".to_owned();
    if !store.starts_with("postgres://") && !store.starts_with("postgresql://") {
        let opened = embedded_store(PathBuf::from(store)).await.trying(what)?;
        return Ok((Arc::new(opened), None));
    }
    let database = loop {
        match PostgresStore::connect(store).await {
            Ok(database) => break database,
            Err(e @ OpenError::Database(_)) => tracing::warn!("{e}"),
            Err(e) => return Err(Error::new(Reason::StorageUnavailable, e.to_string())).trying(what),
        }
        tokio::time::sleep(AGAIN).await;
    };
    let led = database.lead(name).await;
    let (store, lease) = led.map_err(|e| Error::new(Reason::StorageUnavailable, e.to_string())).trying(what)?;
    Ok((Arc::new(store), Some(lease)))
}

/// Everything of a control plane that leads.
struct Leader {
    control: Control,
    fleet: Fleet,
    stop: CancellationToken,
    router: tokio::task::JoinHandle<()>,
}

impl Leader {
    async fn start(
        given: &ControlServer,
        store: Arc<dyn Store>,
        certificates: Arc<Certificates>,
        classes: Registry,
        api: TcpListener,
        router: TcpListener,
        kubernetes: Option<Kubernetes>,
    ) -> Outcome<Leader> {
        let fleet = Fleet::new(NODE_LOSS);
        let table = Arc::new(RouteTable::new());
        let options = ate_control::Options {
            audit_log: Some(given.data_dir.join("audit.log")),
            reviewer: kubernetes.as_ref().map(Kubernetes::reviewer),
            ..Default::default()
        };
        let arch = options.arch.clone();
        let routes = Arc::new(Routes(table.clone()));
        let control = Control::start(options, store, Arc::new(fleet.clone()), routes, classes).await;
        let control = control.trying(|| "cannot start the control plane".to_owned())?;
        let stop = CancellationToken::new();
        let nodes = registry::service(fleet.clone(), arch, certificates.clone());
        let services = control.services().await.add_service(nodes);
        let incoming = tls::accept_all(api, certificates, stop.clone());
        let server = tonic::transport::Server::builder().add_routes(services);
        let served = server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
        tokio::spawn(async move {
            if let Err(e) = served.await {
                tracing::error!("the API ended: {e}");
            }
        });
        // Once the API is served: clients come here from then on.
        if let Some(kubernetes) = kubernetes {
            tokio::spawn(kubernetes.lead(control.clone(), stop.clone()));
        }
        let proxy = Router::new(table, Arc::new(Wake(control.clone())), RouterOptions::default());
        let drain = stop.clone();
        let router = tokio::spawn(async move { proxy.serve(router, drain).await });
        Ok(Leader { control, fleet, stop, router })
    }

    /// Suspends nobody: the next one goes on with whoever runs.
    async fn end(self) {
        self.stop.cancel();
        let _ = tokio::time::timeout(DRAIN, self.router).await;
        self.control.stop();
        self.fleet.close();
    }
}
