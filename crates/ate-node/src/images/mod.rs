//! The image cache: finds images, verifies every blob, unpacks each layer once.
//!
//! ```text
//! ROOT/blobs/sha256-DIGEST     manifests and configurations, verified again whenever they are read
//! ROOT/layers/sha256-CHAIN/    one unpacked layer, for overlayfs; never changed once it has this name
//! ROOT/erofs/sha256-CHAIN/     an image as one file, for classes that want it so (see [`erofs`])
//! ROOT/tmp/                    being made; emptied at start
//! ```
//!
//! A layer is named by its chain id (OCI image specification): the digest over its own content and that of all
//! layers below, because what it means depends on them (see [`layer`]). Images on the same base share its layers.
//! Bytes are unpacked as they are hashed and get their final name only when blob digest, size and diff id match.

mod credentials;
mod document;
mod erofs;
mod error;
#[cfg(test)]
mod fuzz;
mod layer;
mod merged;
mod reference;
mod source;
mod store;
mod user;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ate_api::id::Digest;
use tokio::sync::RwLock;

use crate::flight::Flights;
use document::{Document, MAX_INDEX_DEPTH};
use reference::Reference;
use source::Source;
use store::Store;

pub use document::ImageConfig;
pub use erofs::ImageFile;
pub use error::ImageError;
pub use user::User;

/// An image on this node, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Of the image manifest of this platform.
    pub digest: Digest,
    /// Absolute directories, lowest first, ready as lower layers of an overlay. Shared: nobody may write there.
    pub layers: Vec<PathBuf>,
    pub config: ImageConfig,
}

impl Image {
    /// Resolves a user specification (`""`, `uid`, `uid:gid`, `name`, `name:group`) in this image.
    pub async fn user(&self, spec: &str) -> Result<User, ImageError> {
        let (layers, spec, image) = (self.layers.clone(), spec.to_owned(), self.digest.clone());
        let lookup = move || {
            user::resolve(&layers, &spec)
                .map_err(|e| ImageError::unpack(&image, layers.last().unwrap_or(&PathBuf::new()), e))
        };
        blocking(&self.digest, lookup).await
    }
}

/// All images of one node. Cheap to clone.
#[derive(Clone)]
pub struct ImageCache(Arc<Inner>);

struct Inner {
    store: Arc<Store>,
    known: Mutex<HashMap<Digest, Known>>,
    /// By reference and wanted digest.
    flights: Flights<(String, Option<Digest>), Result<Arc<Image>, ImageError>>,
    /// By chain id.
    layers: Flights<Digest, Result<(), ImageError>>,
    /// By the path of the highest layer.
    files: Flights<Option<PathBuf>, Result<ImageFile, ImageError>>,
    /// Read by whoever adds or loads, written by the collector, which never waits for it.
    gate: RwLock<()>,
}

struct Known {
    image: Arc<Image>,
    file: Option<ImageFile>,
    used: Instant,
}

