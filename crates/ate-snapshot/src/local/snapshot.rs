//! One snapshot on this node, and how it is verified.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use ate_api::id::{Digest, Uid};

use crate::{
    Error, Manifest, blocking,
    files::{self, Stamp},
    manifest::{File, MANIFEST_NAME, MAX_BYTES},
};

pub(super) const FILES: &str = "files";
const STAMPS: &str = "stamps.json";
/// A stamp has some 200 bytes; this is far beyond the number of files a manifest may name.
const MAX_STAMPS: usize = 1 << 20;

/// File name → what it looked like when its bytes were last verified.
pub(super) type Stamps = BTreeMap<String, Stamp>;

/// A verified snapshot on this node.
#[derive(Debug, Clone)]
pub struct LocalSnapshot {
    pub digest: Digest,
    pub manifest: Arc<Manifest>,
    bytes: Arc<Vec<u8>>,
    dir: PathBuf,
    files_dir: PathBuf,
}

impl LocalSnapshot {
    pub(super) fn new(dir: PathBuf, digest: Digest, manifest: Manifest, bytes: Vec<u8>) -> Self {
        let files_dir = dir.join(FILES);
        LocalSnapshot { digest, manifest: Arc::new(manifest), bytes: Arc::new(bytes), dir, files_dir }
    }

    /// The directory with exactly the files of the manifest. To be read only: other names of the same files exist.
    pub fn files_dir(&self) -> &Path {
        &self.files_dir
    }

    /// The manifest as it is stored.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.dir.join(MANIFEST_NAME)
    }

    /// Files were made durable when they were sealed; this is for the manifest and all names. Blocks.
    pub(super) fn make_durable(&self) -> Result<(), Error> {
        files::sync_file(&self.manifest_path())?;
        files::sync_dir(&self.files_dir)?;
        files::sync_dir(&self.dir)?;
        self.dir.parent().map_or(Ok(()), files::sync_dir)
    }

    /// Renews the stamps after hard links to the files were made, which changes their `ctime`. A file that changed
    /// in any other way keeps its old stamp and will be hashed again. Blocks.
    pub(crate) fn renew_stamps(&self) {
        let mut stamps = read_stamps(&self.dir);
        for (name, stamp) in &mut stamps {
            if let Ok(metadata) = fs::symlink_metadata(self.files_dir.join(name)) {
                let now = Stamp::of(&metadata);
                if now.same_but_for_links(stamp) {
                    *stamp = now;
                }
            }
        }
        keep_stamps(&self.dir, &stamps);
    }
}

pub(super) enum Problem {
    /// The bytes on disk are not those of the snapshot.
    Damaged(String),
    /// It could not be looked at, or its manifest is not for this build.
    Failed(Error),
}

/// Reads the manifest, looks at every file, and hashes those that are not known to be unchanged.
pub(super) async fn verify(dir: PathBuf, digest: Digest) -> Result<LocalSnapshot, Problem> {
    let looked = blocking::run(move || Ok(look(&dir, &digest))).await.map_err(Problem::Failed)?;
    let (snapshot, stamps, changed) = looked?;
    if changed.is_empty() {
        return Ok(snapshot);
    }
    let files_dir = snapshot.files_dir.clone();
    let hashed =
        blocking::run_each(changed, move |file| Ok(rehash(&files_dir, file))).await.map_err(Problem::Failed)?;
    let fresh: Stamps = hashed.into_iter().collect::<Result<_, _>>()?;
    let (dir, stamps) = (snapshot.dir.clone(), stamps.into_iter().chain(fresh).collect());
    blocking::run(move || {
        keep_stamps(&dir, &stamps);
        Ok(snapshot)
    })
    .await
    .map_err(Problem::Failed)
}

/// The snapshot, its stamps, and the files that must be hashed.
type Looked = (LocalSnapshot, Stamps, Vec<File>);

