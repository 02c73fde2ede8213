//! Object storage: where a snapshot outlives the node that made it.
//!
//! ```text
//! {location}/actors/{actor uid}/{generation, 8 digits}-{activation}/{sha256}        a file as it is
//!                                                                  /{sha256}.zst    a file compressed
//!                                                                  /manifest.json   last
//! ```
//!
//! A snapshot exists when its manifest does. The manifest is created last and never replaced, so of two writers
//! one wins and the other learns it (I1). Files are named by their digest, so writers never mix their bytes.

mod bucket;
mod folder;
#[cfg(test)]
mod full_disk_tests;
mod prefix;
pub(crate) mod receive;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ate_api::id::{Activation, Digest, Uid};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use url::Url;

use self::prefix::Location;
pub use self::prefix::Prefix;
use crate::{
    Error, LocalSnapshot, LocalSnapshots, Manifest,
    blocking::{self, PARALLEL_FILES},
    files::Stamp,
    manifest::File,
};

/// The location that stands for the node's own folder.
pub const DEFAULT_LOCATION: &str = "default";
/// A fetch outlives the callers that wait for it, so it needs an end of its own: a snapshot of 100 GB over 1 Gbit/s.
const FETCH_DEADLINE: Duration = Duration::from_secs(20 * 60);

/// Object storage of every location. Clones are the same.
#[derive(Clone, Debug)]
pub struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    default: Location,
    /// Credentials and endpoints, as the store's own builders name them.
    options: Vec<(String, String)>,
    /// Scheme and bucket → client.
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    /// Prefixes that are being written or deleted by this process.
    busy: Mutex<HashSet<Prefix>>,
}

/// One snapshot, or what is left of one, in object storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub prefix: Prefix,
    /// Whether it has its manifest.
    pub complete: bool,
    /// Since the last change.
    pub age: Duration,
}

enum Place {
    Folder(Arc<folder::Place>),
    Bucket(bucket::Place),
}

