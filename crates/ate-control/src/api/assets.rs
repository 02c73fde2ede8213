//! `ate.v1.Assets`: binaries on their way into the node's store.

use ate_agent::AssetUpload;
use ate_api::{
    Error, Reason,
    v1::{ImportRequest, ImportResponse, assets_server::Assets, import_request::Part},
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use super::Kind;
use crate::access::{Ask, Gate, Verb};

/// Chunks between the network and the disk: 16 MiB at most.
const CHUNKS: usize = 16;
/// Largest chunk, as the proto says.
const MAX_CHUNK: usize = 1 << 20;

pub(crate) struct AssetsService(pub(crate) Gate);

#[tonic::async_trait]
impl Assets for AssetsService {
    async fn import(&self, request: Request<Streaming<ImportRequest>>) -> Result<Response<ImportResponse>, Status> {
        // Before the first byte is read. The name is a label in messages only and comes with the header.
        let core = self.0.admit(&request, &[Ask::all(Verb::Import, Kind::Asset, "")]).await?.core;
        core.takes_uploads()?;
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = parts.message().await?.and_then(|m| m.part) else {
            return Err(Error::new(Reason::Invalid, "the first message must be the header").into());
        };
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let upload = AssetUpload { media_type: header.media_type, size: header.size, chunks };
        let forward = forward(parts, sender, header.size);
        let (imported, forwarded) = tokio::join!(core.node.import_asset(upload), forward);
        // What went wrong on the wire explains what the node then missed.
        forwarded?;
        let (sha256, size, url, existed) = imported.map_err(|e| e.on(format!("asset/{}", header.name)))?;
        Ok(Response::new(ImportResponse { sha256: sha256.to_string(), size, url, existed }))
    }
}

async fn forward(mut parts: Streaming<ImportRequest>, sender: mpsc::Sender<Vec<u8>>, size: u64) -> Result<(), Status> {
    let mut left = size;
    while let Some(message) = parts.message().await? {
        let Some(Part::Chunk(chunk)) = message.part else {
            return Err(Error::new(Reason::Invalid, "only chunks may follow the header").into());
        };
        let len = chunk.len() as u64;
        if chunk.len() > MAX_CHUNK || len > left {
            return Err(Error::new(
                Reason::AssetTooLarge,
                "more bytes than the header declared, or a chunk over 1 MiB",
            )
            .into());
        }
        left -= len;
        if sender.send(chunk).await.is_err() {
            // The node gave up; its answer says why.
            return Ok(());
        }
    }
    if left > 0 {
        return Err(Error::new(Reason::Invalid, format!("{left} bytes fewer than the header declared")).into());
    }
    Ok(())
}
