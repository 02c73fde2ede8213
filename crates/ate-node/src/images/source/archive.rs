//! Images in one tar file: a layout (`oci-archive`) or what `docker save` writes (`docker-archive`).
//!
//! The archive is read once for its table of contents; blobs are then read in place. `docker save` has no image
//! manifest of its own, so one is derived from its configuration and layers: equal archives give equal digests.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Component, Path, PathBuf},
};

use ate_api::id::Digest;
use serde::Deserialize;
use serde_json::json;

use super::{
    super::{
        ImageError,
        document::{MAX_DOCUMENT, MAX_LAYERS, parse_config},
        reference::Reference,
    },
    Section, layout, open_file, read_small,
};

/// Files of an archive: a few per layer and image.
const MAX_ENTRIES: usize = 20_000;
/// Headers of that many files; the tar parser reads long names into memory.
const MAX_HEADER_BYTES: u64 = 64 << 20;

pub(in super::super) struct Archive {
    image: String,
    file: File,
    parts: HashMap<String, Part>,
    /// The image the reference names.
    root: Digest,
    /// Documents that are not in the file as they are.
    made: HashMap<Digest, Vec<u8>>,
    /// Blobs that are not named by their digest in the file.
    named: HashMap<Digest, String>,
}

#[derive(Clone, Copy)]
struct Part {
    offset: u64,
    len: u64,
}

impl Archive {
    /// Blocking.
    pub(super) fn open(reference: &Reference) -> Result<Self, ImageError> {
        let image = reference.to_string();
        let (Reference::LayoutArchive { file: path, tag } | Reference::DockerArchive { file: path, tag }) = reference
        else {
            return Err(ImageError::invalid(image, "not an archive"));
        };
        let file = open_file(path).map_err(|e| ImageError::not_found(&image, e))?;
        let parts = contents(&file).map_err(|e| ImageError::invalid(&image, e))?;
        let mut archive =
            Archive { root: Digest::of(b""), image, file, parts, made: HashMap::new(), named: HashMap::new() };
        match reference {
            Reference::DockerArchive { .. } => archive.derive_manifest(tag.as_deref())?,
            _ => archive.root = layout::named_in(&archive.small("index.json")?, tag.as_deref(), &archive.image)?,
        }
        Ok(archive)
    }

    pub(super) fn document(&self, digest: Option<&Digest>) -> Result<Vec<u8>, ImageError> {
        let digest = digest.unwrap_or(&self.root);
        match self.made.get(digest) {
            Some(bytes) => Ok(bytes.clone()),
            None => read_small(self.blob(digest)?, MAX_DOCUMENT).map_err(|e| ImageError::invalid(&self.image, e)),
        }
    }

    pub(super) fn blob(&self, digest: &Digest) -> Result<Section, ImageError> {
        match self.named.get(digest) {
            Some(name) => self.section(name).map(|s| Section { has_digest: false, ..s }),
            None => self.section(&format!("blobs/sha256/{digest}")),
        }
    }

    fn section(&self, name: &str) -> Result<Section, ImageError> {
        let part = self
            .parts
            .get(name)
            .ok_or_else(|| ImageError::not_found(&self.image, format!("the archive has no {name}")))?;
        let file = self.file.try_clone().map_err(|e| ImageError::invalid(&self.image, e))?;
        Ok(Section { file, offset: part.offset, len: part.len, has_digest: true })
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, ImageError> {
        read_small(self.section(name)?, MAX_DOCUMENT).map_err(|e| ImageError::invalid(&self.image, e))
    }

    /// From `manifest.json`, which lists images by configuration and layer files.
    fn derive_manifest(&mut self, tag: Option<&str>) -> Result<(), ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Saved {
            config: String,
            #[serde(default)]
            repo_tags: Option<Vec<String>>,
            layers: Vec<String>,
        }
        let bad = |e: String| ImageError::invalid(&self.image, e);
        let saved: Vec<Saved> = serde_json::from_slice(&self.small("manifest.json")?)
            .map_err(|e| bad(format!("bad manifest.json: {e}")))?;
        let tags = |s: &Saved| s.repo_tags.clone().unwrap_or_default();
        let found = match tag {
            Some(tag) => saved.iter().find(|s| tags(s).iter().any(|t| t == tag)),
            None if saved.len() == 1 => saved.first(),
            None => None,
        };
        let found = found.ok_or_else(|| {
            let tags: Vec<String> = saved.iter().flat_map(tags).collect();
            ImageError::not_found(&self.image, format!("name one of the tags {}", tags.join(", ")))
        })?;
        let config = self.small(&found.config)?;
        let (_, diff_ids) = parse_config(&config).map_err(bad)?;
        if diff_ids.len() != found.layers.len() || diff_ids.len() > MAX_LAYERS {
            return Err(bad(format!("{} layers, but {} diff ids", found.layers.len(), diff_ids.len())));
        }
        let mut layers = Vec::new();
        for (diff_id, name) in diff_ids.iter().zip(&found.layers) {
            layers.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{diff_id}"),
                "size": self.section(name)?.len,
            }));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{}", Digest::of(&config)),
                "size": config.len(),
            },
            "layers": layers,
        });
        let manifest = manifest.to_string().into_bytes();
        self.root = Digest::of(&manifest);
        self.named = diff_ids.into_iter().zip(found.layers.iter().cloned()).collect();
        self.named.insert(Digest::of(&config), found.config.clone());
        self.made.insert(self.root.clone(), manifest);
        Ok(())
    }
}

/// Name → place of every file; links, which old versions of `docker save` use for equal layers, are resolved.
fn contents(file: &File) -> Result<HashMap<String, Part>, String> {
    let total = file.metadata().map_err(|e| e.to_string())?.len();
    let mut parts = HashMap::new();
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(Headers { file, left: MAX_HEADER_BYTES });
    for (n, entry) in archive.entries_with_seek().map_err(|e| e.to_string())?.enumerate() {
        let entry = entry.map_err(|e| e.to_string())?;
        if n >= MAX_ENTRIES {
            return Err(format!("more than {MAX_ENTRIES} files in the archive"));
        }
        let name = lexical(&entry.path().map_err(|e| e.to_string())?);
        let kind = entry.header().entry_type();
        if kind.is_file() {
            let part = Part { offset: entry.raw_file_position(), len: entry.size() };
            if part.offset.saturating_add(part.len) > total {
                return Err(format!("the archive ends within {name}"));
            }
            parts.insert(name, part);
        } else if let Some(target) = entry.link_name().map_err(|e| e.to_string())? {
            let target = match Path::new(&name).parent() {
                Some(dir) if kind.is_symlink() => lexical(&dir.join(target)),
                _ => lexical(&target),
            };
            links.push((name, target));
        }
    }
    for (name, target) in links {
        if let Some(part) = parts.get(&target).copied() {
            parts.entry(name).or_insert(part);
        }
    }
    Ok(parts)
}

/// The file, of which only headers are read: contents are skipped by seeking.
struct Headers<'a> {
    file: &'a File,
    left: u64,
}

impl Read for Headers<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.left = self.left.checked_sub(n as u64).ok_or(io::ErrorKind::InvalidData)?;
        Ok(n)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// A name in the archive's own terms; it is only ever looked up in the table of contents.
fn lexical(path: &Path) -> String {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean.to_string_lossy().into_owned()
}
