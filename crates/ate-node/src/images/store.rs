//! The image cache on disk. All calls but those marked async block.

use std::{
    collections::HashSet,
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use ate_api::id::Digest;
use ate_failpoint::step_now;

use super::{
    Image, ImageError, ImageFile, blocking,
    document::{self, Blob, Document, MAX_DOCUMENT},
    erofs, layer,
    reference::Reference,
    source::Source,
};
use crate::{
    disk,
    unpack::{Hashing, Limits},
};

/// One layer. A large base image has 50,000 files and 1 GB; models and tool chains come larger.
const LAYER_LIMITS: Limits = Limits { entries: 1_000_000, bytes: 32 << 30 };
/// Of a layer as it is stored in a registry.
const MAX_LAYER_BLOB: u64 = 16 << 30;

pub(super) struct Store {
    blobs: PathBuf,
    layers: PathBuf,
    erofs: PathBuf,
    tmp: PathBuf,
}

/// Names the layers of an image by everything they depend on.
pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::new();
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("sha256:{below} sha256:{diff_id}").as_bytes()),
        });
    }
    chain
}

impl Store {
    pub(super) fn open(root: &Path) -> Result<Self, ImageError> {
        let failed = |e: io::Error| ImageError::io("cache", "opening the image cache", root, e);
        disk::private_dir(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        let [blobs, layers, erofs, tmp] = ["blobs", "layers", "erofs", "tmp"].map(|dir| root.join(dir));
        let store = Store { blobs, layers, erofs, tmp };
        for dir in [&store.blobs, &store.layers, &store.erofs, &store.tmp] {
            disk::private_dir(dir).map_err(failed)?;
        }
        disk::clear(&store.tmp).map_err(failed)?;
        Ok(store)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(format!("sha256-{digest}"))
    }

    fn layer_path(&self, chain: &Digest) -> PathBuf {
        self.layers.join(format!("sha256-{chain}"))
    }

    /// An image that is completely here; `None` otherwise.
    pub(super) fn load(&self, digest: &Digest) -> Result<Option<Image>, ImageError> {
        let Some(Document::Manifest { config, .. }) = self.blob(digest)?.and_then(|b| document::parse(&b).ok()) else {
            return Ok(None);
        };
        let Some((config, diff_ids)) = self.blob(&config.digest)?.and_then(|b| document::parse_config(&b).ok()) else {
            return Ok(None);
        };
        let layers: Vec<PathBuf> = chain_ids(&diff_ids).iter().map(|c| self.layer_path(c)).collect();
        let complete = layers.iter().all(|l| fs::symlink_metadata(l).is_ok_and(|m| m.is_dir()));
        Ok(complete.then(|| Image { digest: digest.clone(), layers, config }))
    }

    /// A stored document; one whose bytes changed is removed and counts as absent.
    fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        let path = self.blob_path(digest);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ImageError::io(digest, "reading", &path, e)),
        };
        if let Err(e) = document::verify(&bytes, digest) {
            tracing::warn!(path = %path.display(), error = e, "a stored image document changed on disk; removing it");
            disk::remove(&path).map_err(|e| ImageError::io(digest, "removing", &path, e))?;
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    pub(super) fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        let path = self.blob_path(digest);
        let written = step_now!("image.document", disk::write_durably(&path, bytes, &self.tmp));
        written.map_err(|e| ImageError::io(digest, "writing", &path, e))
    }

    /// Async. A verified configuration from the source.
    pub(super) async fn small_blob(
        &self,
        reference: &Reference,
        source: &Source,
        blob: &Blob,
    ) -> Result<Vec<u8>, ImageError> {
        let bad = |e: String| ImageError::invalid(reference, e);
        if blob.size > MAX_DOCUMENT {
            return Err(bad(format!("its configuration is larger than {MAX_DOCUMENT} bytes")));
        }
        let section = source.blob(blob, &self.tmp).await?;
        let mut bytes = Vec::new();
        let read = section.open().and_then(|r| r.take(blob.size + 1).read_to_end(&mut bytes));
        read.map_err(|e| bad(e.to_string()))?;
        if bytes.len() as u64 != blob.size {
            return Err(bad(format!("its configuration has not {} bytes as the manifest says", blob.size)));
        }
        document::verify(&bytes, &blob.digest).map_err(bad)?;
        Ok(bytes)
    }

    /// Async. Unpacks one layer over those below, unless it is here; `chain` are the chain ids up to this layer.
    pub(super) async fn add_layer(
        &self,
        reference: &Reference,
        source: &Source,
        blob: &Blob,
        diff_id: &Digest,
        chain: &[Digest],
    ) -> Result<(), ImageError> {
        let mut paths: Vec<PathBuf> = chain.iter().map(|c| self.layer_path(c)).collect();
        let Some(path) = paths.pop() else { return Ok(()) };
        if tokio::fs::try_exists(&path).await.unwrap_or(false) {
            return Ok(());
        }
        if blob.size > MAX_LAYER_BLOB {
            return Err(ImageError::invalid(reference, format!("a layer is larger than {MAX_LAYER_BLOB} bytes")));
        }
        let section = source.blob(blob, &self.tmp).await?;
        if section.len != blob.size {
            let message = format!(
                "layer {} has {} bytes, not {} as the manifest says",
                blob.digest.short(),
                section.len,
                blob.size
            );
            return Err(ImageError::invalid(reference, message));
        }
        let (tmp, reference, blob, diff_id) = (self.tmp.clone(), reference.clone(), blob.clone(), diff_id.clone());
        let unpack = move || {
            let failed = |e: io::Error| ImageError::io(&reference, "unpacking into", &tmp, e);
            let dir = tempfile::Builder::new().prefix("layer-").tempdir_in(&tmp).map_err(failed)?;
            // The directory itself becomes the root of the file system and gets its mode; this one hides it until then.
            let root = dir.path().join("root");
            fs::create_dir(&root).map_err(failed)?;
            let has_digest = section.has_digest;
            let mut stream = Hashing::new(section.open().map_err(failed)?, MAX_LAYER_BLOB);
            let apply = layer::apply(&mut stream, &root, &paths, LAYER_LIMITS);
            let apply = apply.map_err(|e| ImageError::unpack(&reference, &tmp, e));
            let actual = step_now!("image.unpack", apply)?;
            let (digest, _) = stream.finish().map_err(failed)?;
            if has_digest && digest != blob.digest {
                let message = format!("layer expected sha256:{}, got sha256:{digest}", blob.digest);
                return Err(ImageError::invalid(&reference, message));
            }
            if actual != diff_id {
                let message = format!("uncompressed layer expected sha256:{diff_id}, got sha256:{actual}");
                return Err(ImageError::invalid(&reference, message));
            }
            step_now!("image.layer", fs::rename(&root, &path)).map_err(failed)?;
            path.parent().map_or(Ok(()), disk::sync_dir).map_err(failed)
        };
        blocking(diff_id_label(chain), unpack).await
    }

    /// Async. All layers of an image as one filesystem; built if it is not here.
    pub(super) async fn as_file(self: &Arc<Self>, image: &Image) -> Result<ImageFile, ImageError> {
        // The highest layer's name says what is below it as well.
        let Some(name) = image.layers.last().and_then(|l| l.file_name()) else {
            return Err(ImageError::invalid(&image.digest, "it has no layers"));
        };
        let dir = self.erofs.join(name);
        let (store, at) = (self.clone(), dir.clone());
        let look = move || match erofs::load(&at) {
            Some(found) => Ok(Some(found)),
            None => store.discard(&at).map(|()| None),
        };
        if let Some(found) = blocking(&image.digest, look).await? {
            return Ok(found);
        }
        erofs::build(&image.digest, &image.layers, &dir, &self.tmp).await?;
        let lost = || ImageError::Io { action: format!("reading {}", dir.display()), message: "it is gone".into() };
        erofs::load(&dir).ok_or_else(lost)
    }

    /// Removes documents, layers and filesystems that no image of `keep` needs and that are older than `min_age`.
    /// Returns the images among them.
    pub(super) fn collect(&self, keep: &HashSet<Digest>, min_age: Duration) -> Result<Vec<Digest>, ImageError> {
        let mut keep_blobs = keep.clone();
        let (mut keep_layers, mut keep_erofs) = (HashSet::new(), HashSet::new());
        for digest in keep {
            let Some(Ok(Document::Manifest { config, .. })) = self.blob(digest)?.map(|b| document::parse(&b)) else {
                continue;
            };
            if let Some(Ok((_, diff_ids))) = self.blob(&config.digest)?.map(|b| document::parse_config(&b)) {
                let chains = chain_ids(&diff_ids);
                keep_erofs.extend(chains.last().cloned());
                keep_layers.extend(chains);
            }
            keep_blobs.insert(config.digest);
        }
        let mut removed = Vec::new();
        for digest in self.old(&self.blobs, min_age, &keep_blobs)? {
            if self.blob(&digest)?.is_some_and(|b| matches!(document::parse(&b), Ok(Document::Manifest { .. }))) {
                removed.push(digest.clone());
            }
            self.discard(&self.blob_path(&digest))?;
        }
        for (dir, keep) in [(&self.erofs, keep_erofs), (&self.layers, keep_layers)] {
            for chain in self.old(dir, min_age, &keep)? {
                self.discard(&dir.join(format!("sha256-{chain}")))?;
            }
        }
        Ok(removed)
    }

    /// What got its name in `dir` more than `min_age` ago and is not to be kept.
    fn old(&self, dir: &Path, min_age: Duration, keep: &HashSet<Digest>) -> Result<Vec<Digest>, ImageError> {
        let failed = |e: io::Error| ImageError::io("cache", "listing", dir, e);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().replace("sha256-", "");
            let Some(digest) = Digest::parse(&name).filter(|d| !keep.contains(d)) else { continue };
            // The time of change: that of modification belongs to the image.
            let changed = entry.metadata().map_err(failed)?.ctime().max(0) as u64;
            if now.saturating_sub(Duration::from_secs(changed)) >= min_age {
                found.push(digest);
            }
        }
        Ok(found)
    }

    /// Takes the name away at once and the bytes after that: a crash leaves nothing half removed.
    fn discard(&self, path: &Path) -> Result<(), ImageError> {
        let failed = |e: io::Error| ImageError::io("cache", "removing", path, e);
        let tmp = tempfile::tempdir_in(&self.tmp).map_err(failed)?;
        match fs::rename(path, tmp.path().join("gone")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(e)),
            _ => tmp.close().map_err(failed),
        }
    }
}

/// For messages: the layer worked on.
fn diff_id_label(chain: &[Digest]) -> String {
    chain.last().map_or(String::new(), |c| format!("layer {}", c.short()))
}
