//! A node agent served to the control plane.

use std::{pin::Pin, sync::Arc};

use ate_agent::{AssetUpload, NodeAgent};
use ate_api::{Error, Reason};
use futures::{Stream, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    json::{MAX_MESSAGE, MAX_PIECES, PIECE, decode, encode},
    pb::{Json, Upload, node_server, upload::Part},
    tls::{self, Certificates},
};

/// The DNS name in the certificate of the control plane: of whoever may call nodes, and of whom nodes register with.
pub const CONTROL: &str = "control";
/// Chunks of an upload between the network and the disk.
const CHUNKS: usize = 16;

/// Serves a node until `stop`. Whoever calls must prove to be the control plane.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    node: Arc<dyn NodeAgent>,
    listener: TcpListener,
    certificates: Arc<Certificates>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let service = node_server::NodeServer::new(Server(node))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let incoming = tls::accept(listener, certificates, CONTROL, stop.clone());
    let mut server = tonic::transport::Server::builder().http2_keepalive_interval(Some(tls::KEEP_ALIVE));
    let served = server.add_service(service).serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await;
    served.map_err(|e| Error::new(Reason::Unavailable, format!("the node is not served any more: {e}")))
}

struct Server(Arc<dyn NodeAgent>);

type Answer<T> = Result<Response<T>, Status>;
type JsonStream = Pin<Box<dyn Stream<Item = Result<Json, Status>> + Send>>;

/// One call of the trait: arguments from JSON, result to JSON.
async fn call<A, T, W>(request: Request<Json>, work: impl FnOnce(A) -> W) -> Answer<Json>
where
    A: DeserializeOwned,
    T: Serialize,
    W: Future<Output = Result<T, Error>>,
{
    let arguments = decode(&request.into_inner().json)?;
    Ok(Response::new(encode(&work(arguments).await?)?))
}

fn stream<T: Serialize + Send + 'static>(values: mpsc::Receiver<T>) -> JsonStream {
    Box::pin(ReceiverStream::new(values).map(|value| encode(&value).map_err(Status::from)))
}

#[tonic::async_trait]
impl node_server::Node for Server {
    type EventsStream = JsonStream;
    type LogsStream = JsonStream;

    async fn events(&self, _: Request<Json>) -> Answer<JsonStream> {
        Ok(Response::new(stream(self.0.events())))
    }

    async fn set_pool(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |pool| self.0.set_pool(pool)).await
    }

    async fn remove_pool(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |pool| async move { self.0.remove_pool(&pool).await }).await
    }

    async fn check_signatures(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |(sandbox, verification, fetch)| async move {
            self.0.check_signatures(&sandbox, &verification, fetch).await
        })
        .await
    }

    async fn probe(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |sandbox| async move { self.0.probe(&sandbox).await }).await
    }

    async fn import_asset(&self, r: Request<Streaming<Upload>>) -> Answer<Json> {
        let mut parts = r.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|m| m.part) else {
            return Err(Error::new(Reason::Invalid, "the first message must be the header").into());
        };
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let upload = AssetUpload { media_type: header.media_type, size: header.size, chunks };
        let forward = async move {
            while let Some(message) = parts.message().await? {
                let Some(Part::Chunk(chunk)) = message.part.filter(|p| matches!(p, Part::Chunk(c) if c.len() <= PIECE))
                else {
                    return Err(Error::new(Reason::Invalid, "only chunks of a megabyte may follow the header").into());
                };
                if sender.send(chunk.into()).await.is_err() {
                    break; // its answer says why
                }
            }
            Ok::<_, Status>(())
        };
        let (imported, forwarded) = tokio::join!(self.0.import_asset(upload), forward);
        forwarded?;
        Ok(Response::new(encode(&imported?)?))
    }

    async fn assets(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |()| self.0.assets()).await
    }

    async fn delete_asset(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |asset| async move { self.0.delete_asset(&asset).await }).await
    }

    async fn set_revocations(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |list| self.0.set_revocations(list)).await
    }

    async fn resolve_image(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |reference: String| async move { self.0.resolve_image(&reference).await }).await
    }

    async fn prepare(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |prepare| self.0.prepare(prepare)).await
    }

    async fn activate(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |activate| self.0.activate(activate)).await
    }

    async fn capture(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |capture| self.0.capture(capture)).await
    }

    async fn thaw(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |(worker, actor, activation, generation)| async move {
            self.0.thaw(&worker, &actor, activation, generation).await
        })
        .await
    }

    async fn release(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |(worker, actor, activation)| async move { self.0.release(&worker, &actor, activation).await }).await
    }

    async fn manifest(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |snapshot| async move { self.0.manifest(&snapshot).await }).await
    }

    async fn delete_snapshot(&self, r: Request<Json>) -> Answer<Json> {
        call(r, |snapshot| async move { self.0.delete_snapshot(&snapshot).await }).await
    }

    async fn collect(&self, r: Request<Streaming<Json>>) -> Answer<Json> {
        let (mut pieces, mut whole) = (r.into_inner(), Vec::new());
        while let Some(piece) = pieces.message().await? {
            if whole.len() + piece.json.len() > MAX_PIECES {
                return Err(Error::new(Reason::Invalid, format!("the set is larger than {MAX_PIECES} bytes")).into());
            }
            whole.extend_from_slice(&piece.json);
        }
        let live = decode(&whole)?;
        drop(whole);
        Ok(Response::new(encode(&self.0.collect(live).await?)?))
    }

    async fn logs(&self, r: Request<Json>) -> Answer<JsonStream> {
        let (actor, container, tail, follow): (_, String, _, _) = decode(&r.into_inner().json)?;
        Ok(Response::new(stream(self.0.logs(&actor, &container, tail, follow).await?)))
    }
}
