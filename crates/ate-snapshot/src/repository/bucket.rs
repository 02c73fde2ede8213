//! S3 and GCS: files compressed and streamed with bounded memory, the manifest created last and only if absent.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::Path as FilePath,
    sync::Arc,
    time::Duration,
};

use ate_api::id::Digest;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, buffered::BufWriter, path::Path,
};
use tokio::io::AsyncWriteExt;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::{Prefix, Stored, object_name, prefix::Location, receive::receive};
use crate::{
    Error, LocalSnapshot,
    blocking::{self, PARALLEL_FILES},
    files::{self, Stamp},
    manifest::{File, MANIFEST_NAME, MAX_BYTES},
};

/// Faster than any network we write to; higher levels gain little on memory images.
const ZSTD_LEVEL: i32 = 1;
/// Above the 5 MiB that S3 asks of a part.
const PART: u64 = 8 << 20;
/// S3 takes 10,000; compressed data can be a little larger than the file.
const MAX_PARTS: u64 = 9_000;
/// Parts on the way at once for one file. Memory: PARALLEL_FILES × (PARTS_IN_FLIGHT + 1) × PART, 96 MiB.
const PARTS_IN_FLIGHT: usize = 2;

/// The objects of one snapshot.
pub(super) struct Place {
    store: Arc<dyn ObjectStore>,
    dir: Path,
    prefix: Prefix,
}

impl Place {
    /// `base` is the path of the location inside the bucket.
    pub(super) fn new(store: Arc<dyn ObjectStore>, base: &Path, prefix: &Prefix) -> Self {
        let dir = prefix.parts().into_iter().fold(base.clone(), |dir, part| dir.join(part));
        Place { store, dir, prefix: prefix.clone() }
    }

    fn object(&self, name: &str) -> Path {
        self.dir.clone().join(name)
    }