impl Repository {
    /// `default_dir` is the folder behind the location `default`. Credentials of buckets come from the environment
    /// (`AWS_…`, `GOOGLE_…`) or from the machine's identity.
    pub fn new(default_dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let dir: PathBuf = default_dir.into();
        let refuse =
            || Error::Location { location: dir.display().to_string(), problem: "it names no folder".to_owned() };
        let absolute = std::path::absolute(&dir).map_err(|e| Error::io("find", &dir, &e))?;
        let default = Location::parse(Url::from_file_path(absolute).map_err(|()| refuse())?.as_str())?;
        let wanted = |name: &str| name.starts_with("AWS_") || name.starts_with("GOOGLE_");
        let options = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| wanted(name))
            .collect();
        let (stores, busy) = (Mutex::default(), Mutex::default());
        Ok(Repository { inner: Arc::new(Inner { default, options, stores, busy }) })
    }

    /// Where the snapshot of these numbers goes below a location as it stands in a template.
    pub fn prefix(
        &self,
        location: &str,
        actor: &Uid,
        generation: u64,
        activation: Activation,
    ) -> Result<Prefix, Error> {
        Ok(Prefix::new(self.location(location)?, actor, generation, activation))
    }

    /// Stores a snapshot. When this returns, it is durable and complete. The same snapshot again is fine; another
    /// one at the same prefix is [`Error::Fenced`]. What an upload that failed has written is removed, unless its
    /// manifest is there: then only the last step is unsure, and the caller repeats the call or deletes the prefix.
    pub async fn upload(&self, prefix: &Prefix, snapshot: &LocalSnapshot) -> Result<(), Error> {
        if snapshot.manifest.files.iter().any(|f| f.encoding.as_deref() != prefix.encoding()) {
            return Err(Error::Manifest(format!("its files are not encoded as {prefix} needs it")));
        }
        let claim = self.claim(prefix)?;
        let place = self.place(prefix)?;
        let (uploaded, _claim) = match &place {
            Place::Folder(folder) => {
                // File work goes on when the caller gives up, and keeps the claim as long as it does.
                let (folder, snapshot) = (folder.clone(), snapshot.clone());
                blocking::run(move || Ok((folder.upload(&snapshot), claim))).await?
            }
            Place::Bucket(bucket) => (bucket.upload(snapshot).await, claim),
        };
        if let Err(e) = &uploaded {
            // What an unfinished upload left takes space that may be what was missing.
            if !matches!(e, Error::Fenced(_)) && matches!(place.has_manifest().await, Ok(false)) {
                place.delete().await.ok();
            }
        }
        uploaded
    }

    /// A verified copy on this node: the one that is there, or else a fetched one. However many ask for the same
    /// snapshot, it is fetched once.
    pub async fn fetch(
        &self,
        prefix: &Prefix,
        digest: &Digest,
        local: &LocalSnapshots,
    ) -> Result<LocalSnapshot, Error> {
        match local.get(digest).await {
            Err(Error::NotFound(_) | Error::Corrupt { .. }) => {}
            found => return found,
        }
        let (this, prefix, digest2, local2) = (self.clone(), prefix.clone(), digest.clone(), local.clone());
        let fetch = async move {
            let fetched = tokio::time::timeout(FETCH_DEADLINE, this.fetch_now(&prefix, &digest2, &local2)).await;
            fetched.unwrap_or_else(|_| Err(Error::Storage(format!("{prefix} took too long to fetch"))))
        };
        local.share_fetch(digest, fetch).await
    }

    async fn fetch_now(
        &self,
        prefix: &Prefix,
        digest: &Digest,
        local: &LocalSnapshots,
    ) -> Result<LocalSnapshot, Error> {
        // Another fetch may have ended since the caller looked.
        match local.get(digest).await {
            Err(Error::NotFound(_) | Error::Corrupt { .. }) => {}
            found => return found,
        }
        let place = &self.place(prefix)?;
        let (manifest, bytes) = place.read_manifest(digest).await?;
        let mut staging = local.staging().await?;
        let dir = staging.dir();
        let fetched: Vec<(File, Stamp)> = stream::iter(manifest.files.clone())
            .map(|file| async move {
                let stamp = place.fetch_file(digest, &file, &dir.join(&file.name)).await?;
                Ok::<_, Error>((file, stamp))
            })
            .buffer_unordered(PARALLEL_FILES)
            .try_collect()
            .await?;
        fetched.into_iter().for_each(|(file, stamp)| staging.note(file, stamp));
        local.adopt_fetched(staging, manifest, bytes).await
    }

    /// The manifest as it is stored, with its bytes. Nothing else is fetched.
    pub async fn read_manifest(&self, prefix: &Prefix, digest: &Digest) -> Result<(Manifest, Vec<u8>), Error> {
        self.place(prefix)?.read_manifest(digest).await
    }

    /// Removes a snapshot, or what is left of one. Absent is fine.
    pub async fn delete(&self, prefix: &Prefix) -> Result<(), Error> {
        let _claim = self.claim(prefix)?;
        self.place(prefix)?.delete().await
    }

    /// Every snapshot below a location, with those that were never finished.
    pub async fn list(&self, location: &str) -> Result<Vec<Stored>, Error> {
        let location = self.location(location)?;
        if location.is_folder() {
            return blocking::run(move || folder::list(&location)).await;
        }
        let (store, base) = self.store(&location)?;
        bucket::list(&*store, &base, &location).await
    }

    /// Removes what is not in `live`, finished or not, and was written at least this long ago: longer than any upload
    /// with its commit may take.
    pub async fn collect(
        &self,
        location: &str,
        live: &HashSet<Prefix>,
        min_age: Duration,
    ) -> Result<Vec<Prefix>, Error> {
        let mut removed = Vec::new();
        for stored in self.list(location).await? {
            if !live.contains(&stored.prefix) && stored.age >= min_age {
                self.delete(&stored.prefix).await?;
                removed.push(stored.prefix);
            }
        }
        let location = self.location(location)?;
        if location.is_folder() {
            blocking::run(move || folder::remove_empty(&location, min_age)).await?;
        }
        Ok(removed)
    }

    /// A template's author chooses the location and the node writes there with its own power, so of this machine's
    /// folders only those below the default one may be named.
    fn location(&self, text: &str) -> Result<Location, Error> {
        let default = &self.inner.default;
        if text == DEFAULT_LOCATION {
            return Ok(default.clone());
        }
        let location = Location::parse(text)?;
        if location.is_folder() && !location.is_within(default) {
            let problem = format!("a folder must lie below {default}, where this node keeps its objects");
            return Err(Error::Location { location: text.to_owned(), problem });
        }
        Ok(location)
    }

    fn place(&self, prefix: &Prefix) -> Result<Place, Error> {
        if prefix.location.is_folder() {
            return Ok(Place::Folder(Arc::new(folder::Place::new(prefix))));
        }
        let (store, base) = self.store(&prefix.location)?;
        Ok(Place::Bucket(bucket::Place::new(store, &base, prefix)))
    }

    /// The client of a bucket, made once, and the path of the location inside of it.
    fn store(&self, location: &Location) -> Result<(Arc<dyn ObjectStore>, object_store::path::Path), Error> {
        let refuse = |problem: String| Error::Location { location: location.to_string(), problem };
        let url = location.url();
        let base = object_store::path::Path::from_url_path(url.path()).map_err(|e| refuse(e.to_string()))?;
        let bucket = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        let mut stores = self.inner.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&bucket) {
            return Ok((store.clone(), base));
        }
        let (store, _) = object_store::parse_url_opts(&url, self.inner.options.iter().cloned())
            .map_err(|e| refuse(e.to_string()))?;
        let store: Arc<dyn ObjectStore> = store.into();
        stores.insert(bucket, store.clone());
        Ok((store, base))
    }

    /// One writer of a prefix at a time in this process.
    fn claim(&self, prefix: &Prefix) -> Result<Claim, Error> {
        let mut busy = self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(prefix.clone()) {
            return Err(Error::Busy(prefix.to_string()));
        }
        Ok(Claim { inner: self.inner.clone(), prefix: prefix.clone() })
    }
}

