//! The asset cache: the files sandboxes are made of, by digest.
//!
//! ```text
//! ROOT/files/sha256-DIGEST      verified, mode 0555, never changed
//! ROOT/trees/sha256-DIGEST/     an archive of files/, unpacked
//! ROOT/stamps/                  what each looked like when it was verified
//! ROOT/partial/sha256-DIGEST    being fetched, mode 0600
//! ROOT/imported/sha256-DIGEST   uploads; files/ has the same bytes by hard link
//! ROOT/quarantine/              changed on disk since; for people to look at
//! ROOT/tmp/                     being made; emptied at start
//! ```
//!
//! A path is given out only for bytes whose digest was computed here, on arrival, and that have not changed since
//! as far as one `stat` per file and directory can tell. Otherwise they are hashed again; if they differ they are put
//! away and fetched anew. Nothing is executable before it is verified.

mod archive;
mod error;
mod fetch;
mod import;
mod progress;
mod signature;
mod source;
mod stamp;
mod store;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ate_agent::{AssetPhase, AssetReport, AssetUpload};
use ate_api::id::Digest;
use ate_sandbox::PinnedAsset;
use tokio::sync::{RwLock, broadcast};

use crate::flight::Flights;
use archive::Listing;
use progress::Board;
use stamp::Stamp;
use store::{Record, Store};

pub use error::AssetError;

/// Of one asset, compressed or not. Sandbox binaries have 10 to 100 MB, guest images some GB.
pub const MAX_ASSET_BYTES: u64 = 8 << 30;
/// An archive of this type, compressed or not, is unpacked; all else is a file.
pub const MEDIA_TYPE_TAR: &str = "application/x-tar";
/// An import waits at least this long for a configuration that names it.
const IMPORT_MIN_AGE: Duration = Duration::from_secs(3600);
/// For a removal to find a moment in which nothing is fetched, and how often it looks.
const REMOVE_PATIENCE: Duration = Duration::from_secs(10);
const REMOVE_LOOK: Duration = Duration::from_millis(20);
/// What was found changed on disk stays this long for people to look at.
const QUARANTINE_AGE: Duration = Duration::from_secs(24 * 3600);

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    pub digest: Digest,
    pub size: u64,
    /// `file://` URL that is valid until the asset is collected.
    pub url: String,
    /// The same bytes had been imported before.
    pub existed: bool,
}

/// All assets of one node. Cheap to clone.
#[derive(Clone)]
pub struct AssetCache(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    board: Board,
    known: Mutex<HashMap<Digest, Known>>,
    /// Verifying what is on disk.
    checks: Flights<Digest, Result<Option<Record>, AssetError>>,
    fetches: Flights<Digest, Result<Record, AssetError>>,
    unpacks: Flights<Digest, Result<(), AssetError>>,
    /// Read by whoever adds or verifies, and by who does a part of that; written by whoever removes. Nobody waits in line
    /// to write: readers would wait behind that, and one that is read from a dead server is held for long.
    gate: RwLock<()>,
}

#[derive(Clone)]
struct Known {
    record: Record,
    /// Of the unpacked directory, if it was ever wanted.
    listing: Option<Arc<Listing>>,
    used: Instant,
}

