//! Brings the bytes of an asset onto the node: from one of its URLs, resuming what a broken transfer left,
//! hashed as they arrive, and published only when the digest is right.

use std::{fs::File, io, sync::Arc, time::Duration};

use ate_api::id::Digest;
use ate_failpoint::step;
use ate_sandbox::PinnedAsset;
use futures::TryStreamExt;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

use super::{
    AssetError, MAX_ASSET_BYTES, blocking,
    progress::{Board, Meter},
    source,
    store::{self, Record, Store},
};

/// For one asset from all its URLs, however slow the line. Whoever waits has a deadline of its own.
const DEADLINE: Duration = Duration::from_secs(3600);
/// Times one URL is continued after the connection broke, beside the retries before its first byte.
const CONTINUATIONS: u32 = 5;

pub(super) async fn fetch(store: &Arc<Store>, board: &Board, asset: &PinnedAsset) -> Result<Record, AssetError> {
    let all = tokio::time::timeout(DEADLINE, from_any(store, board, asset)).await;
    all.unwrap_or_else(|_| Err(unavailable(asset, "all urls", format!("took longer than {} s", DEADLINE.as_secs()))))
}

async fn from_any(store: &Arc<Store>, board: &Board, asset: &PinnedAsset) -> Result<Record, AssetError> {
    let mut worst: Option<AssetError> = None;
    for url in &asset.urls {
        match from_one(store, board, asset, url).await {
            Ok(record) => return Ok(record),
            Err(e @ (AssetError::DiskFull { .. } | AssetError::DiskFails { .. } | AssetError::Io { .. })) => {
                return Err(e);
            }
            Err(e) => {
                tracing::warn!(asset = asset.name, url, error = %e, "fetching an asset failed");
                // Wrong bytes say more than a server that is down.
                if worst.as_ref().is_none_or(|w| matches!(w, AssetError::Unavailable { .. })) {
                    worst = Some(e);
                }
            }
        }
    }
    Err(worst.unwrap_or_else(|| unavailable(asset, "anywhere", "no url is configured".into())))
}

fn unavailable(asset: &PinnedAsset, url: &str, message: String) -> AssetError {
    AssetError::Unavailable { name: asset.name.clone(), digest: asset.sha256.clone(), url: url.to_owned(), message }
}

async fn from_one(store: &Arc<Store>, board: &Board, asset: &PinnedAsset, url: &str) -> Result<Record, AssetError> {
    if source::local_path(url).is_some_and(|p| p == store.imported(&asset.sha256)) {
        let (store, asset, url) = (store.clone(), asset.clone(), url.to_owned());
        return blocking(move || adopt(&store, &asset, &url)).await;
    }
    let mut continuations = 0;
    loop {
        match attempt(store, board, asset, url).await? {
            Attempt::Complete(record) => return Ok(record),
            Attempt::Broken(message) if continuations == CONTINUATIONS => return Err(unavailable(asset, url, message)),
            Attempt::Broken(_) => continuations += 1,
        }
    }
}

async fn open(asset: &PinnedAsset, url: &str, offset: u64) -> Result<source::Opened, AssetError> {
    source::open(url, offset).await.map_err(|message| unavailable(asset, url, message))
}

enum Attempt {
    Complete(Record),
    /// Worth another try: some bytes came, or those kept from before were useless and are gone.
    Broken(String),
}

