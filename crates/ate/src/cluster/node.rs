//! `ate node`: the agent of one machine of a cluster.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use ate_api::{Error, Reason};
use ate_fleet::registry::{Registration, keep_registered};
use ate_node::{Node, Options, Source, network::Cidr};
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{CERTIFICATES, certificates, pods, secrets};
use crate::{
    connection::DEFAULT_DATA_DIR,
    failure::{Outcome, Trying as _},
    show::print,
    up::{listen, log_to_stderr, settings::own_dir, signals::Signals, system::host_name},
};

/// Be the agent of this machine in a cluster: it keeps binaries, images and snapshots, and drives the workers here.
///
/// It registers with the control plane again and again, and is called by whichever one leads. Both sides prove who they are by
/// certificates; files that are replaced are used from the next connection on. In Kubernetes the workers are pods, found by
/// watching those of this machine; they and their actors outlive this process, and the next one finds them again.
#[derive(Args)]
#[command(after_help = "Examples:
  ate node --control api.ate-system.svc:443 --kubernetes
  ate node --control 10.0.0.1:7600 --advertise 10.0.0.2:7601 --cert-dir ./certs")]
pub(crate) struct NodeServer {
    /// Name of this node, unique in the cluster [default: the machine's].
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    name: Option<String>,
    /// HOST:PORT of the control plane's API.
    #[arg(long, env = "ATE_CONTROL", default_value = "api.ate-system.svc:443", value_name = "ADDRESS")]
    control: String,
    /// Where the control plane reaches this agent.
    #[arg(long, env = "ATE_LISTEN", default_value = "0.0.0.0:7601", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// HOST:PORT of this agent as the control plane has to dial it [default: the pod's or machine's address].
    #[arg(long, env = "ATE_ADVERTISE", value_name = "ADDRESS")]
    advertise: Option<String>,
    #[arg(long, env = "POD_IP", hide = true)]
    pod_ip: Option<std::net::IpAddr>,
    /// Directory with ca.crt, tls.crt and tls.key.
    #[arg(long, env = "ATE_CERT_DIR", default_value = CERTIFICATES, value_name = "DIR")]
    cert_dir: PathBuf,
    /// Where everything is kept; in Kubernetes the same path on the machine, here and in worker pods.
    #[arg(long, env = "ATE_DATA_DIR", default_value = DEFAULT_DATA_DIR, value_name = "DIR")]
    data_dir: PathBuf,
    /// What the snapshot location `default` means; all nodes must see the same there [default: DATA_DIR/objects].
    #[arg(long, env = "ATE_OBJECTS_DIR", value_name = "DIR")]
    objects_dir: Option<PathBuf>,
    /// Directory with the herders, `ateom-CLASS` [default: beside this program].
    #[arg(long, env = "ATE_HERDER_DIR", value_name = "DIR")]
    herder_dir: Option<PathBuf>,
    /// Workers are the pods of this machine.
    #[arg(long, env = "ATE_KUBERNETES")]
    kubernetes: bool,
    /// Addresses of workers that are no pods.
    #[arg(long, env = "ATE_WORKER_CIDR", default_value_t = Cidr::DEFAULT, value_name = "CIDR")]
    worker_cidr: Cidr,
    /// What to log.
    #[arg(long, env = "ATE_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

impl NodeServer {
    pub(crate) async fn run(self) -> Outcome {
        log_to_stderr(&self.log)?;
        let mut signals = Signals::listen()?;
        let certificates = certificates(&self.cert_dir)?;
        let listener = listen::tcp(self.listen, "--listen").await?;
        let name = self.name.clone().unwrap_or_else(host_name);
        let address = self.address(&listener)?;
        let stop = CancellationToken::new();
        let (workers, secrets) = match self.kubernetes {
            true => (pods::of(&name, &self.data_dir, stop.clone()).await?, Some(secrets::of_cluster().await?)),
            false => (Source::Processes, None),
        };
        let options = Options {
            name: name.clone(),
            data_dir: self.data_dir.clone(),
            herder_dir: self.herder_dir.unwrap_or_else(own_dir),
            objects_dir: self.objects_dir.unwrap_or_else(|| self.data_dir.join("objects")),
            cidr: self.worker_cidr,
            egress: true,
            workers,
            secrets,
        };
        let node: Arc<Node> = Node::start(options).await.trying(|| "cannot start the node".to_owned())?;
        let registration = Registration { name: name.clone(), address, arch: ate_sandbox::host::arch().to_owned() };
        print(&format!("node {name}: serving at {}, registering with {}\n", registration.address, self.control));
        let registered = keep_registered(registration, self.control, certificates.clone(), stop.clone());
        let served = ate_fleet::server::serve(node.clone(), listener, certificates, stop.clone());
        let ended = tokio::select! {
            served = served => served.trying(|| "the node ended".to_owned()),
            () = registered => Ok(()),
            () = signals.next() => Ok(()),
        };
        signals.end_at_next();
        stop.cancel();
        node.shutdown().await;
        print("ended\n");
        ended
    }

    fn address(&self, listener: &tokio::net::TcpListener) -> Outcome<String> {
        if let Some(address) = &self.advertise {
            return Ok(address.clone());
        }
        let own = listener.local_addr().trying(|| "cannot listen".to_owned())?;
        match self.pod_ip {
            Some(ip) => Ok(SocketAddr::from((ip, own.port())).to_string()),
            None if !own.ip().is_unspecified() => Ok(own.to_string()),
            None => Err(Error::new(Reason::Invalid, "nobody knows where the control plane reaches this node")
                .hint("say so with --advertise HOST:PORT"))
            .trying(|| "cannot register".to_owned()),
        }
    }
}