impl Place {
    async fn has_manifest(&self) -> Result<bool, Error> {
        match self {
            Place::Folder(folder) => {
                let folder = folder.clone();
                blocking::run(move || folder.has_manifest()).await
            }
            Place::Bucket(bucket) => bucket.has_manifest().await,
        }
    }

    async fn read_manifest(&self, digest: &Digest) -> Result<(Manifest, Vec<u8>), Error> {
        let bytes = match self {
            Place::Folder(folder) => {
                let folder = folder.clone();
                blocking::run(move || folder.read_manifest()).await?
            }
            Place::Bucket(bucket) => bucket.read_manifest().await?,
        };
        Ok((Manifest::parse_verified(&bytes, digest)?, bytes))
    }

    async fn fetch_file(&self, snapshot: &Digest, file: &File, path: &Path) -> Result<Stamp, Error> {
        match self {
            Place::Folder(folder) => {
                let (folder, snapshot, file, path) = (folder.clone(), snapshot.clone(), file.clone(), path.to_owned());
                blocking::run(move || folder.fetch_file(&snapshot, &file, &path)).await
            }
            Place::Bucket(bucket) => bucket.fetch_file(snapshot, file, path).await,
        }
    }

    async fn delete(&self) -> Result<(), Error> {
        match self {
            Place::Folder(folder) => {
                let folder = folder.clone();
                blocking::run(move || folder.delete()).await
            }
            Place::Bucket(bucket) => bucket.delete().await,
        }
    }
}

/// Name of a file's object: its bytes decide, whoever writes it.
fn object_name(file: &File) -> String {
    match file.encoding {
        None => file.sha256.to_string(),
        Some(_) => format!("{}.zst", file.sha256),
    }
}

/// Held while a prefix is written or deleted.
struct Claim {
    inner: Arc<Inner>,
    prefix: Prefix,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.inner.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.prefix);
    }
}

impl fmt::Debug for Inner {
    /// Without the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Repository({})", self.default)
    }
}