impl ImageCache {
    /// Opens the cache and removes what a crash left behind. One owner at a time.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, ImageError> {
        let root = root.into();
        let store = Arc::new(blocking("cache", move || Store::open(&root)).await?);
        let known = Mutex::default();
        let (flights, layers, files) = (Flights::default(), Flights::default(), Flights::default());
        Ok(ImageCache(Arc::new(Inner { store, known, flights, layers, files, gate: RwLock::new(()) })))
    }

    /// Asks the source what the reference names now, fetches what is missing and unpacks it.
    pub async fn resolve(&self, reference: &str) -> Result<Arc<Image>, ImageError> {
        self.fetch(reference, None).await
    }

    /// Exactly this image: the one on this node, else fetched by digest from where the reference points.
    pub async fn ensure(&self, reference: &str, digest: &Digest) -> Result<Arc<Image>, ImageError> {
        match self.get(digest).await? {
            Some(image) => Ok(image),
            None => self.fetch(reference, Some(digest.clone())).await,
        }
    }

    /// The image, if it is on this node.
    pub async fn get(&self, digest: &Digest) -> Result<Option<Arc<Image>>, ImageError> {
        if let Some(known) = self.known().get_mut(digest) {
            known.used = Instant::now();
            return Ok(Some(known.image.clone()));
        }
        let _gate = self.0.gate.read().await;
        self.load(digest).await
    }

    async fn load(&self, digest: &Digest) -> Result<Option<Arc<Image>>, ImageError> {
        let (inner, wanted) = (self.0.clone(), digest.clone());
        let loaded = blocking(digest, move || inner.store.load(&wanted)).await?;
        Ok(loaded.map(|image| self.remember(image)))
    }

    /// The image as one file: from memory if it was asked for before, else built, which takes as long as copying
    /// the image. Images of the same layers share it.
    pub async fn as_file(&self, image: &Arc<Image>) -> Result<ImageFile, ImageError> {
        if let Some(file) = self.known().get(&image.digest).and_then(|known| known.file.clone()) {
            return Ok(file);
        }
        let (cache, wanted) = (self.clone(), image.clone());
        let work = async move {
            let _gate = cache.0.gate.read().await;
            cache.0.store.as_file(&wanted).await
        };
        let lost = || ImageError::Io { action: format!("building {}", image.digest), message: "the task died".into() };
        let file = self.0.files.run(image.layers.last().cloned(), work).await.ok_or_else(lost)??;
        if let Some(known) = self.known().get_mut(&image.digest) {
            known.file = Some(file.clone());
        }
        Ok(file)
    }

    /// Removes images that are not in `live` and were not asked for within `min_age`, and layers nobody needs
    /// any more. Returns the images removed. Does nothing while an image is being fetched.
    pub async fn collect(&self, live: &HashSet<Digest>, min_age: Duration) -> Result<Vec<Digest>, ImageError> {
        let Ok(_gate) = self.0.gate.try_write() else { return Ok(Vec::new()) };
        let mut keep = live.clone();
        self.known().retain(|digest, known| {
            let stays = live.contains(digest) || known.used.elapsed() < min_age;
            if stays {
                keep.insert(digest.clone());
            }
            stays
        });
        let inner = self.0.clone();
        blocking("cache", move || inner.store.collect(&keep, min_age)).await
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Digest, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, image: Image) -> Arc<Image> {
        let image = Arc::new(image);
        let known = Known { image: image.clone(), file: None, used: Instant::now() };
        self.known().insert(image.digest.clone(), known);
        image
    }

    async fn fetch(&self, reference: &str, digest: Option<Digest>) -> Result<Arc<Image>, ImageError> {
        let parsed = Reference::parse(reference)?;
        let cache = self.clone();
        let key = (reference.to_owned(), digest.clone());
        let work = async move { cache.fetch_now(&parsed, digest).await };
        let lost = || ImageError::Io { action: format!("fetching {reference}"), message: "the task died".into() };
        self.0.flights.run(key, work).await.ok_or_else(lost)?
    }

    async fn fetch_now(&self, reference: &Reference, wanted: Option<Digest>) -> Result<Arc<Image>, ImageError> {
        let _gate = self.0.gate.read().await;
        let bad = |e: String| ImageError::invalid(reference, e);
        let source = Source::open(reference).await?;
        let mut bytes = source.document(wanted.as_ref()).await?;
        if let Some(digest) = &wanted {
            document::verify(&bytes, digest).map_err(bad)?;
        }
        let mut depth = 1;
        let (config, layers) = loop {
            match document::parse(&bytes).map_err(bad)? {
                Document::Manifest { config, layers } => break (config, layers),
                Document::Index(_) if depth == MAX_INDEX_DEPTH => {
                    return Err(bad("indexes are nested too deeply".into()));
                }
                Document::Index(next) => {
                    bytes = source.document(Some(&next.digest)).await?;
                    document::verify(&bytes, &next.digest).map_err(bad)?;
                    depth += 1;
                }
            }
        };
        let digest = Digest::of(&bytes);
        if let Some(image) = self.load(&digest).await? {
            return Ok(image);
        }
        let config_bytes = self.0.store.small_blob(reference, &source, &config).await?;
        let (_, diff_ids) = document::parse_config(&config_bytes).map_err(bad)?;
        if diff_ids.len() != layers.len() {
            return Err(bad(format!("{} layers, but {} diff ids", layers.len(), diff_ids.len())));
        }
        let chains = store::chain_ids(&diff_ids);
        let source = Arc::new(source);
        for (n, layer) in layers.into_iter().enumerate() {
            let (inner, source, reference) = (self.0.clone(), source.clone(), reference.clone());
            let (chain, diff_id) = (chains[..=n].to_vec(), diff_ids[n].clone());
            let work = async move { inner.store.add_layer(&reference, &source, &layer, &diff_id, &chain).await };
            self.0.layers.run(chains[n].clone(), work).await.ok_or_else(|| bad("unpacking a layer died".into()))??;
        }
        let (inner, wanted) = (self.0.clone(), digest.clone());
        let finish = move || {
            inner.store.put_blob(&Digest::of(&config_bytes), &config_bytes)?;
            inner.store.put_blob(&wanted, &bytes)?;
            inner.store.load(&wanted)
        };
        let image = blocking(&digest, finish).await?;
        image.map(|i| self.remember(i)).ok_or_else(|| bad("a layer vanished while it was unpacked".into()))
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    what: impl ToString,
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| ImageError::Io { action: format!("working on {}", what.to_string()), message: e.to_string() })?
}