    pub(super) async fn upload(&self, snapshot: &LocalSnapshot) -> Result<(), Error> {
        if self.has_manifest().await? {
            return self.same_or_fenced(snapshot).await;
        }
        stream::iter(snapshot.manifest.files.clone())
            .map(|file| self.put_file(snapshot, file))
            .buffer_unordered(PARALLEL_FILES)
            .try_collect::<()>()
            .await?;
        let payload = PutPayload::from(snapshot.manifest_bytes().to_vec());
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.object(MANIFEST_NAME), payload, options).await {
            Ok(_) => Ok(()),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                self.same_or_fenced(snapshot).await
            }
            Err(e) => Err(self.failed("write", MANIFEST_NAME, &e)),
        }
    }

    async fn same_or_fenced(&self, snapshot: &LocalSnapshot) -> Result<(), Error> {
        let same = self.read_manifest().await? == snapshot.manifest_bytes();
        if same { Ok(()) } else { Err(Error::Fenced(self.prefix.to_string())) }
    }

    /// Compresses and sends a file, and makes sure that what was read is what the manifest describes.
    async fn put_file(&self, snapshot: &LocalSnapshot, file: File) -> Result<(), Error> {
        let name = object_name(&file);
        let part = PART.max(file.size.div_ceil(MAX_PARTS));
        let part = usize::try_from(part).unwrap_or(usize::MAX);
        let object = BufWriter::with_capacity(self.store.clone(), self.object(&name), part)
            .with_max_concurrency(PARTS_IN_FLIGHT);
        let (path, digest) = (snapshot.files_dir().join(&file.name), snapshot.digest.clone());
        let (sent, mut object) = blocking::run(move || {
            let mut bridge = SyncIoBridge::new(object);
            let sent = send(&digest, &file, &path, &mut bridge);
            Ok((sent, bridge.into_inner()))
        })
        .await?;
        if let Err(e) = sent {
            // Frees the parts at once; if it fails, the bucket's rule for unfinished uploads does.
            object.abort().await.ok();
            return Err(e);
        }
        object.shutdown().await.map_err(|e| send_error(&name, &e))
    }

    pub(super) async fn has_manifest(&self) -> Result<bool, Error> {
        match self.store.head(&self.object(MANIFEST_NAME)).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(e) => Err(self.failed("look at", MANIFEST_NAME, &e)),
        }
    }

    /// The stored bytes, capped and not verified.
    pub(super) async fn read_manifest(&self) -> Result<Vec<u8>, Error> {
        let failed = |e: StoreError| self.failed("read", MANIFEST_NAME, &e);
        let mut stream = self.store.get(&self.object(MANIFEST_NAME)).await.map_err(failed)?.into_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk: Bytes = chunk.map_err(failed)?;
            if bytes.len() + chunk.len() > MAX_BYTES {
                return Err(Error::ManifestTooLarge { limit: MAX_BYTES });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Brings one file to `path` and verifies it on the way.
    pub(super) async fn fetch_file(&self, snapshot: &Digest, file: &File, path: &FilePath) -> Result<Stamp, Error> {
        let name = object_name(file);
        let got = self.store.get(&self.object(&name)).await.map_err(|e| match e {
            StoreError::NotFound { .. } => {
                Error::Corrupt { snapshot: snapshot.clone(), problem: format!("{} is missing", file.name) }
            }
            e => self.failed("read", &name, &e),
        })?;
        let reader = StreamReader::new(got.into_stream().map_err(io::Error::other));
        let (snapshot, file, path) = (snapshot.clone(), file.clone(), path.to_owned());
        let bridge = SyncIoBridge::new(reader);
        blocking::run(move || receive(&snapshot, &file, bridge, &path)).await
    }

    /// The manifest goes first: what is half-deleted is never complete.
    pub(super) async fn delete(&self) -> Result<(), Error> {
        match self.store.delete(&self.object(MANIFEST_NAME)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(e) => return Err(self.failed("delete", MANIFEST_NAME, &e)),
        }
        let objects = self.store.list(Some(&self.dir)).map_ok(|meta| meta.location).boxed();
        let mut deleted = self.store.delete_stream(objects);
        while let Some(result) = deleted.next().await {
            match result {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(e) => return Err(self.failed("delete", "files", &e)),
            }
        }
        Ok(())
    }

    fn failed(&self, doing: &str, name: &str, e: &StoreError) -> Error {
        Error::storage(doing, &format!("{}/{name}", self.prefix), e)
    }
}

/// Every snapshot below a location.
pub(super) async fn list(store: &dyn ObjectStore, base: &Path, location: &Location) -> Result<Vec<Stored>, Error> {
    let actors = base.clone().join("actors");
    let mut found: BTreeMap<String, Stored> = BTreeMap::new();
    let mut objects = store.list(Some(&actors));
    let now = jiff::Timestamp::now();
    while let Some(meta) = objects.next().await {
        let meta = meta.map_err(|e| Error::storage("list", &location.to_string(), &e))?;
        let parts: Vec<String> = match meta.location.prefix_match(&actors) {
            Some(parts) => parts.map(|p| p.as_ref().to_owned()).collect(),
            None => continue,
        };
        let [actor, numbers, name] = parts.as_slice() else { continue };
        let Some(prefix) = Prefix::from_parts(location, actor, numbers) else { continue };
        let age = now.as_millisecond().saturating_sub(meta.last_modified.timestamp_millis());
        let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
        let stored = found.entry(prefix.to_string()).or_insert(Stored { prefix, complete: false, age });
        stored.complete |= name == MANIFEST_NAME;
        stored.age = stored.age.min(age);
    }
    Ok(found.into_values().collect())
}

/// Blocks.
fn send(snapshot: &Digest, file: &File, path: &FilePath, to: &mut impl Write) -> Result<(), Error> {
    let name = object_name(file);
    let (reader, _) = files::open_regular(path).map_err(|e| Error::io("read", path, &e))?;
    let mut encoder = zstd::stream::write::Encoder::new(to, ZSTD_LEVEL).map_err(|e| send_error(&name, &e))?;
    let hashed = files::hash(reader, |block| encoder.write_all(block)).map_err(|e| send_error(&name, &e))?;
    if hashed != (file.size, file.sha256.clone()) {
        let problem = format!("{} changed after it was verified", file.name);
        return Err(Error::Corrupt { snapshot: snapshot.clone(), problem });
    }
    encoder.finish().map(drop).map_err(|e| send_error(&name, &e))
}

/// The writer of an object hands errors of the store on inside of an io::Error.
fn send_error(object: &str, e: &io::Error) -> Error {
    match e.get_ref().and_then(|e| e.downcast_ref::<StoreError>()) {
        Some(e) => Error::storage("write", object, e),
        None => Error::Storage(format!("cannot write {object}: {e}")),
    }
}
