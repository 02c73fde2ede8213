//! Checks the signature of an asset against the bytes in the cache: before an archive is unpacked, before anything runs.

use std::fs::File;

use ate_api::{Error, Reason};
use ate_sandbox::{PinnedAsset, Verification};

use super::{AssetCache, AssetError};

impl AssetCache {
    /// Whether the bytes are what was signed for this asset. What is not here is fetched or, without `fetch`, left out.
    pub async fn check_signature(
        &self,
        asset: &PinnedAsset,
        verification: &Verification,
        fetch: bool,
    ) -> Result<(), Error> {
        // Both hash what is on disk, so the bytes read below are those the digest names.
        if fetch {
            self.0.fetch(asset).await?;
        } else if self.0.check(asset).await?.is_none() {
            return Ok(());
        }
        let (path, name, verification) = (self.0.store.file(&asset.sha256), asset.name.clone(), verification.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let file = File::open(&path).map_err(|e| AssetError::io(&name, "opening", &path, e))?;
            verification.verify(&name, file)
        });
        let died = |e: tokio::task::JoinError| Error::new(Reason::Internal, format!("checking a signature: {e}"));
        checked.await.map_err(died)?
    }
}
