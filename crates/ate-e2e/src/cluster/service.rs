//! What a Service does: one address for several pods, of which those with a label get the connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

const NOBODY: usize = usize::MAX;

pub(super) struct Service {
    address: SocketAddr,
    pods: Vec<SocketAddr>,
    target: AtomicUsize,
}

impl Service {
    pub(super) async fn start(pods: Vec<SocketAddr>) -> Arc<Service> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Service { address, pods, target: AtomicUsize::new(NOBODY) });
        let serving = service.clone();
        tokio::spawn(async move {
            loop {
                let Ok((mut caller, _)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                // Without an endpoint a connection is refused; here it is closed.
                let Some(pod) = serving.target().map(|n| serving.pods[n]) else { continue };
                tokio::spawn(async move {
                    if let Ok(mut pod) = TcpStream::connect(pod).await {
                        let _ = tokio::io::copy_bidirectional(&mut caller, &mut pod).await;
                    }
                });
            }
        });
        service
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn target(&self) -> Option<usize> {
        Some(self.target.load(SeqCst)).filter(|n| *n != NOBODY)
    }

    /// The one pod with the label; none while nobody or more than one has it.
    pub(super) fn select(&self, target: Option<usize>) {
        self.target.store(target.unwrap_or(NOBODY), SeqCst);
    }
}