async fn attempt(store: &Arc<Store>, board: &Board, asset: &PinnedAsset, url: &str) -> Result<Attempt, AssetError> {
    let partial = store.partial(&asset.sha256);
    let failed = |e: io::Error| AssetError::io(&asset.name, "writing", &partial, e);
    let (opener, digest) = (store.clone(), asset.sha256.clone());
    let opened = blocking(move || {
        let mut file =
            opener.open_partial(&digest).map_err(|e| AssetError::io("", "opening", &opener.partial(&digest), e))?;
        let state =
            store::hash_state(&mut file).map_err(|e| AssetError::io("", "reading", &opener.partial(&digest), e))?;
        Ok((file, state))
    });
    let (file, (mut state, offset)) = opened.await?;
    let start_over = |file: &File| file.set_len(0).map_err(failed);
    if offset > 0 && digest_of(&state) == asset.sha256 {
        return publish(store, asset, file).await.map(Attempt::Complete);
    }
    let (limit, limited_by) = limit(asset);
    let too_large = || AssetError::TooLarge { name: asset.name.clone(), url: url.to_owned(), limit, limited_by };
    let mut offset = offset;
    let source = match step!("asset.open", open(asset, url, offset)) {
        // Perhaps only ranges are the problem. What is here is kept until the server has shown that it answers.
        Err(_) if offset > 0 => {
            let source = open(asset, url, 0).await?;
            start_over(&file)?;
            (state, offset) = (Sha256::new(), 0);
            source
        }
        source => source?,
    };
    if source.total > limit {
        start_over(&file)?;
        return Err(too_large());
    }
    let (total, mut bytes) = (source.total, source.bytes);
    let mut meter = Meter::new(board, asset.sha256.clone(), &asset.media_type);
    let mut size = offset;
    let mut out = tokio::fs::File::from_std(file);
    meter.at(size, total);
    loop {
        let chunk = match bytes.try_next().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(message) => {
                out.flush().await.map_err(failed)?;
                // Without progress another try is no better than this one.
                return if size > offset {
                    Ok(Attempt::Broken(message))
                } else {
                    Err(unavailable(asset, url, message))
                };
            }
        };
        size += chunk.len() as u64;
        if size > limit {
            start_over(&out.into_std().await)?;
            return Err(too_large());
        }
        state.update(&chunk);
        if let Err(e) = step!("asset.write", out.write_all(&chunk)).and(out.flush().await) {
            // Gives the space back: others may need it more.
            drop(out);
            let _ = std::fs::remove_file(&partial);
            return Err(failed(e));
        }
        meter.at(size, total);
    }
    let file = out.into_std().await;
    let actual = digest_of(&state);
    if actual == asset.sha256 {
        return publish(store, asset, file).await.map(Attempt::Complete);
    }
    start_over(&file)?;
    if offset > 0 {
        return Ok(Attempt::Broken("the bytes kept from before were not of this file".into()));
    }
    Err(AssetError::DigestMismatch {
        name: asset.name.clone(),
        url: url.to_owned(),
        expected: asset.sha256.clone(),
        actual,
    })
}

fn digest_of(state: &Sha256) -> Digest {
    Digest::from_bytes(state.clone().finalize().into())
}

/// What the asset may have at most, and who says so.
pub(super) fn limit(asset: &PinnedAsset) -> (u64, &'static str) {
    match asset.size {
        Some(size) if size < MAX_ASSET_BYTES => (size, "its declared size"),
        _ => (MAX_ASSET_BYTES, "the most an asset may have"),
    }
}

async fn publish(store: &Arc<Store>, asset: &PinnedAsset, file: File) -> Result<Record, AssetError> {
    let (store, asset) = (store.clone(), asset.clone());
    let publish = move || {
        let partial = store.partial(&asset.sha256);
        store.publish(&asset.name, &asset.sha256, &asset.media_type, &partial, &file)
    };
    blocking(publish).await
}

/// Takes over an imported file by hard link: no second copy. Blocking.
pub(super) fn adopt(store: &Store, asset: &PinnedAsset, url: &str) -> Result<Record, AssetError> {
    let imported = store.imported(&asset.sha256);
    let failed = |e: io::Error| AssetError::io(&asset.name, "linking", &imported, e);
    let tmp = tempfile::tempdir_in(store.tmp()).map_err(failed)?;
    let link = tmp.path().join("link");
    if let Err(e) = std::fs::hard_link(&imported, &link) {
        return match e.kind() {
            io::ErrorKind::NotFound => Err(unavailable(asset, url, "the import is no longer there".into())),
            _ => Err(failed(e)),
        };
    }
    // A hard link never follows a symlink, so a planted one is caught by its kind.
    if !std::fs::symlink_metadata(&link).map_err(failed)?.is_file() {
        return Err(unavailable(asset, url, "not a regular file".into()));
    }
    let mut file = File::open(&link).map_err(failed)?;
    let (limit, limited_by) = limit(asset);
    if file.metadata().map_err(failed)?.len() > limit {
        return Err(AssetError::TooLarge { name: asset.name.clone(), url: url.to_owned(), limit, limited_by });
    }
    let (actual, _) = store::hash(&mut file).map_err(failed)?;
    if actual != asset.sha256 {
        let (name, url, expected) = (asset.name.clone(), url.to_owned(), asset.sha256.clone());
        return Err(AssetError::DigestMismatch { name, url, expected, actual });
    }
    store.publish(&asset.name, &asset.sha256, &asset.media_type, &link, &file)
}
