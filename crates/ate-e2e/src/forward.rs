//! A port of this machine that leads to the router of a cluster, as `kubectl port-forward` makes one; to whichever replica
//! leads at the time.

use std::{net::SocketAddr, path::Path, sync::OnceLock};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const LEADER: &str = "app=ate-control,ate.dev/leader=true";
const PORT_NAME: &str = "router";

/// Serves as long as this process lives.
pub(crate) fn to_router(kubeconfig: &Path, system: &str) -> SocketAddr {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| Runtime::new().expect("a runtime"));
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    runtime.block_on(async {
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let client = Client::try_from(config.expect("a configuration")).expect("a client");
        let pods = Api::<Pod>::namespaced(client, system);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let pods = pods.clone();
                tokio::spawn(async move {
                    // The caller sees a connection that ends, and says so.
                    if let Err(why) = forward(caller, &pods).await {
                        eprintln!("no way to the router: {why}");
                    }
                });
            }
        });
        address
    })
}

async fn forward(mut caller: TcpStream, pods: &Api<Pod>) -> Result<(), Failure> {
    let leaders = pods.list(&ListParams::default().labels(LEADER)).await?.items;
    let leader = leaders.first().ok_or("nobody leads")?;
    let containers = leader.spec.iter().flat_map(|s| &s.containers);
    let mut ports = containers.flat_map(|c| c.ports.iter().flatten());
    let port = ports.find(|p| p.name.as_deref() == Some(PORT_NAME)).ok_or("the leader names no port")?;
    let port = u16::try_from(port.container_port)?;
    let name = leader.metadata.name.as_deref().unwrap_or_default();
    let mut forwarder = pods.portforward(name, &[port]).await?;
    let mut stream = forwarder.take_stream(port).ok_or("no stream")?;
    tokio::io::copy_bidirectional(&mut caller, &mut stream).await?;
    Ok(())
}
