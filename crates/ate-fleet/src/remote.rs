//! A node elsewhere. The connection is made when it is needed, and again when it breaks; a call whose answer is lost with
//! the connection is repeated, for every call of the trait may be.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use ate_agent::{
    Activate, Activated, AssetReport, AssetUpload, Capture, Captured, LiveSet, LogTail, NodeAgent, NodeEvents,
    PoolSpec, Prepare, Probed, ResolvedImage, SnapshotRef,
};
use ate_api::{
    Error, Reason,
    id::{Activation, Digest, ObjectName, Uid, WorkerId},
};
use ate_sandbox::{Revocations, SandboxRef, Verification};
use futures::StreamExt;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming, transport::Channel};

use crate::{
    json::{MAX_MESSAGE, decode, encode, pieces},
    pb::{Json, Upload, UploadHeader, node_client::NodeClient, upload::Part},
    tls::{self, Certificates},
};

/// The DNS name in the certificates of nodes.
pub const NODE: &str = "node";
/// How long calls are repeated while the node is away. Its agent is replaced within seconds, and a caller that hears
/// nothing for longer had better look elsewhere.
const PATIENCE: Duration = Duration::from_secs(15);
/// First and longest pause between two tries.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Values of a stream between the network and whoever reads them.
const BACKLOG: usize = 4096;

/// The agent of a node at an address.
#[derive(Clone)]
pub struct RemoteNode {
    name: String,
    client: NodeClient<Channel>,
}

impl RemoteNode {
    /// Connects when it is first called. `address` is `host:port`.
    pub fn new(name: String, address: String, certificates: Arc<Certificates>) -> Self {
        let channel = tls::channel(address, certificates, NODE);
        let client = NodeClient::new(channel);
        let client = client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
        RemoteNode { name, client }
    }

    /// Calls until there is an answer of the node itself.
    async fn call<A, T, W>(&self, arguments: A, rpc: impl Fn(NodeClient<Channel>, Json) -> W) -> Result<T, Error>
    where
        A: Serialize,
        T: DeserializeOwned,
        W: Future<Output = Result<Response<Json>, Status>>,
    {
        let json = encode(&arguments)?;
        self.until_answered(|| rpc(self.client.clone(), json.clone())).await
    }

