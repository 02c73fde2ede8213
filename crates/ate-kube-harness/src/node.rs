//! A node as the API server knows it, and the one thing that is asked of its kubelet: to forward a port of a pod.
//!
//! Over a websocket of the protocol `v4.channel.k8s.io`, for one port: the first byte of a message names its channel, 0 for
//! data and 1 for an error; the first message of each channel, from here, holds the port (two bytes, the low one first).

use std::sync::Arc;

use futures::{SinkExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{ErrorResponse, Request, Response},
    http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL},
};

use crate::create;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// Serves until it is dropped.
pub struct PlayedNode(JoinHandle<()>);

impl Drop for PlayedNode {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Which port of which pod.
struct Wanted {
    namespace: String,
    pod: String,
    port: u16,
}

/// Adds a node to the cluster, with a kubelet on a port of its own. A pod of it is reached at its `status.podIP`.
///
/// # Panics
/// When there is one of this name, or no port.
pub async fn play_node(client: &Client, name: &str) -> PlayedNode {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let nodes: Api<Node> = Api::all(client.clone());
    create(nodes.clone(), json!({"metadata": {"name": name}})).await;
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
    let (client, tls) = (client.clone(), acceptor());
    PlayedNode(tokio::spawn(async move {
        while let Ok((caller, _)) = listener.accept().await {
            let (client, tls) = (client.clone(), tls.clone());
            tokio::spawn(async move {
                if let Err(why) = forward(caller, &tls, &client).await {
                    eprintln!("the kubelet of the test forwards nothing: {why}");
                }
            });
        }
    }))
}

/// The API server does not look at the certificate, as long as it is not told whom to trust.
fn acceptor() -> TlsAcceptor {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![own.cert.into()], key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

#[expect(clippy::result_large_err, reason = "the type is the library's")]
async fn forward(caller: TcpStream, tls: &TlsAcceptor, client: &Client) -> Result<(), Failure> {
    let caller = tls.accept(caller).await?;
    let mut wanted = None;
    let websocket = tokio_tungstenite::accept_hdr_async(caller, |request: &Request, response: Response| {
        wanted = Wanted::of(request);
        greet(response, wanted.is_some())
    });
    let (mut to_caller, mut from_caller) = websocket.await?.split();
    let wanted = wanted.ok_or("this is no request to forward a port")?;
    let [low, high] = wanted.port.to_le_bytes();
    for channel in [DATA, ERROR] {
        to_caller.send(Message::binary(vec![channel, low, high])).await?;
    }
    let (mut from_pod, mut to_pod) = match wanted.connect(client).await {
        Ok(pod) => pod.into_split(),
        Err(why) => {
            let said = format!("failed to connect to port {} of pod {}: {why}", wanted.port, wanted.pod);
            to_caller.send(Message::binary([&[ERROR], said.as_bytes()].concat())).await?;
            return Ok(to_caller.close().await?);
        }
    };
    let there = async {
        while let Some(Ok(message)) = from_caller.next().await {
            match message {
                Message::Binary(bytes) if bytes.first() == Some(&DATA) => to_pod.write_all(&bytes[1..]).await?,
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok::<_, std::io::Error>(())
    };
    let back = async {
        let mut chunk = vec![0; 32 * 1024];
        chunk[0] = DATA;
        loop {
            let n = from_pod.read(&mut chunk[1..]).await?;
            if n == 0 {
                return to_caller.close().await.map_err(std::io::Error::other);
            }
            to_caller.send(Message::binary(chunk[..=n].to_vec())).await.map_err(std::io::Error::other)?;
        }
    };
    // Whoever of the two ends first ends the connection.
    Ok(tokio::select! { done = there => done, done = back => done }?)
}

#[expect(clippy::result_large_err, reason = "the type is the library's")]
fn greet(mut response: Response, understood: bool) -> Result<Response, ErrorResponse> {
    if !understood {
        return Err(ErrorResponse::new(Some(format!("only GET /portForward/NAMESPACE/POD?port=N as {PROTOCOL}"))));
    }
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

impl Wanted {
    fn of(request: &Request) -> Option<Wanted> {
        let protocols = request.headers().get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
        protocols.split(',').find(|p| p.trim() == PROTOCOL)?;
        let (namespace, pod) = request.uri().path().strip_prefix("/portForward/")?.split_once('/')?;
        let port = request.uri().query()?.strip_prefix("port=")?.parse().ok()?;
        Some(Wanted { namespace: namespace.to_owned(), pod: pod.to_owned(), port })
    }

    async fn connect(&self, client: &Client) -> Result<TcpStream, Failure> {
        let pod = Api::<Pod>::namespaced(client.clone(), &self.namespace).get(&self.pod).await?;
        let address = pod.status.and_then(|s| s.pod_ip).ok_or("it has no address")?;
        Ok(TcpStream::connect((address.as_str(), self.port)).await?)
    }
}