fn look(dir: &Path, digest: &Digest) -> Result<Looked, Problem> {
    if let Err(e) = fs::symlink_metadata(dir) {
        return Err(Problem::Failed(match e.kind() {
            io::ErrorKind::NotFound => Error::NotFound(format!("no copy of {digest} on this node")),
            _ => Error::io("look at", dir, &e),
        }));
    }
    let bytes = files::read_small(&dir.join(MANIFEST_NAME), MAX_BYTES).map_err(|e| problem(dir, MANIFEST_NAME, &e))?;
    let bytes = bytes.ok_or_else(|| Problem::Damaged("its manifest is too large".to_owned()))?;
    let manifest = Manifest::parse_verified(&bytes, digest).map_err(|e| match e {
        Error::ManifestDigest { .. } => Problem::Damaged(e.to_string()),
        other => Problem::Failed(other),
    })?;
    let snapshot = LocalSnapshot::new(dir.to_owned(), digest.clone(), manifest, bytes);

    let named: BTreeSet<&str> = snapshot.manifest.files.iter().map(|f| f.name.as_str()).collect();
    let listed = match fs::symlink_metadata(&snapshot.files_dir) {
        Ok(m) if m.is_dir() => files::entries(&snapshot.files_dir).map_err(Problem::Failed)?,
        Ok(_) => return Err(Problem::Damaged("its files are not in a directory".to_owned())),
        Err(e) => return Err(problem(dir, FILES, &e)),
    };
    if let Some(extra) = listed.iter().find(|name| !named.contains(name.as_str())) {
        return Err(Problem::Damaged(format!("it has a file {extra:?} that its manifest does not name")));
    }

    let stamps = read_stamps(dir);
    let mut changed = Vec::new();
    for file in &snapshot.manifest.files {
        let metadata =
            fs::symlink_metadata(snapshot.files_dir.join(&file.name)).map_err(|e| problem(dir, &file.name, &e))?;
        if !metadata.is_file() {
            return Err(Problem::Damaged(format!("{} is not a regular file", file.name)));
        }
        if metadata.len() != file.size {
            return Err(Problem::Damaged(format!("{} has {} bytes, not {}", file.name, metadata.len(), file.size)));
        }
        if stamps.get(&file.name) != Some(&Stamp::of(&metadata)) {
            changed.push(file.clone());
        }
    }
    Ok((snapshot, stamps, changed))
}

fn rehash(files_dir: &Path, file: File) -> Result<(String, Stamp), Problem> {
    let path = files_dir.join(&file.name);
    let (size, sha256, stamp) = files::hash_file(&path).map_err(|e| problem(files_dir, &file.name, &e))?;
    if (size, &sha256) != (file.size, &file.sha256) {
        return Err(Problem::Damaged(format!("{} has digest {sha256}, not {}", file.name, file.sha256)));
    }
    Ok((file.name, stamp))
}

/// Missing and not a plain file is damage; anything else says nothing about the bytes.
fn problem(dir: &Path, name: &str, e: &io::Error) -> Problem {
    use io::ErrorKind as K;
    match e.kind() {
        K::NotFound | K::NotADirectory | K::InvalidInput => Problem::Damaged(format!("{name}: {e}")),
        _ => Problem::Failed(Error::io("read", &dir.join(name), e)),
    }
}

/// Unreadable stamps are no stamps.
fn read_stamps(dir: &Path) -> Stamps {
    let bytes = files::read_small(&dir.join(STAMPS), MAX_STAMPS).ok().flatten();
    bytes.and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default()
}

/// Without stamps the next verification is slower, nothing else.
fn keep_stamps(dir: &Path, stamps: &Stamps) {
    if let Err(error) = write_stamps(dir, stamps) {
        tracing::warn!(%error, "cannot keep the stamps of a snapshot");
    }
}

pub(super) fn write_stamps(dir: &Path, stamps: &Stamps) -> Result<(), Error> {
    let (path, new) = (dir.join(STAMPS), dir.join(format!("{STAMPS}.{}", Uid::generate())));
    let bytes = serde_json::to_vec(stamps).expect("stamps have string keys");
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path));
    written.map_err(|e| {
        fs::remove_file(&new).ok();
        Error::io("write", &path, &e)
    })
}