    async fn until_answered<T, W>(&self, rpc: impl Fn() -> W) -> Result<T, Error>
    where
        T: DeserializeOwned,
        W: Future<Output = Result<Response<Json>, Status>>,
    {
        let (begun, mut pause) = (Instant::now(), PAUSE.0);
        loop {
            let status = match rpc().await {
                Ok(answer) => return decode(&answer.into_inner().json),
                Err(status) => status,
            };
            if !is_of_connection(&status) || begun.elapsed() + pause > PATIENCE {
                return Err(self.failure(&status));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// The node's own error, or that the connection broke: then nobody knows what became of the call.
    fn failure(&self, status: &Status) -> Error {
        if !is_of_connection(status) {
            return Error::from(status);
        }
        let message = format!("node {} does not answer: {}", self.name, tls::cause(status));
        Error::new(Reason::Unavailable, message).on(format!("node/{}", self.name))
    }

    /// Values until the stream or its reader ends.
    async fn forward<T: DeserializeOwned>(&self, mut values: Streaming<Json>, to: mpsc::Sender<T>) {
        loop {
            let next = tokio::select! {
                next = values.next() => next,
                () = to.closed() => return,
            };
            let value = match next {
                Some(Ok(value)) => decode(&value.json),
                Some(Err(status)) => {
                    return tracing::debug!(node = self.name, "a stream broke: {}", tls::cause(&status));
                }
                None => return,
            };
            match value {
                Ok(value) => {
                    if to.send(value).await.is_err() {
                        return;
                    }
                }
                Err(e) => return tracing::error!(node = self.name, "{e}"),
            }
        }
    }
}

/// Not the node's own answer.
fn is_of_connection(status: &Status) -> bool {
    let lost = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal);
    lost && Error::told_by(status).is_none()
}

#[async_trait]
impl NodeAgent for RemoteNode {
    fn name(&self) -> &str {
        &self.name
    }

    fn keeps_workers(&self) -> bool {
        true
    }

    fn events(&self) -> NodeEvents {
        let (to, events) = mpsc::channel(BACKLOG);
        let node = self.clone();
        tokio::spawn(async move {
            match node.client.clone().events(Json::default()).await {
                Ok(values) => node.forward(values.into_inner(), to).await,
                Err(status) => tracing::debug!(node = node.name, "no events: {}", tls::cause(&status)),
            }
        });
        events
    }

    async fn set_pool(&self, pool: PoolSpec) -> Result<(), Error> {
        self.call(pool, |mut c, json| async move { c.set_pool(json).await }).await
    }

    async fn remove_pool(&self, pool: &ObjectName) -> Result<(), Error> {
        self.call(pool, |mut c, json| async move { c.remove_pool(json).await }).await
    }

    async fn check_signatures(
        &self,
        sandbox: &SandboxRef,
        verification: &Verification,
        fetch: bool,
    ) -> Result<(), Error> {
        let arguments = (sandbox, verification, fetch);
        self.call(arguments, |mut c, json| async move { c.check_signatures(json).await }).await
    }

    async fn probe(&self, sandbox: &SandboxRef) -> Result<Probed, Error> {
        self.call(sandbox, |mut c, json| async move { c.probe(json).await }).await
    }

    /// Not repeated: the bytes are gone by then.
    async fn import_asset(&self, upload: AssetUpload) -> Result<(Digest, u64, String, bool), Error> {
        let AssetUpload { media_type, size, chunks } = upload;
        let header = Upload { part: Some(Part::Header(UploadHeader { media_type, size })) };
        let chunks = ReceiverStream::new(chunks).map(|chunk| Upload { part: Some(Part::Chunk(chunk.into())) });
        let parts = futures::stream::once(async { header }).chain(chunks);
        let answer = self.client.clone().import_asset(parts).await.map_err(|status| self.failure(&status))?;
        decode(&answer.into_inner().json)
    }

    async fn assets(&self) -> Result<Vec<AssetReport>, Error> {
        self.call((), |mut c, json| async move { c.assets(json).await }).await
    }

    async fn delete_asset(&self, asset: &Digest) -> Result<(), Error> {
        self.call(asset, |mut c, json| async move { c.delete_asset(json).await }).await
    }

    async fn set_revocations(&self, revocations: Revocations) -> Result<(), Error> {
        self.call(revocations, |mut c, json| async move { c.set_revocations(json).await }).await
    }

    async fn resolve_image(&self, reference: &str) -> Result<ResolvedImage, Error> {
        self.call(reference, |mut c, json| async move { c.resolve_image(json).await }).await
    }

    async fn prepare(&self, prepare: Prepare) -> Result<(), Error> {
        self.call(prepare, |mut c, json| async move { c.prepare(json).await }).await
    }

    async fn activate(&self, activate: Activate) -> Result<Activated, Error> {
        self.call(activate, |mut c, json| async move { c.activate(json).await }).await
    }

    async fn capture(&self, capture: Capture) -> Result<Captured, Error> {
        self.call(capture, |mut c, json| async move { c.capture(json).await }).await
    }

    async fn thaw(&self, worker: &WorkerId, actor: &Uid, activation: Activation, generation: u64) -> Result<(), Error> {
        self.call((worker, actor, activation, generation), |mut c, json| async move { c.thaw(json).await }).await
    }

    async fn release(&self, worker: &WorkerId, actor: &Uid, activation: Activation) -> Result<(), Error> {
        self.call((worker, actor, activation), |mut c, json| async move { c.release(json).await }).await
    }

    async fn manifest(&self, snapshot: &SnapshotRef) -> Result<Vec<u8>, Error> {
        self.call(snapshot, |mut c, json| async move { c.manifest(json).await }).await
    }

    async fn delete_snapshot(&self, snapshot: &SnapshotRef) -> Result<(), Error> {
        self.call(snapshot, |mut c, json| async move { c.delete_snapshot(json).await }).await
    }

    async fn collect(&self, live: LiveSet) -> Result<(), Error> {
        let whole = encode(&live)?.json;
        drop(live);
        self.until_answered(|| {
            let (mut client, pieces) = (self.client.clone(), futures::stream::iter(pieces(whole.clone())));
            async move { client.collect(pieces).await }
        })
        .await
    }

    async fn logs(&self, actor: &Uid, container: &str, tail: u32, follow: bool) -> Result<LogTail, Error> {
        let json = encode(&(actor, container, tail, follow))?;
        let values = self.client.clone().logs(json).await.map_err(|status| self.failure(&status))?;
        let (to, lines) = mpsc::channel(BACKLOG);
        let node = self.clone();
        tokio::spawn(async move { node.forward(values.into_inner(), to).await });
        Ok(lines)
    }
}