impl AssetCache {
    /// Opens the cache and removes what a crash left behind. One owner at a time.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, AssetError> {
        let root = root.into();
        blocking(move || {
            let store = Store::open(&root)?;
            let (board, mut known) = (Board::new(), HashMap::new());
            let recorded = store.recorded().map_err(|e| AssetError::io("cache", "listing", &root, e))?;
            for digest in recorded {
                let Some(record) = store.record(&digest) else { continue };
                if !store.file(&digest).exists() {
                    store.remove(&digest)?;
                    continue;
                }
                let listing = store.listing(&digest).map(Arc::new);
                board.post(verified(&digest, &record));
                known.insert(digest, Known { record, listing, used: Instant::now() });
            }
            let (checks, fetches, unpacks) = (Flights::default(), Flights::default(), Flights::default());
            let (store, known, gate) = (Arc::new(store), Mutex::new(known), RwLock::new(()));
            Ok(AssetCache(Arc::new(Inner { store, board, known, checks, fetches, unpacks, gate })))
        })
        .await
    }

    /// The verified file, or for an archive its directory; fetched if it is not here. However many ask, it is
    /// fetched once, and also when they go away. When it is here, this costs one `stat` per file.
    pub async fn ensure(&self, asset: &PinnedAsset) -> Result<PathBuf, AssetError> {
        if let Some(path) = self.unchanged(asset).await? {
            return Ok(path);
        }
        let record = self.0.fetch(asset).await?;
        self.0.finish(asset, record).await
    }

    /// The same without fetching: `None` when it is not here.
    pub async fn verified_path(&self, asset: &PinnedAsset) -> Result<Option<PathBuf>, AssetError> {
        if let Some(path) = self.unchanged(asset).await? {
            return Ok(Some(path));
        }
        match self.0.check(asset).await? {
            Some(record) => self.0.finish(asset, record).await.map(Some),
            None => Ok(None),
        }
    }

    /// Takes an upload into the node's store; an archive must unpack.
    pub async fn import(&self, upload: AssetUpload) -> Result<Imported, AssetError> {
        let _gate = self.0.gate.read().await;
        let media_type = upload.media_type.clone();
        let imported = import::receive(&self.0.store, upload).await?;
        let asset = PinnedAsset {
            name: "upload".into(),
            sha256: imported.digest.clone(),
            size: Some(imported.size),
            media_type,
            urls: vec![imported.url.clone()],
        };
        // At once, so that an archive that is refused is refused now, and the first use finds it verified. Not by
        // joining a fetch under way: that may be the one that cannot reach its url.
        let (store, wanted) = (self.0.store.clone(), asset.clone());
        let record = blocking(move || fetch::adopt(&store, &wanted, &wanted.urls[0])).await?;
        self.0.remember(&asset, &record);
        if let Err(e) = self.0.finish(&asset, record).await {
            if !imported.existed {
                // The same bytes under files/ may serve somebody who has them from elsewhere; else they are collected.
                self.0.store.remove_import(&asset.sha256)?;
            }
            return Err(e);
        }
        Ok(imported)
    }

    /// What is here, on its way or failed, by digest.
    pub fn report(&self) -> Vec<AssetReport> {
        self.0.board.all()
    }

    /// Changes from now on. A slow reader misses steps (`Lagged`) and can ask for [`AssetCache::report`].
    pub fn subscribe(&self) -> broadcast::Receiver<AssetReport> {
        self.0.board.subscribe()
    }

    /// Removes what is not in `live` and was not used within `min_age` (imports: nor within an hour). Returns
    /// what it removed. Does nothing while an asset is being fetched.
    pub async fn collect(&self, live: &HashSet<Digest>, min_age: Duration) -> Result<Vec<Digest>, AssetError> {
        let Ok(_gate) = self.0.gate.try_write() else { return Ok(Vec::new()) };
        let (inner, live) = (self.0.clone(), live.clone());
        blocking(move || inner.collect(&live, min_age)).await
    }

    /// Removes one, wherever it came from. Nobody may use it. Waits a while for fetches under way.
    pub async fn remove(&self, digest: &Digest) -> Result<(), AssetError> {
        let end = Instant::now() + REMOVE_PATIENCE;
        let _gate = loop {
            match self.0.gate.try_write() {
                Ok(gate) => break gate,
                Err(_) if Instant::now() >= end => return Err(AssetError::Busy { digest: digest.clone() }),
                Err(_) => tokio::time::sleep(REMOVE_LOOK).await,
            }
        };
        let (inner, digest) = (self.0.clone(), digest.clone());
        blocking(move || {
            inner.known().remove(&digest);
            inner.board.remove(&digest);
            inner.store.remove(&digest)
        })
        .await
    }

    /// The path, if nothing changed since it was verified.
    async fn unchanged(&self, asset: &PinnedAsset) -> Result<Option<PathBuf>, AssetError> {
        let known = {
            let mut known = self.0.known();
            let Some(found) = known.get_mut(&asset.sha256) else { return Ok(None) };
            found.used = Instant::now();
            found.clone()
        };
        let file = self.0.store.file(&asset.sha256);
        if !self.0.store.is_protected() || Stamp::at(&file).ok().as_ref() != Some(&known.record.stamp) {
            return Ok(None);
        }
        if !is_archive(asset) {
            return Ok(Some(file));
        }
        let Some(listing) = known.listing else { return Ok(None) };
        let tree = self.0.store.tree(&asset.sha256);
        blocking(move || Ok(archive::unchanged(&tree, &listing).then_some(tree))).await
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, asset: &PinnedAsset, record: &Record) {
        self.board.post(verified(&asset.sha256, record));
        let (record, used) = (record.clone(), Instant::now());
        let mut known = self.known();
        let listing = known.remove(&asset.sha256).and_then(|k| k.listing);
        known.insert(asset.sha256.clone(), Known { record, listing, used });
    }

    /// Hashes again what is on disk under this digest, if anything is. What is not right is put away.
    async fn check(self: &Arc<Self>, asset: &PinnedAsset) -> Result<Option<Record>, AssetError> {
        let (inner, wanted) = (self.clone(), asset.clone());
        let work = async move {
            let (store, asset) = (inner.store.clone(), wanted.clone());
            let verify = move || store.verify_again(&asset.name, &asset.sha256, &asset.media_type);
            let found = blocking(verify).await?;
            match &found {
                Some(record) => inner.remember(&wanted, record),
                None => drop(inner.known().remove(&wanted.sha256)),
            }
            Ok(found)
        };
        self.checks.run(asset.sha256.clone(), work).await.ok_or_else(|| lost(asset))?
    }

    /// Checks what is here and fetches what is not.
    async fn fetch(self: &Arc<Self>, asset: &PinnedAsset) -> Result<Record, AssetError> {
        let (inner, wanted) = (self.clone(), asset.clone());
        let work = async move {
            let _gate = inner.gate.read().await;
            if let Some(record) = inner.check(&wanted).await? {
                return Ok(record);
            }
            let mut fetched = fetch::fetch(&inner.store, &inner.board, &wanted).await;
            if fetched.is_err()
                && let Some(record) = inner.check(&wanted).await?
            {
                // Imported while the urls were tried in vain.
                fetched = Ok(record);
            }
            match &fetched {
                Ok(record) => inner.remember(&wanted, record),
                Err(e) => inner.board.post(failed(&wanted, e)),
            }
            fetched
        };
        self.fetches.run(asset.sha256.clone(), work).await.ok_or_else(|| lost(asset))?
    }

    /// The path of a file that was just verified; an archive is unpacked unless it is.
    async fn finish(self: &Arc<Self>, asset: &PinnedAsset, record: Record) -> Result<PathBuf, AssetError> {
        if !is_archive(asset) {
            return Ok(self.store.file(&asset.sha256));
        }
        let (inner, wanted) = (self.clone(), asset.clone());
        let work = async move {
            let _gate = inner.gate.read().await;
            let (store, asset) = (inner.store.clone(), wanted.clone());
            let unpacked = blocking(move || match store.listing(&asset.sha256) {
                Some(l) if archive::unchanged(&store.tree(&asset.sha256), &l) => Ok(l),
                _ => store.unpack(&asset.name, &asset.sha256),
            });
            let listing = unpacked.await.inspect_err(|e| inner.board.post(failed(&wanted, e)))?;
            let known = Known { record, listing: Some(Arc::new(listing)), used: Instant::now() };
            inner.known().insert(wanted.sha256.clone(), known);
            Ok(())
        };
        self.unpacks.run(asset.sha256.clone(), work).await.ok_or_else(|| lost(asset))??;
        Ok(self.store.tree(&asset.sha256))
    }

    fn collect(&self, live: &HashSet<Digest>, min_age: Duration) -> Result<Vec<Digest>, AssetError> {
        let mut old = Vec::new();
        self.known().retain(|digest, known| {
            let imported = self.store.imported(digest);
            let age = if imported.exists() { min_age.max(IMPORT_MIN_AGE) } else { min_age };
            let stays = live.contains(digest) || known.used.elapsed() < age;
            if !stays {
                old.push(digest.clone());
            }
            stays
        });
        for digest in &old {
            self.board.remove(digest);
            self.store.remove(digest)?;
        }
        let unlisted = |e| AssetError::io("cache", "listing", &self.store.tmp(), e);
        for (dir, age) in [("partial", min_age), ("files", min_age), ("imported", min_age.max(IMPORT_MIN_AGE))] {
            for digest in self.store.older(dir, age).map_err(unlisted)? {
                if !live.contains(&digest) && !self.known().contains_key(&digest) {
                    self.store.remove(&digest)?;
                    old.push(digest);
                }
            }
        }
        self.store.clear_quarantine(QUARANTINE_AGE).map_err(unlisted)?;
        Ok(old)
    }
}

fn is_archive(asset: &PinnedAsset) -> bool {
    asset.media_type == MEDIA_TYPE_TAR
}

fn verified(digest: &Digest, record: &Record) -> AssetReport {
    AssetReport {
        sha256: digest.clone(),
        phase: AssetPhase::Verified,
        size: record.size,
        total: Some(record.size),
        media_type: record.media_type.clone(),
        message: String::new(),
    }
}

fn failed(asset: &PinnedAsset, e: &AssetError) -> AssetReport {
    AssetReport {
        sha256: asset.sha256.clone(),
        phase: AssetPhase::Failed,
        size: 0,
        total: asset.size,
        media_type: asset.media_type.clone(),
        message: e.to_string(),
    }
}

fn lost(asset: &PinnedAsset) -> AssetError {
    AssetError::Io { action: format!("fetching asset {}", asset.name), message: "the task died".into() }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AssetError> + Send + 'static,
) -> Result<T, AssetError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| AssetError::Io { action: "working on an asset".into(), message: e.to_string() })?
}
