//! Takes an uploaded asset into the node's own store and gives it a URL that stays.

use std::{fs, io, sync::Arc, time::Duration};

use ate_agent::AssetUpload;
use ate_api::id::Digest;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;
use url::Url;

use super::{AssetError, Imported, MAX_ASSET_BYTES, blocking, store::Store};
use crate::disk;

/// Between two pieces of an upload; a client that is gone for longer does not come back.
const STALL: Duration = Duration::from_secs(60);
/// Name of an asset in messages before a configuration gives it one.
const UNNAMED: &str = "upload";

/// Stores the bytes. What they are worth (an archive that unpacks?) is not looked at here.
pub(super) async fn receive(store: &Arc<Store>, mut upload: AssetUpload) -> Result<Imported, AssetError> {
    if upload.size > MAX_ASSET_BYTES {
        return Err(too_large(MAX_ASSET_BYTES, "the most an asset may have"));
    }
    let tmp = store.tmp();
    let failed = |e: io::Error| AssetError::io(UNNAMED, "writing into", &tmp, e);
    let file = tempfile::NamedTempFile::new_in(&tmp).map_err(failed)?;
    let mut out = tokio::fs::File::from_std(file.reopen().map_err(failed)?);
    let (mut state, mut size) = (Sha256::new(), 0u64);
    loop {
        let next = tokio::time::timeout(STALL, upload.chunks.recv()).await;
        let Ok(next) = next else {
            return Err(AssetError::Incomplete { message: format!("nothing came for {} s", STALL.as_secs()) });
        };
        let Some(chunk) = next else { break };
        size += chunk.len() as u64;
        if size > upload.size {
            return Err(too_large(upload.size, "its declared size"));
        }
        state.update(&chunk);
        out.write_all(&chunk).await.map_err(failed)?;
    }
    out.flush().await.map_err(failed)?;
    if size != upload.size {
        return Err(AssetError::Incomplete { message: format!("it ended after {size} of {} bytes", upload.size) });
    }
    let digest = Digest::from_bytes(state.finalize().into());
    let store = store.clone();
    blocking(move || keep(&store, file, digest, size)).await
}

fn too_large(limit: u64, limited_by: &'static str) -> AssetError {
    AssetError::TooLarge { name: UNNAMED.into(), url: "the upload".into(), limit, limited_by }
}

/// Replaces an earlier import of the same bytes: that heals one that was damaged since.
fn keep(store: &Store, file: tempfile::NamedTempFile, digest: Digest, size: u64) -> Result<Imported, AssetError> {
    let path = store.imported(&digest);
    let failed = |e: io::Error| AssetError::io(UNNAMED, "storing", &path, e);
    let existed = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == size);
    file.as_file().sync_all().map_err(failed)?;
    file.persist(&path).map_err(|e| failed(e.error))?;
    path.parent().map_or(Ok(()), disk::sync_dir).map_err(failed)?;
    let url = Url::from_file_path(&path).map_err(|()| failed(io::ErrorKind::InvalidInput.into()))?;
    Ok(Imported { digest, size, url: url.into(), existed })
}
